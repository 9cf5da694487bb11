"""Stages of a model with a vision encoder: what trains in each, packed rows, and an exact resume."""

import shutil

import numpy as np
import pytest

from configs import ve
from eve_jax.checkpoint.stage_folder import CHECKPOINTS, newest_step
from eve_jax.errors import UserError
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params, declared
from eve_jax.train.metrics import read_metrics
from eve_jax.train.trainer import train
from eve_jax.weights.open import load_params
from tests.train.encoder import encoder_stage


def moved(cfg: ModelConfig, before: Params, after: Params) -> set[str]:
    """Groups of the weights that differ."""
    pairs = {n: (np.asarray(before[n]), np.asarray(after[n])) for n in after}
    return {weight.group for n, weight in declared(cfg).items() if not np.array_equal(*pairs[n])}


@pytest.mark.slow
def test_stages(tmp_path):
    """The projector, then the encoder with it, then everything; the last layer of the encoder never learns."""
    params: dict[str, Params] = {}
    init = ""
    for name, kind in (("ve1", "1"), ("ve2", "2.1"), ("ve3", "3")):
        init = str(train(encoder_stage(tmp_path, name, kind, init), tmp_path / "runs", quiet=True))
        cfg, params[name] = load_params(tmp_path / "runs" / name)
        losses = [line["loss"] for line in read_metrics(tmp_path / "runs" / name)]
        assert np.isfinite(losses).all()
    assert moved(cfg, params["ve1"], params["ve2"]) == {"patch_embed", "encoder"}
    assert moved(cfg, params["ve2"], params["ve3"]) == {"patch_embed", "encoder", "text"}
    kernels = [np.asarray(params[name]["patch_embed.tower.layers.q.kernel"]) for name in ("ve1", "ve3")]
    same = [np.array_equal(*(kernel[layer] for kernel in kernels)) for layer in range(3)]
    assert same == [False, False, True]


@pytest.mark.slow
def test_resumes_with_the_same_bits(tmp_path):
    c = encoder_stage(tmp_path, "ve2", "2.1", steps=4)
    c.train.save_every, c.train.keep = 2, 4
    folder = train(c, tmp_path / "runs", quiet=True)
    cfg, whole = load_params(folder)
    shutil.rmtree(folder / CHECKPOINTS / "4")
    train(c, tmp_path / "runs", quiet=True)
    assert newest_step(folder) == 4
    assert moved(cfg, whole, load_params(folder)[1]) == set()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"data.image_mode": "anyratio_ld"}, "image_mode=anyratio_ld"),
        ({"data.max_size": 56}, r"56 pixels, but the encoder sees 28"),
        ({"model.patch_embed": "v2"}, "patch_embed=v2"),
        ({"data.long": "shrink_image"}, "shrink_image does not go with"),
        ({"encoder": "nowhere"}, "nowhere"),
        ({"model.sub_patch": 8, "data.patch": 16}, "sub_patch=8"),
    ],
)
def test_what_does_not_fit_is_noticed_at_once(tmp_path, change, says):
    c = encoder_stage(tmp_path, "ve1", "1")
    c.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=says):
        train(c, tmp_path / "runs", quiet=True)
    assert not (tmp_path / "runs" / "ve1" / "plan").exists()


def test_the_config():
    for stage, kind in (("1", "1"), ("2", "2.1"), ("3", "3")):
        c = ve.get_config(f"stage={stage}")
        assert (c.name, c.stage, c.model.patch_embed, c.data.image_mode) == (f"ve{stage}", kind, "clip", "pad")
        assert (c.data.patch, c.data.max_size, c.model.sub_patch) == (14, 336, 7)
