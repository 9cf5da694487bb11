"""Run by test_mesh.py on virtual devices, as one process or as each of several: what an engine answers on each mesh.

python -m tests.infer.on_meshes MODEL SPEC ... [--scheduler] [--of=HOST:PORT,PROCESSES,PROCESS,FOLDER]

Prints {spec: {key: ids, "logits": those after a prefill and after each of two further turns}} as JSON; a spec takes the
first devices that there are, "" is one device without a mesh.
--scheduler: the answers of a warm scheduler, and "compiled": the programs that it compiled for them.
"""

import json
import math
import sys
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from eve_jax.checkpoint.weight_fingerprint import fingerprints
from eve_jax.infer.batches import answer_all
from eve_jax.infer.engine import Engine
from eve_jax.infer.scheduler import Scheduler, SchedulerSettings
from eve_jax.infer.unthreaded import run_all
from eve_jax.model.config import VARIANTS, ModelConfig
from eve_jax.model.eve import Params, head_name, init_params
from eve_jax.model.quantized import plain, quantize
from eve_jax.process.cluster import Cluster
from eve_jax.process.connect import distributed_run
from eve_jax.sharding import make_mesh, parse_mesh
from eve_jax.weights.quantize import quantized_as
from tests import reference as ref
from tests.infer.asked import asks
from tests.infer.mixed import mix
from tests.infer.test_generate import prompts

KEYS = ("text", "a1", "a3", "b1")


def model(name: str) -> tuple[ModelConfig, Params]:
    """Golden model A as EVE's moe, also quantized and with its tables tied; or random weights with one or three
    key/value heads, or with the switches of other bases."""
    if name.startswith("moe"):
        cfg, (_, *how) = ref.config(parts=VARIANTS["moe"]), name.split()
        params = ref.params(cfg)
        if "tied" in how:
            cfg = replace(cfg, tie_embeddings=True)
            del params["head"]
        for weight, kind in quantized_as(cfg, how[0] if how else "").items():
            one = partial(quantize, weights=kind)
            params[weight] = (one if weight == head_name(cfg) else jax.vmap(one))(params[weight])
        return cfg, params
    if name.startswith("switched"):
        cfg = ref.switched(qk_norm="projection" if name == "switched together" else "head")
        return cfg, init_params(cfg, 0)
    heads = {"one head": (4, 1), "three heads": (6, 3)}[name]
    cfg = replace(ref.config(), num_heads=heads[0], num_kv_heads=heads[1])
    return cfg, init_params(cfg, 0)


def made(name: str, spec: str) -> tuple[Engine, Params]:
    """An engine of model `name` on the mesh `spec`, and its weights as given."""
    devices = jax.devices()[: math.prod(parse_mesh(spec).values())]
    cfg, params = model(name)
    return Engine(cfg, params, make_mesh(spec, devices) if spec else None), params


def scheduled(engine: Engine, _: Params) -> dict[str, Any]:
    """Of a mix of requests through the scheduler."""
    scheduler = Scheduler(engine, SchedulerSettings(slots=2, context=160, chunk=32, block=4, prefix_bytes=2**20))
    scheduler.warm_up()
    before = scheduler.stats().compiled
    found: dict[str, Any] = {str(n): ids for n, ids, _ in run_all(scheduler, mix(10, 4))}
    return found | {"compiled": scheduler.stats().compiled - before, "hits": scheduler.stats().prefix_hits}


def answers(engine: Engine, params: Params) -> dict[str, Any]:
    """Of asks in batches of 3, and of a session of one row that is continued; and logits of another such session."""
    every = asks()
    found: dict[str, Any] = {r.key: r.ids for r in answer_all(engine, [every[key] for key in KEYS], [], 3)}
    session = engine.session()
    for number, key in enumerate(("text", "text")):
        found[f"turn {number}"] = engine.reply(session, [prompts()[key]], 4, [])[0]
    session = engine.session()
    turns = [engine.prefill(session, [prompts()[key]]) for key in ("image", "text", "text")]
    found["logits"] = [np.asarray(logits)[0].tolist() for logits in turns]
    found["weights as given"] = fingerprints(plain(engine.weights)) == fingerprints(plain(params))
    found["stream"] = list(engine.stream(prompts()["text"], 4, []))
    return found


def main(name: str, *specs: str) -> None:
    of = [spec.removeprefix("--of=") for spec in specs if spec.startswith("--of=")]
    of_engine = scheduled if "--scheduler" in specs else answers
    specs = tuple(spec for spec in specs if not spec.startswith("--"))
    if of:
        where, count, number, folder = of[0].split(",")
        run = distributed_run(Cluster(where, int(count), int(number)), Path(folder))
    with run if of else nullcontext():
        print(json.dumps({spec: of_engine(*made(name, spec)) for spec in specs}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
