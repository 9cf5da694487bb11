"""EVEv1 without the attention of its patch embedding, with another interval of aligned layers, with the next patch."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eve_jax.batch import CLASS
from eve_jax.errors import FieldError, UserError
from eve_jax.hf.export_config import check_exported
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import abstract_params, bind, init_params
from eve_jax.model.loss import training_sums
from eve_jax.model.v1.align import share_of_next
from eve_jax.model.v1.patch_embed import sub_patches
from tests import reference_v1 as v1


def weights(cfg: ModelConfig, golden: ModelConfig) -> dict:
    """Those of the golden set, and new ones where `cfg` has others."""
    shapes = abstract_params(cfg)
    given = {k: v for k, v in v1.params(golden, "D1").items() if k in shapes and shapes[k].shape == v.shape}
    return {**init_params(cfg, 0), **given}


def embedded(cfg: ModelConfig) -> tuple[dict, dict, np.ndarray]:
    """The weights, a packed batch, and what the patch embedding makes of it."""
    params, batch = weights(cfg, v1.config("D1")), v1.distributed_run("D1")
    return params, batch, np.asarray(jax.jit(lambda p, b: bind(cfg, p).patch_embed(b))(params, batch))


def projected(params: dict, x: np.ndarray) -> np.ndarray:
    kernels = [(params[f"patch_embed.project.{n}.kernel"], params[f"patch_embed.project.{n}.bias"]) for n in (0, 1)]
    (first, bias), (second, shift) = kernels
    return np.asarray(jax.nn.gelu(x @ first + bias, approximate=False) @ second + shift)


def test_a_window_is_the_mean_of_its_patches_without_ca1() -> None:
    cfg = replace(v1.config("D1"), window_pool="mean")
    assert not [name for name in abstract_params(cfg) if ".window." in name]
    params, batch, found = embedded(cfg)
    mean = (sub_patches(batch["patches"], jnp.float32) @ params["patch_embed.conv"]).mean(axis=2)
    count = batch["patches"].shape[1]
    np.testing.assert_allclose(found[:, :count], projected(params, mean), atol=1e-5)
    assert not np.allclose(found[:, :count], embedded(v1.config("D1"))[2][:, :count], atol=1e-3)


def test_an_image_begins_with_a_learned_token_without_ca2() -> None:
    cfg = replace(v1.config("D1"), image_token="learned")
    assert not [name for name in abstract_params(cfg) if ".image." in name]
    params, batch, found = embedded(cfg)
    count, is_class = batch["patches"].shape[1], np.asarray(batch["special_ids"]) == CLASS
    token = projected(params, np.asarray(params["patch_embed.class_embed"]))
    assert is_class.sum() == 2
    np.testing.assert_allclose(found[:, count:][is_class], np.broadcast_to(token, (2, token.size)), atol=1e-5)
    np.testing.assert_allclose(found[:, :count], embedded(v1.config("D1"))[2][:, :count], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"align_every": 1}, {"align_target": "next"}])
def test_the_aligning_loss_has_as_much_weight(change: dict) -> None:
    """Each image counts as one, whatever is looked at and predicted; the loss is another one."""
    golden, losses = v1.config("D1", aligned=True), {}
    for cfg in (golden, replace(golden, **change)):
        params, batch = weights(cfg, golden), v1.distributed_run("D1")
        sums = jax.jit(lambda p, b, cfg=cfg: training_sums(bind(cfg, p), b))(params, batch)
        np.testing.assert_allclose(sums.images, 2, rtol=1e-6)
        losses[cfg] = float(sums.align / sums.images)
    assert min(losses.values()) > 0 and len(set(losses.values())) == 2
    assert cfg.align_levels == cfg.num_layers // cfg.align_every + 1


def test_the_last_patch_of_an_image_has_no_next_one() -> None:
    cfg = v1.config("D1", aligned=True)
    assert cfg.teacher is not None
    each = cfg.teacher.cells**2
    index = jnp.array([[0, 1, 2, each, each + 3, 0, 0], [3, 2 * each, 2 * each + 1, 2 * each + 2, 0, 0, 0]])
    share = jnp.array([[1 / 3, 1 / 3, 1 / 3, 0.5, 0.5, 0, 0], [1, 1 / 3, 1 / 3, 1 / 3, 0, 0, 0]])
    found = share_of_next(cfg, index, share)
    np.testing.assert_allclose(found, [[0.5, 0.5, 0, 1, 0, 0, 0], [0, 0.5, 0.5, 0, 0, 0, 0]], rtol=1e-5)
    alone = jnp.array([[0, 1]]), jnp.array([[0.5, 0.5]])
    np.testing.assert_allclose(share_of_next(cfg, *alone), [[1, 0]], rtol=1e-5, err_msg="the row's end is no beginning")


def test_what_switches_are_for() -> None:
    cfg = v1.config("D1", aligned=True)
    with pytest.raises(UserError, match=r"model\.window_pool=mean: EVEv1's layout"):
        check_exported(replace(v1.config("D1"), window_pool="mean"))
    with pytest.raises(FieldError, match="image_token"):
        replace(cfg, patch_embed="v2", image_token="learned")
    with pytest.raises(FieldError, match="num_layers"):
        replace(cfg, align_every=cfg.num_layers + 1)
