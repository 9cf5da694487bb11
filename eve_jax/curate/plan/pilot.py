"""What a caption costs: by a pilot, a folder that `launch.caption` made of some records, or by what is assumed."""

from dataclasses import dataclass
from pathlib import Path

from eve_jax.curate.config import PlanConfig
from eve_jax.errors import UserError
from eve_jax.process.files import read_json

FUNNEL_FILE, USAGE_FILE = "funnel.json", "usage.json"  # of `launch.caption`
READ = "read"  # the stage of records that nothing was asked about
NUMBERS = ("requests", "prompt_tokens", "tokens", "busy_seconds")
DAY = 86_400.0


@dataclass(frozen=True)
class CaptionCost:
    """What a record costs that is captioned, on average.

    Attributes:
        requests: that are answered, with those that are asked again.
        prompt_tokens, answer_tokens: of all requests of the record.
        kept: share of records whose caption passes the checks.
        per_gpu_day: records a GPU and day.
        source: where the numbers come from.
    """

    requests: float
    prompt_tokens: float
    answer_tokens: float
    kept: float
    per_gpu_day: float
    source: str


def caption_cost(config: PlanConfig) -> CaptionCost:
    """Return what the pilot that the config names cost, or what the config assumes. Raises UserError."""
    if not config.pilot:
        return CaptionCost(
            1.0,
            config.prompt_tokens,
            config.answer_tokens,
            1.0,
            config.captions_per_gpu_day,
            f"assumed: config.plan.prompt_tokens={config.prompt_tokens:g}, answer_tokens={config.answer_tokens:g}, "
            f"captions_per_gpu_day={config.captions_per_gpu_day:g}; a folder of launch.caption as config.plan.pilot "
            "gives measured ones",
        )
    folder = Path(config.pilot)
    funnel, usage = read_json(folder / FUNNEL_FILE), read_json(folder / USAGE_FILE)
    try:
        # Records that cannot be read are left out before anything is asked, by a curation as by a pilot.
        records = int(funnel["in"]) - sum(funnel["rejected"].get(READ, {}).values())
        kept = int(funnel["kept"])
        requests, prompt, answer, seconds = (float(usage[name]) for name in NUMBERS)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"config.plan.pilot={folder}: {FUNNEL_FILE} or {USAGE_FILE} lacks {error}") from error
    if not records or not requests or seconds <= 0:
        raise UserError(f"config.plan.pilot={folder}: nothing was captioned there; name a folder with some captions")
    return CaptionCost(
        requests / records,
        prompt / records,
        answer / records,
        kept / records,
        records * DAY / seconds / config.gpus,
        f"measured on {records:,} records in {folder}, on {config.gpus:g} GPU{'' if config.gpus == 1 else 's'}",
    )
