"""All experts of a config as one function: image -> findings."""

from collections.abc import Callable
from functools import cache
from operator import itemgetter
from threading import Lock
from typing import Any

import numpy as np
from jaxtyping import UInt8

from eve_jax.curate.experts.config import BoxesConfig, ExpertsConfig, OcrConfig, TagsConfig
from eve_jax.curate.experts.endpoint import ask_endpoint
from eve_jax.curate.experts.form import EXPERTS, Finding, Findings

LookAt = Callable[[UInt8[np.ndarray, "H W 3"]], Findings]
Look = Callable[[UInt8[np.ndarray, "H W 3"]], list[Finding]]
_opening = Lock()


def opened_experts(config: ExpertsConfig) -> LookAt:
    """Return `open_experts(config)`, the same function in all of this process."""
    with _opening:
        return _opened(config)


@cache
def _opened(config: ExpertsConfig) -> LookAt:
    return open_experts(config)


def open_experts(config: ExpertsConfig) -> LookAt:
    """Return the function that has each expert of `config.run` look at an upright RGB image; for several threads.

    Each is loaded here, once. Raises UserError, one line that names the field, for a package or file that is missing;
    the function raises what `ask_endpoint` raises.
    """
    looks = {expert: _open(expert, config) for expert in EXPERTS if expert in config.names}
    return lambda image: {expert: look(image) for expert, look in looks.items()}


def _open(expert: str, config: ExpertsConfig) -> Look:
    settings: OcrConfig | BoxesConfig | TagsConfig = getattr(config, expert)
    if settings.url:
        look = ask_endpoint(expert, settings.url, config.timeout, config.patience)
        return lambda image: _kept(expert, look(image), settings)
    return _maker(expert)(settings)


def _maker(expert: str) -> Callable[[Any], Look]:
    """Return what makes an expert in this process; the others' libraries are not imported."""
    if expert == "ocr":
        from eve_jax.curate.experts.ocr import make_ocr

        return make_ocr
    if expert == "boxes":
        from eve_jax.curate.experts.detect import make_detector

        return make_detector
    from eve_jax.curate.experts.tags import make_tagger

    return make_tagger


def _kept(expert: str, found: list[Finding], settings: OcrConfig | BoxesConfig | TagsConfig) -> list[Finding]:
    """Return what of an endpoint's answer is certain enough: OCR in its order, else the most certain first."""
    certain = [one for one in found if one["score"] >= settings.score]
    if isinstance(settings, OcrConfig):
        return certain
    return sorted(certain, key=itemgetter("score"), reverse=True)[: settings.most]
