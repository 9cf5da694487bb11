"""One optimizer step over micro-batches of any row shapes: gradient sums, divided once by the step's targets."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from eve_jax import sharding
from eve_jax.model import dropout
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Batch, Params, bind, logical_axes
from eve_jax.model.loss import TARGET_WEIGHT, LossSums, training_sums
from eve_jax.process import host_memory
from eve_jax.process.compiler_options import Options, options_for
from eve_jax.train.metrics import Metric, StepView, measure
from eve_jax.train.rounding import in_float32, updated

Metrics = dict[str, jax.Array]


class TrainState(NamedTuple):
    """What an optimizer step changes: the number of steps taken, trainable parameters, their optimizer state."""

    step: jax.Array
    trainable: Params
    optimizer: Any


class Sums(NamedTuple):
    """Running sums over a step's micro-batches, in float32; all but `grads` and `loss` are those of `LossSums`."""

    grads: Params
    loss: jax.Array
    targets: jax.Array
    align: jax.Array
    images: jax.Array
    samples: jax.Array | float = 0.0
    weight: jax.Array | None = None

    @property
    def divisor(self) -> jax.Array:
        """What a mean over the targets divides by: their weights, or their number where each weighs 1."""
        return self.targets if self.weight is None else self.weight


def _taken(state: TrainState) -> jax.Array:
    """Updates made so far, which the learning rate follows: steps that were skipped are not among them."""
    counts = optax.tree_utils.tree_get_all_with_path(state.optimizer, "count")
    return counts[0][1] if counts else state.step


def _mean(total: jax.Array, count: jax.Array) -> jax.Array:
    """Return `total` / `count`, NaN where there is nothing to take the mean of."""
    return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan)


def gradient_sums(
    cfg: ModelConfig,
    trainable: Params,
    frozen: Params,
    batch: Batch,
    per_image: jax.Array | float = 0.0,
    left_out: jax.Array | None = None,
) -> Sums:
    """Gradient of the summed loss of one micro-batch with respect to `trainable` alone.

    `per_image` is what the aligning loss of an image weighs in that sum, where a target weighs 1. `left_out` is the key
    of dropout.
    """

    def loss(trainable: Params) -> tuple[jax.Array, LossSums]:
        with dropout.use(left_out):
            sums = training_sums(bind(cfg, {**trainable, **frozen}), batch)
        return sums.nll + per_image * sums.align if cfg.aligns else sums.nll, sums

    (_, sums), grads = jax.value_and_grad(loss, has_aux=True)(trainable)
    return Sums(grads, *sums)


def image_weight(cfg: ModelConfig, batches: list[Batch]) -> jax.Array | float:
    """The `per_image` of `gradient_sums` with which a step's sum, divided by its targets, is the mean loss of the
    targets plus `align_weight` times that of the images; from the whole step's batches."""
    if not cfg.aligns:
        return 0.0
    weight = TARGET_WEIGHT if TARGET_WEIGHT in batches[0] else "loss_weight"
    targets, images = (sum(jnp.sum(b[name]) for b in batches) for name in (weight, "align_weight"))
    return cfg.align_weight * targets / jnp.maximum(images, 1)


def sums_of(grads: Any, scalar: Any, weighed: bool) -> Sums:
    """Return `Sums` of which every one but the gradients is `scalar`; `weighed`: of batches with TARGET_WEIGHT."""
    return Sums(grads, scalar, scalar, scalar, scalar, scalar, scalar if weighed else None)


def _zero_sums(state: TrainState, weighed: bool) -> Sums:
    """Sums of nothing, placed as those of later steps, for which other programs would be compiled otherwise."""
    where = sums_of(jax.tree.map(lambda p: p.sharding, state.trainable), state.step.sharding, weighed)

    def zeros() -> Sums:
        return sums_of(jax.tree.map(lambda p: jnp.zeros(p.shape), state.trainable), jnp.zeros(()), weighed)

    return jax.jit(zeros, out_shardings=where)()


