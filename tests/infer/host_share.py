"""Run by test_mesh.py as one of several processes: how much of a checkpoint this one holds in its own memory.

python -m tests.infer.host_share HOST:PORT PROCESSES PROCESS FOLDER

Prints {"held": most bytes of NumPy arrays at a time, "whole": those of all parameters, "right": whether every shard has
the values that were stored} as JSON.
"""

import json
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from eve_jax.infer.parameters import loaded
from eve_jax.model.eve import abstract_params
from eve_jax.process.cluster import Cluster
from eve_jax.process.connect import distributed_run
from eve_jax.sharding import make_mesh
from eve_jax.weights.open import Checkpoint
from tests import reference as ref


class Counting:
    """Parameters of a few MB each, whose numbers follow from the name and the layer."""

    cfg = replace(ref.config(), hidden_size=256, intermediate_size=2048, num_layers=6, frozen_dtype="float32")
    shapes = abstract_params(cfg)

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        shape = self.shapes[name].shape
        layers = shape[0] if name.startswith("layers.") else 1
        for layer in range(layers):
            piece = shape[1:] if name.startswith("layers.") else shape
            yield np.arange(layer, layer + np.prod(piece), dtype=np.float32).reshape(piece) % 1021


def main(where: str, count: str, number: str, folder: str) -> None:
    source = Counting()
    with distributed_run(Cluster(where, int(count), int(number)), Path(folder)):
        mesh = make_mesh("tensor:-1")
        tracemalloc.start()
        _, params = loaded(Checkpoint(Path(folder), source.cfg, {}, source), mesh)
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        right = True
        for name, value in params.items():
            stored = list(source.pieces(name))
            whole = np.stack(stored) if name.startswith("layers.") else stored[0]
            right &= all(np.array_equal(shard.data, whole[shard.index]) for shard in value.addressable_shards)
        sizes = sum(value.size * value.dtype.itemsize for value in params.values())
        print(json.dumps({"held": held, "whole": sizes, "right": right}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
