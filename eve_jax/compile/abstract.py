"""A stage's step without data and without memory: shapes, dtypes and shardings of all that it takes.

config, topology -> row shape, rows, micro-batches -> abstract parameters, optimizer state, batch -> programs to compile
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import ShapeDtypeStruct
from jax.sharding import AbstractMesh, Mesh

from eve_jax import sharding
from eve_jax.batch import EVE_LAYOUT, ROW_MULTIPLE, Layout, RowShape, batch_arrays
from eve_jax.compile.capture import captured
from eve_jax.compile.topology import Chip
from eve_jax.config.optim import TOKEN
from eve_jax.config.stage import Config
from eve_jax.config.stages import partition, trainable_names, trained_groups
from eve_jax.data.config import DataConfig
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.rows.align_arrays import teacher_shape
from eve_jax.data.text.templates import get_template
from eve_jax.errors import UserError
from eve_jax.model.attention import kernel_for
from eve_jax.model.config import ModelConfig, ModelSection
from eve_jax.model.eve import Params, abstract_params, parameter_shardings
from eve_jax.model.loss import TARGET_WEIGHT
from eve_jax.process.compiler_options import Options
from eve_jax.train.frozen_base import abstract_base
from eve_jax.train.optimizer import abstract_optimizer, optimizer
from eve_jax.train.schedule import schedule
from eve_jax.train.step import StepFunctions, Sums, TrainState, drops_out, sums_of

# Share of a row that images take, in the shapes for a config without data.
SHARES = {"mixed": 0.6, "vision": 0.9, "text": 0.0}
SPECIALS_SLACK = 1.03  # images smaller than the largest have more split tokens for their patches
ACTIVATIONS = 0.25  # of the HBM, for what the layers of a micro-batch store, when its rows are chosen here
ANY_RULE = ImageRule()
STEPS = 10_000  # of the schedule; only its shape matters to the compiler


class Work(NamedTuple):
    """What a step works on: micro-batches of `rows` rows (all chips together) of `shape`; `name` is the shape's."""

    name: str
    shape: RowShape
    rows: int
    micro_batches: int

    @property
    def tokens(self) -> int:
        """Slots of a step."""
        return self.rows * self.micro_batches * self.shape.length


class Program(NamedTuple):
    """A function to compile and its abstract arguments.

    times: how often a step calls it. resident: bytes that are on a chip while it runs and are not among its arguments.
    """

    name: str
    function: Any
    arguments: tuple[Any, ...]
    times: int
    resident: float


class Step(NamedTuple):
    """A stage's abstract step on a mesh."""

    cfg: ModelConfig
    stage: str
    trains: frozenset[str]  # groups of weights
    work: Work
    mesh: Mesh
    state: TrainState
    frozen: Params
    sums: Sums | None  # None with a single micro-batch
    batch: dict[str, ShapeDtypeStruct]
    programs: list[Program]
    options: Options  # of the compiler


def menu(data: DataConfig, row_tokens: int = 0, layout: Layout = EVE_LAYOUT) -> dict[str, RowShape]:
    """Row shapes for `config.data` without records: rows mostly of images, mixed ones, and of text alone.

    Captions alone (templates of `caption`) come with an image each, so they have no text-only rows. `row_tokens`
    replaces the config's if it is not 0. Raises UserError when it is no multiple of 128, or shorter than the longest
    sample.
    """
    length = row_tokens or data.row_tokens
    if length % ROW_MULTIPLE or length < ROW_MULTIPLE:
        raise UserError(f"row_tokens={length}: rows have a multiple of {ROW_MULTIPLE} slots")
    if length < data.max_tokens:
        raise UserError(
            f"row_tokens={length} is shorter than the longest sample, config.data.max_tokens={data.max_tokens}"
        )
    side = ImageRule.of(data).size // data.patch
    special = SPECIALS_SLACK * layout.specials_of(side) / layout.tokens_of(side, side)
    shapes = {}
    for name, share in SHARES.items():
        vision = round(share * length)
        specials = math.ceil(vision * special)
        if vision or not get_template(data.template).caption:
            shapes[name] = RowShape(vision - specials, specials, length - vision)
    return shapes


