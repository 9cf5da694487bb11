"""Settings of an answer: how long it may be and how its tokens are chosen."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict, Unpack

from eve_jax.infer.sampling import Sampling
from eve_jax.infer.stopping import checked_stops
from eve_jax.process.checks import known_names, whole


class AnswerSettings(TypedDict, total=False):
    """How to answer: `max_new_tokens` (256), `stop`, a text or up to 4 before the first of which the answer's text ends
    (none), and the fields of `Sampling`, whose defaults are greedy."""

    max_new_tokens: int
    stop: str | Sequence[str]
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
    `special_text` as in `config.data` (None = the checkpoint's own), and the `cache` of compiled programs."""

    dtype: str
    weights: str
    special_text: bool | None
    cache: bool | str | Path


class CheckedSettings(NamedTuple):
    """Checked settings."""

    max_new_tokens: int
    sampling: Sampling
    stop: tuple[str, ...] = ()


def check_settings(**settings: Unpack[AnswerSettings]) -> CheckedSettings:
    """Return the settings, with defaults for those that are absent. Raises UserError naming a wrong one."""
    known_names(settings, AnswerSettings.__annotations__, "setting")
    sampling = {name: value for name, value in settings.items() if name not in ("max_new_tokens", "stop")}
    longest = whole("max_new_tokens", settings.get("max_new_tokens", 256), "a whole number of at least 1", 1)
    stop = checked_stops(settings.get("stop", ()))
    return CheckedSettings(longest, Sampling(**sampling), stop)  # type: ignore[arg-type]
