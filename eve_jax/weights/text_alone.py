"""The LLM of a stage of text alone, whose patch embedding has never learned, for a model with another one."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from eve_jax.checkpoint.named_step import check_step
from eve_jax.checkpoint.stage_folder import newest_step, read_config
from eve_jax.checkpoint.vision_copies import Completed, ParamSource
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params, of_groups
from eve_jax.model.v1_config import OF_PATCHES
from eve_jax.process.peers import Peers
from eve_jax.weights.open import Checkpoint, stored_source

FIELDS = ("patch_embed", "patch_hidden", "sub_patch", "encoder", "codes", *OF_PATCHES)
TEXT = "llm"  # the stage of text alone


def text_alone(found: Checkpoint, cfg: ModelConfig, seed: int, together: Peers | None = None) -> Checkpoint:
    """Return a stage of text alone with the patch embedding of `cfg`, new from `seed`, in place of its own one.

    Any other checkpoint, and one whose patch embedding is of that form, is returned as it is. together: as for
    `newest_step`.
    """
    same = all(getattr(found.cfg, name) == getattr(cfg, name) for name in FIELDS)
    if same or found.source is not None or read_config(found.folder).get("stage") != TEXT:
        return found
    if found.step is not None:
        check_step(found.folder, found.step, together)
    step = newest_step(found.folder, False, together) if found.step is None else found.step
    llm = TextWeights(stored_source(found.folder, step), cfg)
    source = Completed(llm, llm.cfg.parts, seed)
    return replace(found, cfg=source.cfg, source=source, step=step)


class TextWeights:
    """The weights of `source` that meet text, as those of a model with the patch embedding of `cfg`, which it lacks."""

    def __init__(self, source: ParamSource, cfg: ModelConfig):
        self.source = source
        self.cfg = replace(source.cfg, **{name: getattr(cfg, name) for name in FIELDS})
        text = of_groups(source.cfg, "text")
        self.shapes: Params = {name: shape for name, shape in source.shapes.items() if name in text}

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Parameter `name`: its layers in order when it is stacked, else the one array."""
        return self.source.pieces(name)
