"""Weight changes: a value a layer, vision weights against the text weights they come from, deltas added in."""

from collections.abc import Iterator
from dataclasses import replace

import jax
import numpy as np
import pytest

from eve_jax.checkpoint.vision_copies import add_vision_copies
from eve_jax.errors import UserError
from eve_jax.model.config import VARIANTS, ModelConfig
from eve_jax.model.eve import Params, abstract_params, declared
from eve_jax.weights.changes import weight_changes

CFG = ModelConfig(32, 8, 12, 3, 2, 1, 4, parts=(), patch_hidden=4)


class Memory:
    """A source of parameters that are all there."""

    def __init__(self, cfg: ModelConfig, params: Params):
        self.cfg, self.params = cfg, params
        self.shapes: Params = {name: jax.ShapeDtypeStruct(v.shape, v.dtype) for name, v in params.items()}

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        yield from self.params[name] if declared(self.cfg)[name].stacked else [self.params[name]]


def llm() -> Params:
    rng = np.random.default_rng(0)
    return {n: rng.normal(size=s.shape).astype(np.float32) for n, s in abstract_params(CFG).items()}


def trained(variant: str) -> tuple[ModelConfig, Params]:
    """A model of the variant as it starts from the LLM, in arrays that may be changed."""
    cfg = replace(CFG, parts=VARIANTS[variant])
    return cfg, {n: np.array(v) for n, v in add_vision_copies(cfg, llm()).items()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_has_changed_at_the_start(variant: str) -> None:
    changes = weight_changes(Memory(CFG, llm()), Memory(*trained(variant)))
    assert set(changes) >= {"layers.attn.q.text.kernel", "layers.mlp.text.up", "layers.input_norm.text.scale"}
    assert ("layers.attn.q.vision.bias" in changes) == (variant == "dac")
    assert all(values == [0.0] * 3 for values in changes.values())


def test_each_weight_is_compared_with_what_it_was() -> None:
    cfg, params = trained("dac")
    params["layers.mlp.vision.up"][1] -= 0.5
    params["layers.attn.q.text.kernel"][2, :4] += 0.25  # half of the rows
    changes = weight_changes(Memory(CFG, llm()), Memory(cfg, params))
    assert changes.pop("layers.mlp.vision.up") == pytest.approx([0, 0.5, 0])
    assert changes.pop("layers.attn.q.text.kernel") == pytest.approx([0, 0, 0.125])
    assert not any(map(any, changes.values()))


def test_deltas_count_by_what_they_add() -> None:
    cfg, params = trained("rep")
    params["layers.mlp.text.delta_down.weight"][0] = 0.5
    params["layers.mlp.text.delta_down.gate"][0] = -0.05
    changes = weight_changes(Memory(CFG, llm()), Memory(cfg, params))
    assert changes.pop("layers.mlp.text.down") == pytest.approx([0.5 * np.tanh(0.5), 0, 0])
    assert not any("delta" in name for name in changes)
    assert not any(map(any, changes.values()))


def test_models_of_other_sizes_are_refused() -> None:
    larger = replace(CFG, intermediate_size=16)
    params = {n: np.zeros(s.shape, s.dtype) for n, s in abstract_params(larger).items()}
    with pytest.raises(UserError, match=r"layers\.mlp\.text\.\w+ has shape"):
        weight_changes(Memory(CFG, llm()), Memory(larger, params))
