"""Inference without weights and without memory: prefill and decoding of a model as a slice would run them.

config, topology -> abstract parameters (also quantized) and cache -> programs -> memory, rows that fit, least time
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import ShapeDtypeStruct
from jax.sharding import Mesh

from eve_jax import sharding
from eve_jax.batch import RowShape
from eve_jax.compile.abstract import Program, abstract_batch, nbytes, with_kernel
from eve_jax.compile.build import Built, build
from eve_jax.compile.estimate import on_links
from eve_jax.compile.report import SPARE
from eve_jax.compile.topology import Topology
from eve_jax.config.stage import Config
from eve_jax.data.image.rule import ImageRule
from eve_jax.hf.clip_teacher import without_aligning
from eve_jax.infer import programs
from eve_jax.infer.cache import bucket, round_up
from eve_jax.infer.heads import regrouped_sizes
from eve_jax.model import quantized
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Cache, Params, abstract_params, declared, logical_axes
from eve_jax.model.layer_cache import empty_cache
from eve_jax.process.section import Section, setting
from eve_jax.weights.quantize import quantized_as

BLOCK = 16  # tokens that a call of the decoding program makes
STOPS = 8  # room for tokens that end an answer
CONTEXTS = (1024, 2048, 4096, 8192, 16384, 32768)
TRIES = 3  # numbers of rows that are compiled for until one fits
FIRST_ROWS = 256  # tried at most, a part of the batch


@dataclass(frozen=True)
class ServeSection(Section):
    """The section `serve` of the config of that name (configs/serve.py)."""

    PATH = "serve."

    weights: str = setting(choices=("", *quantized.QUANTIZED))
    context: int = setting(low=128)
    text: int = setting(low=1)
    rows: int = setting(low=0)


class Bound(NamedTuple):
    """A compiled function with its static arguments in place."""

    function: Any
    static: tuple[Any, ...]

    def lower(self, *arguments: Any) -> Any:
        """`function.lower` with all arguments."""
        return self.function.lower(*self.static, *arguments)


class Model(NamedTuple):
    """What stays the same for all programs: sizes as the mesh has them, the mesh, abstract parameters."""

    cfg: ModelConfig
    mesh: Mesh
    params: Params

    def cache(self, rows: int, context: int) -> Cache:
        """An abstract cache of `rows` rows of `context` tokens."""
        shapes = jax.eval_shape(partial(empty_cache, self.cfg, rows, context))
        keys, values = (self.value(x.shape, x.dtype, None, "batch", "heads", None, None) for x in shapes)
        return keys, values

    def value(self, shape: tuple[int, ...], dtype: Any, *axes: str | None) -> Any:
        """An abstract activation with the logical `axes`; none: whole on every chip."""
        where = sharding.activation_sharding(self.mesh, axes or (None,) * len(shape), shape)
        return ShapeDtypeStruct(shape, dtype, sharding=where)


def abstract_model(config: Config, weights: str, mesh: Mesh) -> Model:
    """The model of `config` as the engine has it on `mesh`, its parameters in the computation's dtype or quantized."""
    given, _ = without_aligning(replace(config.sizes, remat="none", attention="auto"), {})
    cfg = regrouped_sizes(given, mesh)
    kinds, axes = quantized_as(cfg, weights), logical_axes(cfg)
    params: Params = {}
    for name, v in abstract_params(cfg).items():
        at = partial(_parameter, mesh, axes[name])
        if name not in kinds:
            params[name] = at(v.shape, cfg.dtype)
            continue
        types, scales = quantized.dtypes(kinds[name]), quantized.scale_shape(v.shape, kinds[name])
        value = quantized.joined(at(v.shape, types[0]), at(scales, types[1]))
        fine = jax.eval_shape(partial(quantized.placed, mesh=mesh, axes=axes[name]), value)
        params[name] = value.replace(scale=at(fine.scale.shape, types[1]))
    return Model(cfg, mesh, params)


def _parameter(mesh: Mesh, axes: tuple[str | None, ...], shape: tuple[int, ...], dtype: Any) -> Any:
    return ShapeDtypeStruct(shape, dtype, sharding=sharding.parameter_sharding(mesh, axes, shape))


def prompt_shape(config: Config, text: int) -> RowShape:
    """The row shape of a prompt of one image of full size and `text` text tokens."""
    side = ImageRule.of(config.data).size // config.data.patch
    return bucket((side * side, config.sizes.layout.specials_of(side), text))


def prefill(model: Model, shape: RowShape, rows: int, rule: ImageRule) -> Program:
    """The program that takes `rows` prompts of `shape` into an empty cache."""
    batch = abstract_batch(shape, rows, model.mesh, rule, layout=model.cfg.layout)
    one = model.value((rows,), jnp.int32)
    bound = Bound(programs.prefill, (model.cfg, model.mesh, True))
    arguments = (model.params, batch, model.cache(rows, round_up(shape.length, 128)), one, one)
    return Program("prefill", bound, arguments, 1, 0)


def decode(model: Model, rows: int, context: int) -> Program:
    """The program that decodes BLOCK tokens of each of `rows` rows on a cache of `context` tokens."""
    one = model.value((rows,), jnp.int32)
    choice = programs.Choice(None, model.value((STOPS,), jnp.int32), one)
    bound = Bound(programs.decode, (model.cfg, model.mesh, BLOCK))
    known = programs.LastToken(one, one)
    return Program("decode", bound, (model.params, model.cache(rows, context), one, known, choice), 1, 0)


