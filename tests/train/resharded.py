"""Run by test_restore.py on 8 virtual devices: saves on all of them, resumes with 1, 2 and 4 in other arrangements."""

import sys
from pathlib import Path

import jax
import numpy as np

from eve_jax import sharding
from tests.train.stages_on_disk import DAC, saved, started, write_llm

# Arrangements of the devices to resume with, by stage; 2.1 stores what trains, 3 everything.
MESHES = {"2.1": ((1, "fsdp:1"), (2, "tensor:2"), (4, "fsdp:2,tensor:2")), "3": ((2, "data:2"), (4, "fsdp:4"))}


def main(work: Path) -> None:
    write_llm(work / "llm")
    on_eight = sharding.make_mesh("data:2,fsdp:2,tensor:2", jax.devices())
    for stage, name, init in (("2.1", "stage2_1", "llm"), ("3", "stage3", "stage2_1")):
        begin = started(work / name, DAC, stage, work / init, on_eight)
        wanted = saved(work / name, begin, 3)
        moments = jax.tree.leaves(begin.state.optimizer)
        for count, spec in MESHES[stage]:
            mesh = sharding.make_mesh(spec, jax.devices()[:count])
            again = started(work / name, DAC, stage, work / init, mesh)
            got = {**again.state.trainable, **again.frozen}
            assert (again.step, got.keys()) == (3, wanted.keys())
            for key, value in got.items():
                assert value.sharding.mesh == mesh, (spec, key)
                np.testing.assert_array_equal(np.asarray(value), np.asarray(wanted[key]), err_msg=f"{spec} {key}")
            for one, other in zip(jax.tree.leaves(again.state.optimizer), moments, strict=True):
                assert len(one.sharding.device_set) == count, spec
                np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    print("restored")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
