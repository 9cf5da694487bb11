"""The LLM of a stage of text alone, whose patch embedding has never learned, for a model that sees otherwise."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from eve_jax.checkpoint.named_step import check_step
from eve_jax.checkpoint.stage_folder import newest_step, read_config
from eve_jax.checkpoint.vision_copies import Completed, ParamSource
from eve_jax.hf.config import PATCH_FIELDS
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params, of_groups
from eve_jax.model.v1_config import OF_PATCHES
from eve_jax.process.peers import Peers
from eve_jax.weights.open import Checkpoint, stored_source

# Of Gemma's layers, which are another LLM with another value.
OF_LLM = ("wide_head_dim", "wide_kv_heads", "key_values", "value_norm", "layer_scale", "logit_cap")
FIELDS = tuple(name for name in dict.fromkeys((*PATCH_FIELDS, *OF_PATCHES)) if name not in OF_LLM)
TEXT = "llm"  # the stage of text alone


def text_alone(found: Checkpoint, cfg: ModelConfig, seed: int, together: Peers | None = None) -> Checkpoint:
    """Return a stage of text alone with the patch embedding of `cfg`, new from `seed`, in place of its own one.

    Layers that only `cfg` has before those of the LLM, and parts of queries and keys for places, begin as next to a
    plain LLM. Any other checkpoint, and one that sees as `cfg` does, is returned as it is. together: as for
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
    """The weights of `source` that meet text, as all that there is of a model that sees as `cfg` does."""

    def __init__(self, source: ParamSource, cfg: ModelConfig):
        self.source = source
        layers = source.cfg.num_layers - source.cfg.extra_layers + cfg.extra_layers
        self.cfg = replace(source.cfg, num_layers=layers, **{name: getattr(cfg, name) for name in FIELDS})
        text = of_groups(source.cfg, "text")
        self.shapes: Params = {name: shape for name, shape in source.shapes.items() if name in text}

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Parameter `name`: its layers in order when it is stacked, else the one array."""
        return self.source.pieces(name)