def compile_serving(config: Config, serve: ServeSection, topology: Topology, mesh: Mesh) -> dict[str, Any]:
    """Everything that is reported of a model on a slice, JSON-ready; bytes and seconds are of one chip.

    Rows are those of `serve`, or the most that leave a tenth of the memory as the programs compiled need it.
    """
    parts, shape = sharding.batch_parts(mesh), prompt_shape(config, serve.text)
    model = abstract_model(config, serve.weights, mesh)
    model = model._replace(cfg=with_kernel(model.cfg, mesh, shape.length))
    label, limit = topology.name, _limit(topology)
    first = build(prefill(model, shape, parts, ImageRule.of(config.data)), f"{label}: prefill")
    row = nbytes(model.cache(parts, serve.context))
    fixed = nbytes([model.params]) + max(_more(first), 0)
    rows = serve.rows or _rows(limit, fixed, row, parts)
    built = None
    for _ in range(TRIES if rows else 0):
        built = build(decode(model, rows, serve.context), f"{label}: decode, {rows} row(s) of {serve.context} tokens")
        taken = _total(built)
        if serve.rows or limit is None or taken <= limit:
            break
        each = (taken - nbytes([model.params])) / (rows // parts)
        rows = min(rows - parts, _rows(limit, nbytes([model.params]), each, parts))
        if rows < parts:
            built = None
            break
    return _summary(config, serve, topology, model, shape, first, built, rows)


def _limit(topology: Topology) -> float | None:
    return (1 - SPARE) * topology.chip.hbm if topology.chip else None


def _rows(limit: float | None, fixed: float, row: float, parts: int) -> int:
    """Rows of `row` bytes a part that fit next to `fixed` bytes, at most FIRST_ROWS a part."""
    each = FIRST_ROWS if limit is None else max(int((limit - fixed) // row), 0)
    return min(each, FIRST_ROWS) * parts


def _more(built: Built) -> float:
    """Bytes that a program needs next to its parameters."""
    return _total(built) - nbytes([built.program.arguments[0]])


def _total(built: Built) -> float:
    return built.memory.total if built.memory else max(built.needed, nbytes(built.program.arguments))


def _summary(
    config: Config,
    serve: ServeSection,
    topology: Topology,
    model: Model,
    shape: RowShape,
    first: Built,
    built: Built | None,
    rows: int,
) -> dict[str, Any]:
    parts, limit, chip = sharding.batch_parts(model.mesh), _limit(topology), topology.chip
    params = nbytes([model.params])
    each = _more(built) / (rows // parts) if built else nbytes(model.cache(parts, serve.context))
    spare = {c: _rows(limit, params, each * c / serve.context, parts) for c in CONTEXTS}
    summary: dict[str, Any] = {
        "topology": topology.name,
        "chips": model.mesh.size,
        "mesh": dict(model.mesh.shape),
        "config": config.name,
        "weights": serve.weights or config.sizes.dtype,
        "parameters": _elements(abstract_params(config.sizes)),
        "hbm_bytes": round(chip.hbm) if chip else None,
        "parameter_bytes": round(params),
        "prompt": {**shape._asdict()},
        "prefill_bytes": round(_total(first)),
        "context": serve.context,
        "cache_bytes_per_row": round(nbytes(model.cache(parts, serve.context))),
        "rows": rows if built else 0,
        "decode_bytes": round(_total(built)) if built else None,
        "fits": bool(built and built.memory and first.memory and (limit is None or _total(built) <= limit)),
        "rows_by_context": spare,
    }
    if chip and built and built.memory:
        summary |= _times(model, chip, built, rows, serve.context)
        summary["prefill_seconds_at_least"] = max(first.counts.flops / chip.flops, params / chip.bandwidth)
        if chip.clock:
            summary["prefill_compiler_estimate"] = first.counts.cycles / chip.clock
            summary["step_compiler_estimate"] = built.counts.cycles / chip.clock
    return summary


def _times(model: Model, chip: Any, built: Built, rows: int, context: int) -> Mapping[str, Any]:
    """The least seconds of a token for all rows: bytes of weights and cache that are read, FLOPs, links.

    The loop over tokens ends when all rows do, so the compiler's counts have one turn of it and a block's other work.
    """
    read = {n: v for n, v in model.params.items() if declared(model.cfg)[n].works_on in ("text", "all", "targets")}
    parts = sharding.batch_parts(model.mesh)
    cache = nbytes(model.cache(rows, context))
    seconds = {
        "hbm": (nbytes([read]) + cache) / chip.bandwidth,
        "compute": 2 * rows / parts * _elements(read) * parts / model.mesh.size / chip.flops,
        **on_links(chip, built.counts.wire, built.counts.far),
    }
    least = max(seconds.values())
    return {
        "step_seconds": seconds,
        "step_seconds_at_least": least,
        "tokens_per_second_at_most": rows / least,
    }


def _elements(params: Params) -> int:
    values = [v.qvalue if quantized.is_quantized(v) else v for v in params.values()]
    return sum(int(np.prod(v.shape)) for v in values)
