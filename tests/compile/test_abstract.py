"""Row shapes, rows and topologies for a config without data."""

import importlib.util
import re
from typing import Any

import jax
import pytest
from jax.sharding import AbstractMesh

from configs import neo_pt, stage1, stage2_1, stage3, v1_prealign
from eve_jax.compile import topology
from eve_jax.compile.abstract import abstract_batch, abstract_step, menu, nbytes, plan_work
from eve_jax.compile.search import least_bytes, slices
from eve_jax.compile.topology import CHIPS, open_topology
from eve_jax.config.stage import Config
from eve_jax.errors import UserError
from eve_jax.model.eve import declared, quantizable
from eve_jax.model.weight import DECAYED
from eve_jax.sharding import make_mesh
from tests import reference_v1 as v1


@pytest.mark.parametrize("module", [stage1, stage2_1, stage3])
def test_menu_of_the_stages(module):
    config = module.get_config()
    shapes = menu(config.data)
    assert all(s.length == config.data.row_tokens for s in shapes.values())
    assert ("text" in shapes) == (config.data.template != "plain")
    assert shapes["vision"].vision == pytest.approx(0.9 * config.data.row_tokens, abs=1)
    largest = (config.data.max_size or {"anyratio_ld": 800, "anyratio_hd": 1600}[config.data.image_mode]) // 32
    assert shapes["vision"].specials * largest >= shapes["vision"].patches


@pytest.mark.parametrize(("row_tokens", "words"), [(5000, "multiple of 128"), (4096, "max_tokens=5000")])
def test_rows_that_cannot_be(row_tokens, words):
    with pytest.raises(UserError, match=words):
        menu(stage3.get_config().data, row_tokens)


@pytest.mark.parametrize(
    ("generation", "data", "fsdp", "rows", "micro_batches", "row_tokens"),
    [
        (
            "v5e",
            8,
            32,
            256,
            1,
            5120,
        ),  # a row of 8192 a chip would be two steps of the config's, 5000 the longest sample
        ("v5p", 4, 16, 64, 2, 8192),  # the config's own rows
        ("v5e", 1, 32, 32, 4, 8192),  # more rows would not fit
    ],
)
def test_a_step_holds_what_the_config_says(generation, data, fsdp, rows, micro_batches, row_tokens):
    axes = {"data": data, "fsdp": fsdp, "tensor": 1}
    config = Config.of(stage3.get_config())
    work = plan_work(config, axes, CHIPS[generation], "mixed")
    assert (work.rows, work.micro_batches, work.shape.length) == (rows, micro_batches, row_tokens)
    assert work.tokens >= config.data.rows * config.data.micro_batches * config.data.row_tokens
    with pytest.raises(UserError, match=f"--rows={rows - 1} is no multiple of the {data * fsdp} shards"):
        plan_work(config, axes, CHIPS[generation], "mixed", rows=rows - 1)


def test_frozen_weights_have_no_optimizer_state():
    config = Config.of(stage1.get_config("llm=tiny"))
    step = abstract_step(config, mesh := make_mesh("fsdp:-1"), plan_work(config, mesh.shape, None, "vision"))
    assert all(name.startswith("patch_embed.") for name in step.state.trainable)
    assert {str(v.dtype) for v in step.state.trainable.values()} == {"float32"}
    assert {str(v.dtype) for v in step.frozen.values()} == {"bfloat16"}
    moments = nbytes([step.state.optimizer]) - 2 * nbytes([step.state.trainable])
    assert 0 <= moments < 64  # two moments and step counts
    assert [p.name for p in step.programs] == ["gradients", "update"]
    assert step.programs[0].resident > nbytes([step.state.optimizer])


