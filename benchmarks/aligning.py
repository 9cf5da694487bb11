"""What EVEv1's aligning loss costs: matrix-product FLOPs of a training step with and without it, at full size.

    python -m benchmarks.aligning [--config=v1_prealign | v1_pretrain] [--rows=1]

Counted in the traced step (forward, backward, what is computed again), on no device: nothing is compiled or allocated.
"""

import argparse
import importlib
import json
import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from eve_jax.batch import RowShape
from eve_jax.compile.abstract import abstract_batch
from eve_jax.config.stages import partition, stage_factors
from eve_jax.data.image.rule import ImageRule
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import abstract_params
from eve_jax.sharding import make_mesh
from eve_jax.train.step import gradient_sums

SHAPE = RowShape(1632, 80, 336)  # a row of four captions, images of 4:3 (24 x 17 windows each)


def flops(jaxpr: Any) -> float:
    """2 m n k of every matrix product in a jaxpr, loops by their trip counts."""
    total = 0.0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            left = eqn.invars[0].aval.shape
            total += 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)
        times = eqn.params.get("length", 1) if eqn.primitive.name == "scan" else 1
        for value in eqn.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                body = getattr(inner, "jaxpr", inner)
                if hasattr(body, "eqns"):
                    total += times * flops(body)
    return total


def step_flops(cfg: ModelConfig, rule: ImageRule, stage: str, rows: int) -> float:
    """FLOPs of the gradient of a micro-batch of `rows` rows of SHAPE in `stage`."""
    dtypes = {True: jnp.dtype(cfg.param_dtype), False: jnp.dtype(cfg.frozen_dtype)}
    trainable, _ = partition(cfg, abstract_params(cfg), stage_factors(stage))
    params = {
        name: jax.ShapeDtypeStruct(value.shape, dtypes[name in trainable])
        for name, value in abstract_params(cfg).items()
    }
    batch = abstract_batch(SHAPE, rows, make_mesh("fsdp:-1", jax.devices()[:1]), rule, cfg.aligns)
    parts = partition(cfg, params, stage_factors(stage))
    traced = jax.make_jaxpr(gradient_sums, static_argnums=0)(cfg, *parts, batch, 1.0)
    return flops(traced.jaxpr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="v1_prealign")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print the figures as a line of JSON last")
    args = parser.parse_args()
    config = importlib.import_module(f"configs.{args.config}").get_config()
    cfg = ModelConfig.from_dict(config.model.to_dict() | {"attention": "chunked"})  # no branches to be counted
    rule = ImageRule.of(config.data)
    plain = replace(cfg, align_weight=0.0, align_width=0, teacher=None)
    with_it, without = (step_flops(c, rule, config.stage, args.rows) for c in (cfg, plain))
    table = Table("step", "TFLOPs a row", title=f"{args.config}, rows of {SHAPE.length} slots")
    for name, value in (("with the aligning loss", with_it), ("without", without)):
        table.add_row(name, f"{value / args.rows / 1e12:.1f}")
    Console().print(table)
    print(f"the aligning loss and its teacher are {1 - without / with_it:.1%} of the step's FLOPs")
    if args.json:
        print(json.dumps({"flops_a_row": with_it / args.rows, "share": 1 - without / with_it}))


if __name__ == "__main__":
    main()
