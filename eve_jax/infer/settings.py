"""Settings of an answer: how long it may be and how its tokens are chosen."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypedDict, Unpack

from eve_jax.infer.sampling import Sampling
from eve_jax.process.checks import known_names, whole


class AnswerSettings(TypedDict, total=False):
    """How to answer: `max_new_tokens` (256), and the fields of `Sampling`, whose defaults are greedy."""

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    top_k: int
    min_p: float
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    logit_bias: Mapping[int, float] | Sequence[tuple[int, float]]


class Stored(TypedDict, total=False):
    """How a model is computed with and asked: `dtype` of the computation, what the layers' `weights` are quantized to,
    and `special_text` as in `config.data` (None = the checkpoint's own)."""

    dtype: str
    weights: str
    special_text: bool | None


class CheckedSettings(NamedTuple):
    """Checked settings."""

    max_new_tokens: int
    sampling: Sampling


def check_settings(**settings: Unpack[AnswerSettings]) -> CheckedSettings:
    """Return the settings, with defaults for those that are absent. Raises UserError naming a wrong one."""
    known_names(settings, AnswerSettings.__annotations__, "setting")
    sampling = {name: value for name, value in settings.items() if name != "max_new_tokens"}
    longest = whole("max_new_tokens", settings.get("max_new_tokens", 256), "a whole number of at least 1", 1)
    return CheckedSettings(longest, Sampling(**sampling))  # type: ignore[arg-type]
