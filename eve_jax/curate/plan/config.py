"""The section `plan` of a curation's config: what a full run is predicted from."""

from dataclasses import dataclass

from eve_jax.process.section import Section, setting


@dataclass(frozen=True, kw_only=True)
class PlanConfig(Section):
    """The section `plan` of a config; configs/curate.py says what its fields mean."""

    PATH = "plan."

    sample: int = setting(low=1)
    pilot: str
    prompt_tokens: float = setting(low=0)
    answer_tokens: float = setting(low=0)
    captions_per_gpu_day: float = setting(low=0, between=True)
    gpus: float = setting(low=0, between=True)
    gpu_hour: float = setting(low=0)
    prompt_price: float = setting(low=0)
    answer_price: float = setting(low=0)
    currency: str
