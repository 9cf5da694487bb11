"""The search for the largest micro-batch, over a made-up compiler."""

from typing import NamedTuple

import jax
import pytest

from configs import stage3
from eve_jax.compile import search
from eve_jax.compile.abstract import Program, Work
from eve_jax.compile.build import Built, Memory
from eve_jax.compile.count import Counts
from eve_jax.compile.topology import CHIPS, GIB, Topology
from eve_jax.data.shapes import RowShape
from eve_jax.sharding import make_mesh

OPTIONS = {"mesh": "fsdp:-1", "shape": "mixed", "rows": 0, "row_tokens": 0}


class FakeStep(NamedTuple):
    work: Work


@pytest.mark.parametrize(("state", "a_row", "largest"), [(3.0, 1.0, 10), (3.0, 0.01, 64), (10.0, 2.5, 1), (13.0, 2, 0)])
def test_largest_batch_leaves_a_tenth(monkeypatch, state, a_row, largest):
    """A v5e chip has 15.75 GiB, 14.175 to be used; memory grows with the rows, a little faster than linearly."""
    seen = []

    def compile_step(config, topology, options):
        rows = options["rows"]
        seen.append(rows)
        memory = Memory(state * GIB, 0, a_row * rows**1.01 * GIB, 0)
        built = Built(Program("step", None, (), 1, 0), memory, 0, Counts(), [], 0)
        return FakeStep(Work("mixed", RowShape(0, 0, 128), rows, 1)), [built]

    monkeypatch.setattr(search, "compile_step", compile_step)
    monkeypatch.setattr(search, "topology_mesh", lambda topology, spec: make_mesh(spec, topology.devices))
    monkeypatch.setattr(search, "summarise", lambda topology, step, built: {"rows": step.work.rows})
    topology = Topology("v5e:1x1", jax.devices()[:1], CHIPS["v5e"])
    best, lines = search.largest_batch(stage3.get_config(), topology, OPTIONS)
    assert (best["rows"] if best else 0) == largest
    assert len(lines) == len(seen) == len(set(seen)) <= 6
