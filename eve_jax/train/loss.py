"""Next-token loss at the positions that predict a target, and nowhere else (DESIGN section 4); the aligning loss."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from eve_jax.model.eve import Batch, Eve
from eve_jax.sharding import constrain, gather

VOCAB_CHUNK = 20_000  # most rows of the head whose logits exist at one time


def vocab_chunks(vocab: int) -> int:
    """Smallest number of equal chunks of at most VOCAB_CHUNK rows; 1 where `vocab` has no such divisor below 64."""
    first = -(-vocab // VOCAB_CHUNK)
    return next((n for n in range(first, 64) if vocab % n == 0), 1)


def target_nll(hidden: Float[Array, "M D"], head: Float[Array, "Q D"], labels: Int[Array, "M"]) -> Float[Array, "M"]:
    """-log softmax(hidden @ head.T)[labels], float32, with logits for one chunk of the vocabulary at a time.

    `hidden` is after the final norm. The backward pass recomputes each chunk's logits.
    """
    chunks = vocab_chunks(head.shape[0])
    size = head.shape[0] // chunks

    @jax.checkpoint
    def fold(carry: tuple[Array, Array, Array], chunk: tuple[Array, Array]) -> tuple[tuple[Array, Array, Array], None]:
        peak, total, picked = carry
        first, weight = chunk
        weight = gather(weight, ("vocab", "table"), hidden.dtype)
        logits = jnp.einsum("MD,QD->MQ", hidden, weight, preferred_element_type=jnp.float32)
        logits = constrain(logits, "batch", "vocab")
        new_peak = jnp.maximum(peak, jax.lax.stop_gradient(logits.max(axis=1)))
        total = total * jnp.exp(peak - new_peak) + jnp.exp(logits - new_peak[:, None]).sum(axis=1)
        at = jnp.clip(labels - first, 0, size - 1)
        here = (labels >= first) & (labels < first + size)
        picked = jnp.where(here, jnp.take_along_axis(logits, at[:, None], axis=1)[:, 0], picked)
        return (new_peak, total, picked), None

    start = (jnp.full(labels.shape, -jnp.inf), jnp.zeros(labels.shape), jnp.zeros(labels.shape))
    firsts = jnp.arange(chunks) * size
    (peak, total, picked), _ = jax.lax.scan(fold, start, (firsts, head.reshape(chunks, size, -1)))
    return peak + jnp.log(total) - picked


def target_losses(model: Eve, batch: Batch) -> Float[Array, "R T"]:
    """Negative log-likelihood (nats) of each target of a micro-batch, float32 [R, T] as `labels`.

    Entries whose `loss_weight` is 0 mean nothing.
    """
    return _nll(model, model.hidden(batch)[0], batch)


def _nll(model: Eve, hidden: Float[Array, "R L D"], batch: Batch) -> Float[Array, "R T"]:
    hidden = jnp.take_along_axis(hidden, batch["loss_idx"][..., None], axis=1)
    hidden = model.norm(hidden).reshape(-1, hidden.shape[-1])
    return target_nll(hidden, model.head_weight, batch["labels"].reshape(-1)).reshape(batch["labels"].shape)


def loss_sums(model: Eve, batch: Batch) -> tuple[Array, Array]:
    """Sum of the negative log-likelihoods (nats) of a micro-batch's targets, and their number, both float32 scalars."""
    weight = batch["loss_weight"]
    return jnp.sum(target_losses(model, batch) * weight), jnp.sum(weight)


class LossSums(NamedTuple):
    """Sums over a micro-batch, float32 scalars: the negative log-likelihoods (nats) of the targets and their number;
    the aligning losses of the images (1 - mean cosine of each) and their number, both 0 in a model that does not align.
    """

    nll: Array
    targets: Array
    align: Array
    images: Array


def training_sums(model: Eve, batch: Batch) -> LossSums:
    """`loss_sums` and, in a model that aligns, the aligning loss of SPEC section 6."""
    if not model.cfg.aligns or not batch["align_weight"].size:
        return LossSums(*loss_sums(model, batch), jnp.zeros(()), jnp.zeros(()))
    hidden, predicted, features = model.hidden_and_features(batch)
    weight, share = batch["loss_weight"], batch["align_weight"]
    nll = jnp.sum(_nll(model, hidden, batch) * weight)
    return LossSums(nll, jnp.sum(weight), jnp.sum(share * (1 - _cosine(predicted, features))), jnp.sum(share))


def _cosine(a: Float[Array, "R A C"], b: Float[Array, "R A C"]) -> Float[Array, "R A"]:
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    square = jnp.sum(a * a, axis=-1) * jnp.sum(b * b, axis=-1)
    return jnp.sum(a * b, axis=-1) * jax.lax.rsqrt(jnp.maximum(square, 1e-16))  # also of pads, whose features are 0
