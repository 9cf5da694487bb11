"""Run by test_mesh.py on 4 virtual devices: what the devices hold of a checkpoint in FOLDER, and of live parameters.

python -m tests.infer.held_weights FOLDER RECORDS IMAGES
"""

import json
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp

from eve_jax import EVE
from eve_jax.infer.engine import Engine
from eve_jax.infer.parameters import ready


def pointers(value: jax.Array) -> list[int]:
    return [shard.data.unsafe_buffer_pointer() for shard in value.addressable_shards]


def main(folder: str, records: str, images: str) -> None:
    eve = EVE.from_pretrained(folder, fit="shrink", mesh="data:2,tensor:-1")
    params = eve.engine.params
    held = dict.fromkeys(jax.devices(), 0)
    for value in params.values():
        for shard in value.addressable_shards:
            held[shard.device] += shard.data.nbytes
    asked = ["Why?", "How?"]
    found = {
        "answers": eve.generate_batch(asked, max_new_tokens=6),
        "share": max(held.values()) / sum(value.nbytes for value in params.values()),
        "axes": list(params["layers.mlp.vision.up"].sharding.spec),
    }
    cfg = replace(eve.engine.cfg, remat="full")  # as while it trains, some weights as masters of a wider dtype
    frozen = {name for name in params if ".text." in name}
    live = {name: value if name in frozen else value.astype(jnp.bfloat16) for name, value in params.items()}
    engine = Engine(*ready(cfg, live), eve.engine.mesh)
    found["of the dtype"] = len(frozen)
    found["shared"] = sum(pointers(engine.params[name]) == pointers(live[name]) for name in live)
    found["cast"] = sum(engine.params[name].dtype != live[name].dtype for name in live)
    same = Engine(*ready(cfg, params), eve.engine.mesh)
    found["live"] = EVE(same, eve.rule).generate_batch(asked, max_new_tokens=6)
    found["losses"] = [line.loss for line in eve.score(records, images, rows=3).lines]
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
