"""Meshes, parameter rules, and which rows a process holds."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from eve_jax.errors import UserError
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import abstract_params, logical_axes
from eve_jax.model.llms import LLMS
from eve_jax.sharding import (
    PARAMETER_RULES,
    device,
    local_rows,
    make_mesh,
    mesh_sizes,
    parameter_sharding,
    place_batch,
    use,
)
from tests.shardings import shardings


def test_every_parameter_has_axes_with_rules():
    cfg = ModelConfig.from_dict(LLMS["tiny"])
    axes = logical_axes(cfg)
    mesh = make_mesh("fsdp:-1")
    for name, value in abstract_params(cfg).items():
        assert len(axes[name]) == len(value.shape)
        assert {a for a in axes[name] if a} <= PARAMETER_RULES.keys()
        parameter_sharding(mesh, axes[name], value.shape)


def test_two_dimensions_on_one_mesh_axis_are_refused():
    with pytest.raises(ValueError, match="twice"):
        parameter_sharding(make_mesh("fsdp:-1"), ("mlp", "heads"), (8, 8))


@pytest.mark.parametrize(
    "spec", ["fsdp:3", "rows:1", "data:-1,fsdp:-1", "fsdp:0", "fsdp:--1", "fsdp:²", "fsdp", "data:1,data:1"]
)
def test_impossible_meshes(spec):
    with pytest.raises(UserError, match=r"config\.mesh"):
        make_mesh(spec)


def test_shardings_of_all_7b_parameters():
    golden = json.loads((Path(__file__).parent / "golden" / "shardings_7b.json").read_text())
    found = shardings()
    for title, places in golden.items():
        assert found[title] == places, title
    assert found.keys() == golden.keys()


@dataclass(frozen=True)
class Chip:
    """Stands in for a device of a TPU slice."""

    id: int
    device_kind: str
    slice_index: int
    coords: tuple[int, int, int]
    process_index: int = 0

    core_on_chip: int = 0
    platform: str = "tpu"


def chips(kind: str, side: int, slices: int = 1) -> list[Any]:
    """The devices of `slices` square TPU slices."""
    places = [(s, y, x) for s in range(slices) for y in range(side) for x in range(side)]
    return [Chip(number, kind, s, (x, y, 0)) for number, (s, y, x) in enumerate(places)]


@pytest.mark.parametrize(("process", "number"), [(0, 0), (1, 2), (5, 0)])
def test_what_a_process_compiles_for_is_a_device_of_its_own(
    process: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program for one device of another process is refused by some backends. Of a topology, any device will do."""
    chips = [Chip(i, "TPU v5 lite", 0, (i, 0, 0), i // 2) for i in range(4)]
    mesh: Any = SimpleNamespace(devices=np.array(chips).reshape(2, 2))
    monkeypatch.setattr(jax, "process_index", lambda: process)
    with use(mesh):
        assert device() == chips[number]


@pytest.mark.parametrize(
    ("kind", "side", "slices", "sizes"),
    [
        ("TPU v5 lite", 16, 1, (8, 32, 1)),
        ("TPU v5 lite", 4, 1, (1, 16, 1)),
        ("TPU v5e", 16, 1, (8, 32, 1)),
        ("TPU v6 lite", 16, 2, (16, 32, 1)),
        ("TPU v5 lite", 4, 2, (2, 16, 1)),  # never over several slices
        ("TPU v4", 8, 1, (4, 16, 1)),
        ("TPU v5p", 8, 1, (4, 16, 1)),
        ("TPU v5 lite", 6, 1, (2, 18, 1)),
        ("NVIDIA H100 80GB HBM3", 4, 1, (2, 8, 1)),
    ],
)
def test_default_mesh(kind, side, slices, sizes):
    devices = chips(kind, side, slices)
    assert mesh_sizes("", devices) == sizes
    assert np.prod(sizes) == len(devices)


def test_data_runs_across_slices():
    devices = chips("TPU v5 lite", 4, 2)
    mesh = make_mesh("data:4,fsdp:8", devices)
    assert mesh.axis_names == ("data", "fsdp", "tensor")
    assert [{d.slice_index for d in part.flat} for part in mesh.devices] == [{0}, {0}, {1}, {1}]
    with pytest.raises(UserError, match="multiple of the 2 slices"):
        make_mesh("fsdp:32", devices)


def test_rows_of_a_batch():
    mesh = make_mesh("fsdp:-1", jax.devices()[:1])
    assert local_rows(mesh, 3) == [0, 1, 2]
    batch = {"a": np.arange(12).reshape(3, 4)}
    np.testing.assert_array_equal(place_batch(mesh, batch, 3, [0, 1, 2])["a"], batch["a"])


def test_rows_that_the_mesh_does_not_divide_are_refused():
    mesh: Any = SimpleNamespace(shape={"data": 2, "fsdp": 4, "tensor": 1})
    with pytest.raises(UserError, match=r"config\.data\.rows=6 is not a multiple of 8, the mesh's data:2, fsdp:4"):
        local_rows(mesh, 6)