class StepRule(NamedTuple):
    """What a step follows from, next to its data: the model, its optimizer and learning rate, where parameters lie."""

    cfg: ModelConfig
    tx: optax.GradientTransformation
    schedule: optax.Schedule
    mesh: Mesh | None = None
    metrics: tuple[Metric, ...] = ()  # of the user's own

    def place(self, parameters: Params) -> Params:
        """Return `parameters`, or what an optimizer keeps of them, with the sharding of the rules.

        Without this constraint the compiler may choose another sharding for them, and the next step would recompile.
        """
        if self.mesh is None:
            return parameters
        axes, mesh = logical_axes(self.cfg), self.mesh

        def placed(name: str, value: jax.Array) -> jax.Array:
            return jax.lax.with_sharding_constraint(value, sharding.parameter_sharding(mesh, axes[name], value.shape))

        return {n: jax.tree.map(partial(placed, n), p) for n, p in parameters.items()}

    def place_moments(self, optimizer: Any) -> Any:
        """Return the optimizer's state with those trees placed that have the parameters' names."""
        return jax.tree.map(
            lambda part: self.place(part) if isinstance(part, dict) else part,
            optimizer,
            is_leaf=lambda part: isinstance(part, dict),
        )


def accumulate(
    rule: StepRule,
    sums: Sums,
    begins: jax.Array | bool,
    trainable: Params,
    frozen: Params,
    batch: Batch,
    per_image: jax.Array | float = 0.0,
    step: jax.Array | None = None,
) -> Sums:
    """Return `sums` with those of one more micro-batch; `step` is the number of steps taken, where dropout needs it.

    `begins`: it is the first of a step, and what is in `sums` is of the step before: it counts as zero.
    """
    sums = jax.tree.map(lambda s: jnp.where(begins, jnp.zeros_like(s), s), sums)
    key = None if step is None else _dropout_key(rule.cfg, step, sums.targets)
    with sharding.use(rule.mesh):
        return jax.tree.map(jnp.add, sums, gradient_sums(rule.cfg, trainable, frozen, batch, per_image, key))


def drops_out(cfg: ModelConfig) -> bool:
    """Whether training of `cfg` leaves values out."""
    return cfg.lora is not None and cfg.lora.dropout > 0


def _dropout_key(cfg: ModelConfig, step: jax.Array, targets: jax.Array) -> jax.Array:
    """The key of a micro-batch: of the seed, the number of steps taken, and that of the step's targets before it."""
    assert cfg.lora is not None
    key = jax.random.fold_in(jax.random.key(cfg.lora.seed, impl="threefry2x32"), step)
    return jax.random.fold_in(key, targets.astype(jnp.uint32))


def apply_update(rule: StepRule, state: TrainState, sums: Sums) -> tuple[TrainState, Metrics]:
    """Divide the gradient sums by the step's targets, or their weights; return the updated state and the metrics.

    A step whose loss or gradient is not finite, or that has no target, leaves parameters and optimizer as they were,
    also the optimizer's count of steps. A mean over nothing is NaN in the metrics: loss and gradient norm of a step
    without a target, align_loss of one without an image.
    """
    grads = _mean_grads(sums)
    metrics = {
        "loss": _mean(sums.loss, sums.divisor),
        "lr": rule.schedule(_taken(state)),
        "grad_norm": jnp.where(sums.targets > 0, optax.global_norm(grads), jnp.nan),
        "targets": sums.targets,
        "samples_with_targets": sums.samples,
    }
    if rule.cfg.aligns:
        metrics["align_loss"] = _mean(sums.align, sums.images)

    def update(taken: bool, sums: Sums, trainable: Params, old: Any) -> tuple[Params, Any, Metrics]:
        if not (taken or rule.metrics):
            return trainable, old, {}
        grads = _mean_grads(sums)
        updates, new = rule.tx.update(grads, old, in_float32(trainable))
        own = measure(rule.metrics, StepView(trainable, grads, updates, dict(metrics)))
        return (updated(trainable, updates, state.step), new, own) if taken else (trainable, old, own)

    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
    old = state.trainable, state.optimizer
    with sharding.use(rule.mesh):
        on_cpu = sharding.platform() == "cpu"
    if on_cpu:  # XLA would copy all moments there to choose between old and new ones
        branches = (partial(update, True), partial(update, False))
        *kept, own = jax.lax.cond(finite, *branches, sums, *old)
    else:
        *new, own = update(True, sums, *old)
        kept = jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, list(old))
    return TrainState(state.step + 1, rule.place(kept[0]), rule.place_moments(kept[1])), metrics | own