@pytest.mark.parametrize(
    ("fields", "matrix", "table", "whole"),
    [
        ({"moments": "bfloat16"}, 2 * 2, 2 * 2, 2 * 4),
        ({"moments": "int8"}, 2 * (1 + 4 / 32), 2 * (1 + 4 / 32), 2 * 4),
        ({"rule": "muon"}, 4, 2 * 4, 2 * 4),
        ({"rule": "muon", "moments": "int8", "ema": 0.9}, 4 + 1 + 4 / 32, 4 + 2 * (1 + 4 / 32), 4 + 2 * 4),
    ],
    ids=str,
)
def test_what_the_optimizer_keeps_is_counted(fields, matrix, table, whole):
    """Bytes that it has for a number of a matrix of the layers, of another matrix or table, and of all others."""
    config = stage3.get_config("llm=tiny")
    config.optim.update(fields | {"loss_weights": "sqrt"})
    config.model.hidden_size, config.model.intermediate_size, config.model.patch_hidden = 512, 512, 512
    config.model.head_dim, config.model.num_heads, config.model.num_kv_heads = 128, 4, 4
    config.data.micro_batches = 2
    step = abstract_step(c := Config.of(config), mesh := make_mesh("fsdp:-1"), plan_work(c, mesh.shape, None, "text"))
    roles = {name: weight.role for name, weight in declared(step.cfg).items()}
    each = {n: table if roles[n] in DECAYED else whole for n in roles} | dict.fromkeys(quantizable(step.cfg), matrix)
    wanted = sum(each[name] * value.size for name, value in step.state.trainable.items())
    assert nbytes([step.state.optimizer]) == pytest.approx(wanted, rel=0.01)
    assert step.sums is not None and step.sums.weight is not None
    assert step.batch["target_weight"].shape == step.batch["loss_weight"].shape


def test_least_memory_of_a_slice():
    """Stage 3 at 7B is 14.157 G parameters of 16 bytes with gradient sums, and 28 layer inputs; what is replicated (the
    first convolutions, biases, norms) makes it a little more."""
    config = Config.of(stage3.get_config())
    axes = {"data": 1, "fsdp": 16, "tensor": 1}
    work = plan_work(config, axes, CHIPS["v5e"], "mixed")
    mesh: Any = AbstractMesh(tuple(axes.values()), tuple(axes))
    inputs = 28 * work.rows / 16 * work.shape.length * 3584 * 2
    least = least_bytes(abstract_step(config, mesh, work))
    assert least == pytest.approx(14.157e9 * 16 / 16 + inputs, rel=2e-3)
    assert least > 0.9 * CHIPS["v5e"].hbm


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("v5e:4x4x4", "v5e:{1x1"),
        ("v9:4", "v4:{2x2x1"),
        ("v5p", "v5p:{2x2x1"),
        ("cpu:0", "v4:{"),
        ("cpu:x", "N of at least 1"),
    ],
)
def test_unknown_topologies_list_the_known(name, first):
    with pytest.raises(UserError, match=re.escape(first)):
        open_topology(name)
    with pytest.raises(UserError, match=re.escape(first)):
        slices(f"cpu:1,{name}" if ":" in name else f"cpu:1,{name}:")


def test_without_the_tpu_compiler(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install .*\[tpu\]"):
        open_topology("v5e:4x4")


def test_slices_of_a_generation_in_growing_order():
    names = slices("v5e,v5p:2x2x1")
    assert names[0] == "v5e:1x1"
    assert names[-2:] == ["v5e:16x16", "v5p:2x2x1"]
    assert topology.SLICES["v4"] == topology.SLICES["v5p"]


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_stage_that_aligns(micro_batches):
    """The arrays are those of the rows, and the programs take them."""
    config = v1_prealign.get_config("llm=tiny-llama")
    config.data.micro_batches = micro_batches
    config = Config.of(config)
    mesh = make_mesh("fsdp:-1", jax.devices()[:1])
    work = plan_work(config, mesh.shape, None, "vision", rows=2)._replace(micro_batches=micro_batches)
    step = abstract_step(config, mesh, work)
    assert step.batch.keys() == v1.row("D1", [0]).keys()
    assert {name.split(".")[0] for name in step.state.trainable} == {"patch_embed", "align"}
    for program in step.programs:
        jax.eval_shape(program.function, *program.arguments)
    assert set(menu(config.data)) == {"mixed", "vision"}


def test_rows_of_images_without_special_tokens() -> None:
    """NEO's rows have none, and the arrays that its images need."""
    config = Config.of(neo_pt.get_config())
    shapes = menu(config.data, 0, config.sizes.layout)
    assert all(shape.specials == 0 and shape.length == 16_384 for shape in shapes.values())
    batch = abstract_batch(shapes["mixed"], 2, make_mesh("fsdp:-1", jax.devices()[:1]), layout=config.sizes.layout)
    assert {"index", "end", "place"} <= batch.keys()
    assert batch["place"].shape == (2, shapes["mixed"].patches, 2)
