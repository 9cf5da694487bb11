"""A toy variant, a third set of feed-forward weights for the special tokens of images, is one entry of PARTS."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from eve_jax.checkpoint.stage_folder import steps_in
from eve_jax.checkpoint.stored import load_stored, stored_shapes
from eve_jax.checkpoint.vision_copies import add_vision_copies, refuse_loss
from eve_jax.config.stages import group_factors, partition
from eve_jax.errors import UserError
from eve_jax.model.config import PARTS, ModelConfig, Part, parse_parts
from eve_jax.model.eve import abstract_params, bind, declared, init_params
from eve_jax.train.flops import Tokens, step_flops
from eve_jax.train.trainer import train
from eve_jax.weights.import_export import export_checkpoint
from tests import reference as ref

TRIPLE = "mlp_by_kind"
NAMES = {f"layers.mlp.special.{name}" for name in ("gate", "up", "down")}


@pytest.fixture(autouse=True)
def variant(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one place that adds the variant: its group, its copies and its FLOPs follow."""
    monkeypatch.setitem(PARTS, TRIPLE, Part("mlp", specials="special"))


def test_it_trains_by_its_own_group(stage: ConfigDict, tmp_path: Path) -> None:
    stage.model.parts = f"{TRIPLE},self_attn,layernorm"
    stage.optim.groups = ConfigDict({"special": 2.0, "vision": 0.0, "text": 0.0, "patch_embed": 0.0})
    folder = train(stage, tmp_path, quiet=True)
    assert steps_in(folder) == [2]
    shapes = stored_shapes(folder, 2)
    assert shapes.keys() >= NAMES
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = {n: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place) for n, s in shapes.items() if "mlp" in n}
    began = init_params(ModelConfig.from_dict(stage.model.to_dict()), stage.seed)
    for name, value in load_stored(folder, 2, wanted).items():
        assert (name in NAMES) != np.array_equal(value, began[name].astype(value.dtype)), name
    with pytest.raises(UserError, match=f"model.parts=.*{TRIPLE} has no names in a Hugging Face folder"):
        export_checkpoint(folder, tmp_path / "hf", quiet=True)


def test_only_special_tokens_meet_it() -> None:
    """As copies it changes nothing; what is added to it changes special tokens and, through attention, later ones."""
    plain = ref.config(("layernorm", "self_attn", "mlp"))
    batch = {name: jnp.asarray(value) for name, value in ref.distributed_run().items()}
    cfg = replace(plain, parts=parse_parts(f"{TRIPLE},self_attn,layernorm"))
    params = add_vision_copies(cfg, ref.params(plain))
    params |= {name: params[name.replace("special", "vision")] for name in NAMES}
    assert params.keys() == abstract_params(cfg).keys()
    expected, hidden = (bind(c, p).hidden(batch)[0] for c, p in ((plain, ref.params(plain)), (cfg, params)))
    np.testing.assert_array_equal(hidden, expected)
    changed = params | {name: params[name] * 1.5 for name in NAMES}
    split, masked = (np.asarray(bind(replace(cfg, routing=r), changed).hidden(batch)[0]) for r in ("split", "masked"))
    real = np.asarray(batch["segment"]) > 0
    np.testing.assert_allclose(split[real], masked[real], rtol=2e-4, atol=2e-4)
    assert np.abs(split - np.asarray(hidden))[real].max() > 1e-3


def test_what_follows_from_the_entry() -> None:
    cfg = ref.config((TRIPLE,))
    weights = declared(cfg)
    kinds = {kind: weights[f"layers.mlp.{kind}.up"] for kind in ("text", "vision", "special")}
    assert {kind: w.works_on for kind, w in kinds.items()} == {
        "text": "text",
        "vision": "patches",
        "special": "specials",
    }
    assert [kinds[kind].group for kind in kinds] == ["text", "vision", "special"]
    assert kinds["special"].copy_of == "layers.mlp.text.up"
    everything = frozenset({"patch_embed", "vision", "special", "text"})
    tokens = Tokens(90, 10, 50, 20, 0)
    plain = step_flops(ref.config(("mlp",)), everything, tokens)
    assert step_flops(cfg, everything, tokens) == plain  # each token meets as many weights
    masked = step_flops(replace(cfg, routing="masked"), everything, tokens)
    mlp = sum(np.prod(abstract_params(cfg)[f"layers.mlp.special.{n}"].shape) for n in ("gate", "up", "down"))
    twice = step_flops(ref.config(("mlp",), routing="masked"), everything, tokens)
    assert masked.again - twice.again > 2 * mlp * 3 * 140  # the third set runs for all others' tokens as well


def test_group_of_the_config() -> None:
    further = group_factors("2.1", {"vision": 0.0})
    assert further["special"] == 1.0  # trains where vision weights do, unless it is said otherwise
    factors = group_factors("2.1", {"special": 0.5, "patch_embed": 0.0, "align": 0.0, "vision": 0.0})
    trainable, _ = partition(ref.config((TRIPLE,)), abstract_params(ref.config((TRIPLE,))), factors)
    assert trainable.keys() == NAMES
    with pytest.raises(UserError, match=r"no weights of the groups that train \(.*special"):
        partition(ref.config(("mlp",)), {}, factors)


def test_what_does_not_fit() -> None:
    with pytest.raises(UserError, match=f"mlp and {TRIPLE} both divide mlp"):
        ref.config(("mlp", TRIPLE))
    with pytest.raises(ValueError, match="names other than text"):
        Part("mlp", patches="text")
    refuse_loss(ref.config(("mlp",)), ref.config((TRIPLE,)))  # its vision weights have a place
    with pytest.raises(UserError, match=TRIPLE):
        refuse_loss(ref.config((TRIPLE,)), ref.config(("mlp",)))
