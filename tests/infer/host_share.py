"""Run by test_mesh.py as one of several processes: how much of a checkpoint this one holds in its own memory.

python -m tests.infer.host_share HOST:PORT PROCESSES PROCESS FOLDER

The checkpoint is a stage folder in FOLDER where there is one (`write`), else made up while it is read. Prints as JSON
{"held": most bytes of NumPy arrays at a time, "grown": by how much the most memory of the process grew, "read": bytes
read from files, "share": bytes of its shards, "whole": bytes of all parameters, "right": whether every shard has the
values that were stored, "largest": bytes of the largest parameter}.
"""

import json
import re
import resource
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from eve_jax.checkpoint.stage_folder import Checkpoints
from eve_jax.checkpoint.streaming import write_checkpoint
from eve_jax.data.image.rule import ImageRule
from eve_jax.infer.parameters import loaded
from eve_jax.model.eve import abstract_params
from eve_jax.process.cluster import Cluster
from eve_jax.process.connect import distributed_run
from eve_jax.sharding import make_mesh
from eve_jax.weights.open import Checkpoint
from tests import reference as ref

STAGE = "stage"


class Counting:
    """Parameters of a few MB each, whose numbers follow from the name and the layer."""

    cfg = replace(ref.config(), hidden_size=256, intermediate_size=2048, num_layers=6, frozen_dtype="float32")
    shapes = abstract_params(cfg)

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        shape = self.shapes[name].shape
        layers = shape[0] if name.startswith("layers.") else 1
        for layer in range(layers):
            piece = shape[1:] if name.startswith("layers.") else shape
            yield np.random.default_rng([layer, len(name), *name.encode()]).random(piece, np.float32)


class Large(Counting):
    """Of 313 MB in all, next to which the memory of imports and of the layers that are under way is little."""

    cfg = replace(Counting.cfg, hidden_size=512, num_layers=12)
    shapes = abstract_params(cfg)


def write(folder: Path, trained: bool) -> None:
    """Write the parameters of `Large` as checkpoint 0 of the stage folder `folder`, as an import or a run does."""
    folder.mkdir()
    source = Large()
    config = {
        "model": asdict(source.cfg),
        "data": asdict(ImageRule()) | {"template": "qwen2", "image_mode": "anyratio_ld"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    if not trained:
        write_checkpoint(folder, source, lambda size: None)
        return
    checkpoints = Checkpoints(folder)
    params = {name: jnp.asarray(whole(source, name)) for name in source.shapes}
    checkpoints.save(0, params, {"count": jnp.zeros(())}, {})
    checkpoints.close()


def whole(source: "Counting", name: str) -> np.ndarray:
    """A parameter in one array."""
    pieces = list(source.pieces(name))
    return np.stack(pieces) if name.startswith("layers.") else pieces[0]


def peak() -> int:
    """Most bytes of memory that this process had at a time."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def bytes_read() -> int:
    """Bytes that this process has read from files, cached or not."""
    return int(re.findall(r"rchar: (\d+)", Path("/proc/self/io").read_text())[0])


def main(where: str, count: str, number: str, folder: str) -> None:
    source = Large()
    with distributed_run(Cluster(where, int(count), int(number)), Path(folder)):
        mesh = make_mesh("tensor:-1")
        stage = Path(folder) / STAGE
        stored = None if stage.is_dir() else source
        tracemalloc.start()
        before, read = peak(), bytes_read()
        _, params = loaded(Checkpoint(stage, source.cfg, {}, stored), mesh)
        jax.block_until_ready(params)
        grown, read = peak() - before, bytes_read() - read
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        right = True
        for name, value in params.items():
            expected = whole(source, name)
            right &= all(np.array_equal(shard.data, expected[shard.index]) for shard in value.addressable_shards)
        sizes = sum(value.size * value.dtype.itemsize for value in params.values())
        share = sum(shard.data.nbytes for value in params.values() for shard in value.addressable_shards)
        largest = max(value.size * value.dtype.itemsize for value in params.values())
        found = {"held": held, "grown": grown, "read": read, "share": share, "whole": sizes, "right": right}
        print(json.dumps(found | {"largest": largest}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