def plan_work(
    config: Config, axes: Mapping[str, int], chip: Chip | None, shape: str, rows: int = 0, row_tokens: int = 0
) -> Work:
    """Rows and micro-batches of a step on a mesh of `axes` (sizes by name), of no fewer slots than the config's step.

    rows: of a micro-batch, 0 = chosen: the config's if the mesh divides them and their activations take a sensible part
    of the memory. row_tokens: 0 = the config's, or shorter ones where a row on each chip would be more than a step.
    Raises UserError for rows that the mesh does not divide.
    """
    data, chips = config.data, axes["data"] * axes["fsdp"]
    slots = data.rows * data.micro_batches * data.row_tokens
    if not row_tokens and not rows:
        enough = max(-(-slots // chips), data.max_tokens)
        row_tokens = min(data.row_tokens, -(-enough // ROW_MULTIPLE) * ROW_MULTIPLE)
    shapes = menu(data, row_tokens, config.sizes.layout)
    if shape not in shapes:
        raise UserError(f"--shape={shape}: the menu of {config.name} has {', '.join(shapes)}")
    length = shapes[shape].length
    if rows and rows % chips:
        raise UserError(f"--rows={rows} is no multiple of the {chips} shards of a batch (mesh axes data and fsdp)")
    if not rows:
        most = _rows_per_chip(config.model, chip, length)
        rows = data.rows
        if rows % chips or rows > most * chips or length != data.row_tokens:
            needed = -(-slots // (length * chips))  # rows of a step on each chip
            rows = -(-needed // -(-needed // most)) * chips
    return Work(shape, shapes[shape], rows, max(-(-slots // (rows * length)), 1))


def _rows_per_chip(model: ModelSection, chip: Chip | None, length: int) -> int:
    """Rows whose stored layer inputs and attention outputs take ACTIVATIONS of a chip's memory, at least 1."""
    row = 2 * model.num_layers * model.hidden_size * length * jnp.dtype(model.dtype).itemsize
    return max(int(ACTIVATIONS * chip.hbm / row), 1) if chip else 1 << 20


def abstract_step(config: Config, mesh: Mesh, work: Work) -> Step:
    """The abstract values of a step of the stage `config`, and the programs that it calls."""
    cfg, factors = with_kernel(config.sizes, mesh, work.shape.length), config.factors
    shardings = parameter_shardings(cfg, mesh)
    train = trainable_names(cfg, factors)
    params = {
        n: ShapeDtypeStruct(v.shape, cfg.param_dtype if n in train else cfg.frozen_dtype, sharding=shardings[n])
        for n, v in abstract_params(cfg).items()
    }
    trainable, frozen = partition(cfg, params, factors)
    frozen = abstract_base(cfg, frozen, mesh)
    lr = schedule(config.optim, STEPS)
    tx = optimizer(config.optim, lr, cfg, factors)
    moments = abstract_optimizer(tx, trainable, mesh)
    step: Any = ShapeDtypeStruct((), jnp.int32, sharding=sharding.replicated(mesh))
    state = TrainState(step, trainable, moments)
    batch = abstract_batch(work.shape, work.rows, mesh, ImageRule.of(config.data), cfg.aligns, cfg.layout)
    weighed = config.optim.loss_weights != TOKEN
    if weighed:
        batch[TARGET_WEIGHT] = batch["loss_weight"]
    with captured():  # what the TPU compiler says of a program of one addition
        options = "" if isinstance(mesh, AbstractMesh) else config.compile.options  # which has no compiler to ask
        functions = StepFunctions(cfg, tx, lr, mesh, options=options)
    sums = None
    if work.micro_batches == 1:
        programs = [Program("step", functions.fused, (state, frozen, batch), 1, 0)]
    else:
        total: Any = ShapeDtypeStruct((), jnp.float32, sharding=sharding.replicated(mesh))
        sums = sums_of(_sums_of(trainable), total, weighed)
        count = work.micro_batches
        waiting = nbytes([batch])  # a step's micro-batches are sent to the devices together
        more = [0.0, step] if drops_out(cfg) else [total] if cfg.aligns else []
        begins: Any = ShapeDtypeStruct((), jnp.bool_, sharding=sharding.replicated(mesh))
        accumulate = (sums, begins, trainable, frozen, batch, *more)
        programs = [
            Program("gradients", functions.accumulate, accumulate, count, nbytes([moments]) + (count - 1) * waiting),
            Program("update", functions.update, (state, sums), 1, nbytes([frozen]) + count * waiting),
        ]
    return Step(
        cfg, config.stage, trained_groups(factors), work, mesh, state, frozen, sums, batch, programs, functions.options
    )


def with_kernel(cfg: ModelConfig, mesh: Mesh, length: int) -> ModelConfig:
    """Return `cfg` with an attention that can be compiled for GPUs that are not there: cuDNN asks a card of its own."""
    devices = [] if isinstance(mesh, AbstractMesh) else mesh.devices.flat
    if cfg.attention != "auto" or not any(device.platform == "gpu" for device in devices):
        return cfg
    plain = cfg.image_attention == "causal" and cfg.qk_dim == cfg.head_dim
    return replace(cfg, attention=kernel_for("auto", "gpu", length, cfg.head_dim, False, cfg.window, plain))


def _sums_of(trainable: Params) -> Params:
    """The abstract sums of the gradients of `trainable`."""
    return {n: ShapeDtypeStruct(v.shape, jnp.float32, sharding=v.sharding) for n, v in trainable.items()}


def abstract_batch(
    shape: RowShape,
    rows: int,
    mesh: Mesh,
    rule: ImageRule = ANY_RULE,
    taught: bool = False,
    layout: Layout = EVE_LAYOUT,
) -> dict[str, ShapeDtypeStruct]:
    """The arrays of a micro-batch (docs/design.md#row-contract), its rows sharded over the mesh.

    `taught`: with those of `eve_jax.data.rows.align_arrays`, for as many images of 4:3 and full size as fill the row.
    """
    place = sharding.batch_sharding(mesh)
    images = round(shape.patches / (0.75 * (rule.size // rule.patch) ** 2))
    teacher = teacher_shape(rule, images) if taught else None
    arrays = batch_arrays(rows, shape, rule.patch_bytes, teacher, layout)
    return {name: ShapeDtypeStruct(*spec, sharding=place) for name, spec in arrays.items()}


def nbytes(trees: Iterable[Any]) -> float:
    """Bytes of abstract values on one device, without padding."""
    leaves = jax.tree.leaves(list(trees))
    return float(sum(math.prod(v.sharding.shard_shape(v.shape)) * _item(v.dtype) for v in leaves))


def _item(dtype: Any) -> float:
    """Bytes of a number; accelerators pack two of int4 into one."""
    return 0.5 if dtype == jnp.int4 else dtype.itemsize