def _mean_grads(sums: Sums) -> Params:
    """Gradients of the mean loss in float32."""
    divisor = jnp.maximum(sums.divisor, 1)
    return jax.tree.map(lambda g: g / divisor, in_float32(sums.grads))


def train_step(rule: StepRule, state: TrainState, frozen: Params, batch: Batch) -> tuple[TrainState, Metrics]:
    """Return the state after a step of a single micro-batch, and the step's metrics."""
    with sharding.use(rule.mesh):
        key = _dropout_key(rule.cfg, state.step, jnp.zeros(())) if drops_out(rule.cfg) else None
        sums = gradient_sums(rule.cfg, state.trainable, frozen, batch, image_weight(rule.cfg, [batch]), key)
        return apply_update(rule, state, sums)


class StepFunctions:
    """The functions above, compiled: one gradient function a row shape, one update.

    A step of a single micro-batch is one fused function, which holds no sums between its two halves.
    """

    def __init__(
        self,
        cfg: ModelConfig,
        tx: optax.GradientTransformation,
        schedule: optax.Schedule,
        mesh: Mesh | None = None,
        metrics: tuple[Metric, ...] = (),
        options: str = "",
    ):
        """`options` of the compiler are as in `config.compile.options`. Raises FieldError for a bad one."""
        rule = StepRule(cfg, tx, schedule, mesh, metrics)
        self.cfg = cfg
        self.options = of_update = Options({})
        if options:
            with sharding.use(mesh):
                device = sharding.device()
            of_update = options_for(options, device, update=True)
            self.options = of_update._replace(taken=options_for(options, device).taken)
        compiled = partial(jax.jit, donate_argnums=0)
        self.fused = compiled(partial(train_step, rule), compiler_options=self.options.taken or None)
        self.accumulate = compiled(partial(accumulate, rule), compiler_options=self.options.taken or None)
        self.update = compiled(partial(apply_update, rule), compiler_options=of_update.taken or None)
        self._sums: Sums | None = None
        self._settled: set[Any] = set()

    def __call__(self, state: TrainState, frozen: Params, batches: list[Batch]) -> tuple[TrainState, Metrics]:
        """Take one step; `state` is donated. Metrics stay on the device."""
        if len(batches) == 1:
            self._settle(self.fused, state, frozen, batches[0])
            return self.fused(state, frozen, batches[0])
        sums, self._sums = self._sums or _zero_sums(state, TARGET_WEIGHT in batches[0]), None
        more = (image_weight(self.cfg, batches), *([state.step] if drops_out(self.cfg) else []))
        for number, batch in enumerate(batches):
            arguments = (sums, number == 0, state.trainable, frozen, batch, *more)
            self._settle(self.accumulate, *arguments)
            sums = self.accumulate(*arguments)
        self._settle(self.update, state, sums)
        state, metrics = self.update(state, sums)
        self._sums = sums
        return state, metrics

    def _settle(self, function: Any, *arguments: Any) -> None:
        """On a CPU, compile `function` before its first call with such arguments: its memory decides what is kept."""
        if jax.default_backend() != "cpu":
            return
        key = function, tuple(map(jnp.shape, jax.tree.leaves(arguments)))
        if key in self._settled:
            return
        self._settled.add(key)
        memory = function.lower(*arguments).compile().memory_analysis()  # the call that follows does not compile again
        own = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        host_memory.settle(own + memory.temp_size_in_bytes)
