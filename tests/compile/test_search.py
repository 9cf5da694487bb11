"""The search for the largest micro-batch, over a made-up compiler."""

from types import SimpleNamespace
from typing import NamedTuple

import jax
import pytest

from configs import stage3
from eve_jax.batch import RowShape
from eve_jax.compile import search
from eve_jax.compile.abstract import Program, Work
from eve_jax.compile.build import Built, Memory
from eve_jax.compile.count import Counts
from eve_jax.compile.topology import CHIPS, GIB, Topology

OPTIONS = {"mesh": "fsdp:-1", "shape": "mixed", "rows": 0, "row_tokens": 0}


class FakeStep(NamedTuple):
    work: Work


def built_of(gib: float) -> list[Built]:
    return [Built(Program("step", None, (), 1, 0), Memory(gib * GIB, 0, 0, 0), 0, Counts(), [], 0, 0)]


@pytest.mark.parametrize(("state", "a_row", "largest"), [(3.0, 1.0, 10), (3.0, 0.01, 64), (10.0, 2.5, 1), (13.0, 2, 0)])
def test_largest_batch_leaves_a_tenth(monkeypatch, state, a_row, largest):
    """A v5e chip has 15.75 GiB, 14.175 to be used; memory grows with the rows, a little faster than linearly."""
    seen = []

    def compile_step(config, topology, options):
        rows = options["rows"]
        seen.append(rows)
        return FakeStep(Work("mixed", RowShape(0, 0, 128), rows, 1)), built_of(state + a_row * rows**1.01)

    monkeypatch.setattr(search, "compile_step", compile_step)
    monkeypatch.setattr(search, "summarise", lambda topology, step, built: {"rows": step.work.rows})
    topology = Topology("v5e:1x1", jax.devices()[:1], CHIPS["v5e"])
    best, lines = search.largest_batch(stage3.get_config(), topology, OPTIONS)
    assert (best["rows"] if best else 0) == largest
    assert len(lines) == len(seen) == len(set(seen)) <= 6


@pytest.mark.parametrize(("gib_a_token", "given", "found", "tried"), [
    (1 / 1024, 0, ("v5e:4x4", 1, 8192), 2),  # 5, then 8 GiB
    (2 / 1024, 0, ("v5e:4x4", 1, 5120), 2),  # 10, then 16 GiB: only the shorter row fits
    (4 / 1024, 0, None, 2),  # 20 GiB on both slices
    (2 / 1024, 8192, None, 2),
    (1 / 4096, 0, ("v5e:4x4", 4, 8192), 2),  # 1.25, then 8 GiB: as many rows as are chosen without a search
])  # fmt: skip
def test_smallest_slice_tries_the_least_work_first(monkeypatch, gib_a_token, given, found, tried):
    seen = []
    many = 4 if gib_a_token < 1 / 2048 else 1

    def plan(config, topology, axes, options):
        return Work("mixed", RowShape(0, 0, options["row_tokens"] or 8192), options["rows"] or many, 1)

    def compile_step(config, topology, options):
        work = plan(config, topology, {}, options)
        seen.append((topology.name, *work))
        return FakeStep(work), built_of(gib_a_token * work.rows * work.shape.length)

    def summarise(topology, step, built):
        return {"slice": topology.name, "rows": step.work.rows, "length": step.work.shape.length}

    monkeypatch.setattr(search, "plan", plan)
    monkeypatch.setattr(search, "compile_step", compile_step)
    monkeypatch.setattr(search, "abstract_step", lambda config, mesh, work: FakeStep(work))
    monkeypatch.setattr(search, "least_bytes", lambda step: 0.0)
    monkeypatch.setattr(search, "open_topology", lambda name: Topology(name, jax.devices()[:1], CHIPS["v5e"]))
    monkeypatch.setattr(search, "summarise", summarise)
    options = {**OPTIONS, "row_tokens": given}
    got, lines = search.smallest_slice(stage3.get_config(), ["v5e:4x4", "v5e:4x8"], options)
    assert (tuple(got.values()) if got else None) == found
    assert len(seen) == len(set(seen)) == tried
    hints = [line for line in lines if "--topology=v5e:4x4 --search" in line]
    assert len(hints) == (got is not None and got["length"] == 5120)
    assert len(lines) == len(seen) + len(hints)


@pytest.mark.parametrize(("count", "mesh", "sharded"), [(64, "", True), (32, "", False), (64, "fsdp:64", False)])
def test_what_to_do_when_nothing_holds(monkeypatch, count, mesh, sharded):
    """Where no mesh is given weights are sharded over 32 chips of a v5e at most, which can be changed."""
    chips = [SimpleNamespace(platform="tpu", device_kind="TPU v5e")] * count
    monkeypatch.setattr(search, "open_topology", lambda name: Topology(name, chips, CHIPS["v5e"]))
    said = search.remedy(["v5e:4x4", "v5e:8x8"], {**OPTIONS, "mesh": mesh})
    assert ("--mesh=fsdp:-1 (weights over all chips of a slice, not over 32)" in said) == sharded
