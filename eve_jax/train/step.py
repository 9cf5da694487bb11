"""One optimizer step over micro-batches of any row shapes: gradient sums, divided once by the step's targets."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from eve_jax import sharding
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Batch, Params, bind, logical_axes
from eve_jax.train.loss import LossSums, training_sums

Metrics = dict[str, jax.Array]


class TrainState(NamedTuple):
    """What an optimizer step changes: the number of steps taken, trainable parameters, their optimizer state."""

    step: jax.Array
    trainable: Params
    optimizer: Any


class Sums(NamedTuple):
    """Running sums over a step's micro-batches; `align`, `images` and `samples` are those of `LossSums`."""

    grads: Params
    loss: jax.Array
    targets: jax.Array
    align: jax.Array
    images: jax.Array
    samples: jax.Array | float = 0.0


def _taken(state: TrainState) -> jax.Array:
    """Updates made so far, which the learning rate follows: steps that were skipped are not among them."""
    counts = optax.tree_utils.tree_get_all_with_path(state.optimizer, "count")
    return counts[0][1] if counts else state.step


def _mean(total: jax.Array, count: jax.Array) -> jax.Array:
    """Return `total` / `count`, NaN where there is nothing to take the mean of."""
    return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan)


def gradient_sums(
    cfg: ModelConfig, trainable: Params, frozen: Params, batch: Batch, per_image: jax.Array | float = 0.0
) -> Sums:
    """Gradient of the summed loss of one micro-batch with respect to `trainable` alone.

    `per_image` is what the aligning loss of an image weighs in that sum, where a target weighs 1.
    """

    def loss(trainable: Params) -> tuple[jax.Array, LossSums]:
        sums = training_sums(bind(cfg, {**trainable, **frozen}), batch)
        return sums.nll + per_image * sums.align if cfg.aligns else sums.nll, sums

    (_, sums), grads = jax.value_and_grad(loss, has_aux=True)(trainable)
    return Sums(grads, *sums)


def image_weight(cfg: ModelConfig, batches: list[Batch]) -> jax.Array | float:
    """The `per_image` of `gradient_sums` with which a step's sum, divided by its targets, is the mean loss of the
    targets plus `align_weight` times that of the images; from the whole step's batches."""
    if not cfg.aligns:
        return 0.0
    targets, images = (sum(jnp.sum(b[name]) for b in batches) for name in ("loss_weight", "align_weight"))
    return cfg.align_weight * targets / jnp.maximum(images, 1)


def _zero_sums(state: TrainState) -> Sums:
    """Sums of nothing, placed as those of later steps, for which other programs would be compiled otherwise."""
    scalars = len(Sums._fields) - 1
    everywhere: Any = state.step.sharding
    where = Sums(jax.tree.map(lambda p: p.sharding, state.trainable), *[everywhere] * scalars)

    def zeros() -> Sums:
        grads = jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), state.trainable)
        return Sums(grads, *[jnp.zeros(())] * scalars)

    return jax.jit(zeros, out_shardings=where)()


class StepFunctions:
    """The compiled functions of a run: one gradient function a row shape, one update.

    A step of a single micro-batch is one fused function, which holds no sums between its two halves. A step whose loss
    or gradient is not finite, or that has no target, leaves parameters and optimizer as they were, also the optimizer's
    count of steps. A mean over nothing is NaN in the metrics: loss and gradient norm of a step without a target,
    align_loss of one without an image.
    """

    def __init__(
        self,
        cfg: ModelConfig,
        tx: optax.GradientTransformation,
        schedule: optax.Schedule,
        mesh: Mesh | None = None,
    ):
        def in_place(parameters: Params) -> Params:
            """Left to the compiler, they may come out spread otherwise than before: the next step is compiled anew."""
            if mesh is None:
                return parameters
            axes = logical_axes(cfg)
            where = {n: sharding.parameter_sharding(mesh, axes[n], p.shape) for n, p in parameters.items()}
            return {n: jax.lax.with_sharding_constraint(p, where[n]) for n, p in parameters.items()}

        def moments_in_place(optimizer: Any) -> Any:
            """The same for the trees of the optimizer that have the parameters' names."""
            return jax.tree.map(
                lambda part: in_place(part) if isinstance(part, dict) else part,
                optimizer,
                is_leaf=lambda part: isinstance(part, dict),
            )

        def update(state: TrainState, sums: Sums) -> tuple[TrainState, Metrics]:
            targets = jnp.maximum(sums.targets, 1)
            grads = jax.tree.map(lambda g: g / targets.astype(g.dtype), sums.grads)
            updates, opt = tx.update(grads, state.optimizer, state.trainable)
            metrics = {
                "loss": _mean(sums.loss, sums.targets),
                "lr": schedule(_taken(state)),
                "grad_norm": jnp.where(sums.targets > 0, optax.global_norm(grads), jnp.nan),
                "targets": sums.targets,
                "samples_with_targets": sums.samples,
            }
            if cfg.aligns:
                metrics["align_loss"] = _mean(sums.align, sums.images)
            finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
            new = optax.apply_updates(state.trainable, updates), opt
            kept = jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, (state.trainable, state.optimizer))
            return TrainState(state.step + 1, in_place(kept[0]), moments_in_place(kept[1])), metrics

        def fused(state: TrainState, frozen: Params, batch: Batch) -> tuple[TrainState, Metrics]:
            with sharding.use(mesh):
                per_image = image_weight(cfg, [batch])
                return update(state, gradient_sums(cfg, state.trainable, frozen, batch, per_image))

        def accumulate(
            sums: Sums, trainable: Params, frozen: Params, batch: Batch, per_image: jax.Array | float = 0.0
        ) -> Sums:
            with sharding.use(mesh):
                return jax.tree.map(jnp.add, sums, gradient_sums(cfg, trainable, frozen, batch, per_image))

        def update_and_clear(state: TrainState, sums: Sums) -> tuple[TrainState, Metrics, Sums]:
            return *update(state, sums), jax.tree.map(jnp.zeros_like, sums)._replace(grads=zeros_like_parameters(sums))

        def zeros_like_parameters(sums: Sums) -> Params:
            """Zeros follow from nothing: left to the compiler, they would lie whole on every device."""
            return in_place(jax.tree.map(jnp.zeros_like, sums.grads))

        self.cfg = cfg
        self.fused = jax.jit(fused, donate_argnums=0)
        self.accumulate = jax.jit(accumulate, donate_argnums=0)
        self.update = jax.jit(update_and_clear, donate_argnums=(0, 1))
        self._sums: Sums | None = None

    def __call__(self, state: TrainState, frozen: Params, batches: list[Batch]) -> tuple[TrainState, Metrics]:
        """One step; `state` is donated. Metrics stay on the device."""
        if len(batches) == 1:
            return self.fused(state, frozen, batches[0])
        sums, self._sums = self._sums or _zero_sums(state), None
        per_image = image_weight(self.cfg, batches)
        for batch in batches:
            sums = self.accumulate(sums, state.trainable, frozen, batch, per_image)
        state, metrics, self._sums = self.update(state, sums)
        return state, metrics
