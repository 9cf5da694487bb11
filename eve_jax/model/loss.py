"""Next-token loss at the positions that predict a target, and nowhere else (docs/design.md#loss-at-the-targets).

Logits exist in parts, in one of two ways that agree to rounding. By chunks of the vocabulary, the head is gathered,
and its gradient reduced, a chunk at a time; the backward pass computes the logits again, four products for the three of
the plain formula. By chunks of the targets, a softmax is whole at once, so that the gradient is made next to the loss
with three products; but the head and its gradient must be at hand, whole, for every chunk: the way on one processor.
EVEv1's aligning loss is added next to it.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from eve_jax.model.eve import Batch, Eve
from eve_jax.model.logit_cap import capped, slope
from eve_jax.model.quantized import gathered_table
from eve_jax.model.v1.align import aligned_with
from eve_jax.sharding import constrain, current, one_cpu, parameter_sharding

VOCAB_CHUNK = 10_240  # most rows of the head whose logits exist at one time
TILE = 128
HEAD = ("vocab", "table")  # logical axes of the head
LOGITS = 1 << 23  # as many are made at a time where targets are chunked, but for at least TARGETS targets
TARGETS = 128
_gathered_head = partial(gathered_table, axes=HEAD)
TARGET_WEIGHT = "target_weight"  # in a batch whose targets do not count alike (eve_jax.train.sample_weights)


def chunk_rows(vocab: int) -> int:
    """Rows of a head of `vocab` that a chunk has, at most VOCAB_CHUNK: of equal chunks where few divide it.

    Elsewhere the last chunk begins before the end of the one before it, and rows are a multiple of TILE.
    """
    fewest = -(-vocab // VOCAB_CHUNK)
    even = next((n for n in range(fewest, 2 * fewest + 1) if vocab % n == 0), 0)
    return vocab // even if even else min(-(-vocab // (fewest * TILE)) * TILE, VOCAB_CHUNK)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def target_nll(
    hidden: Float[Array, "M D"], head: Float[Array, "Q D"], labels: Int[Array, "M"], cap: float = 0.0
) -> Float[Array, "M"]:
    """-log softmax(hidden @ head.T)[labels], float32, with logits for one chunk of the vocabulary at a time.

    `hidden` is after the final norm; logits are within `cap`, where that is not 0. The backward pass computes each
    chunk's logits again.
    """
    return _forward(hidden, head, labels, cap)[0]


class Chunk(NamedTuple):
    """A chunk of the vocabulary: its first row, and the first one that no chunk before it has."""

    start: Array
    fresh: Array


def _chunks(vocab: int) -> tuple[int, Chunk]:
    """Rows of a chunk, and all chunks, each field [C]."""
    size = chunk_rows(vocab)
    fresh = jnp.arange(0, vocab, size)
    return size, Chunk(jnp.minimum(fresh, vocab - size), fresh)


def _stored(x: Array) -> Array:
    """`x`, rows of the head or of its gradient, placed as the head is stored."""
    mesh = current()
    return x if mesh is None else jax.lax.with_sharding_constraint(x, parameter_sharding(mesh, HEAD, x.shape))


def _rows(head: Array, chunk: Chunk, size: int) -> Array:
    # Stored as the head is, else the compiler gathers all of it.
    return jax.tree.map(lambda part: _stored(jax.lax.dynamic_slice_in_dim(part, chunk.start, size)), head)


def _only_fresh(x: Array, chunk: Chunk, vocab: int, other: float) -> Array:
    """x [M, Q/C] of a chunk with `other` in the columns that a chunk before has, too."""
    if vocab % x.shape[1] == 0:
        return x
    return jnp.where(chunk.start + jnp.arange(x.shape[1]) >= chunk.fresh, x, other)


def _logits(hidden: Array, weight: Array, cap: float) -> Array:
    logits = jnp.einsum("MD,QD->MQ", hidden, weight, preferred_element_type=jnp.float32)
    return capped(constrain(logits, "batch", "vocab"), cap)


def _forward(hidden: Array, head: Array, labels: Array, cap: float) -> tuple[Array, tuple[Array, ...]]:
    vocab = head.shape[0]
    size, chunks = _chunks(vocab)

    def fold(carry: tuple[Array, Array, Array], chunk: Chunk) -> tuple[tuple[Array, Array, Array], None]:
        peak, total, picked = carry
        logits = _logits(hidden, _gathered_head(_rows(head, chunk, size), hidden.dtype), cap)
        logits = _only_fresh(logits, chunk, vocab, -jnp.inf)
        new_peak = jnp.maximum(peak, logits.max(axis=1))
        total = total * jnp.exp(peak - new_peak) + jnp.exp(logits - new_peak[:, None]).sum(axis=1)
        at = jnp.clip(labels - chunk.start, 0, size - 1)
        here = (labels >= chunk.fresh) & (labels < chunk.start + size)
        picked = jnp.where(here, jnp.take_along_axis(logits, at[:, None], axis=1)[:, 0], picked)
        return (new_peak, total, picked), None

    start = (jnp.full(labels.shape, -jnp.inf), jnp.zeros(labels.shape), jnp.zeros(labels.shape))
    (peak, total, picked), _ = jax.lax.scan(fold, start, chunks)
    log_total = peak + jnp.log(total)
    return log_total - picked, (hidden, head, labels, log_total)


def _backward(cap: float, saved: tuple[Array, ...], g: Float[Array, "M"]) -> tuple[Array, Array, None]:
    """d nll / d logits = softmax - one-hot, a chunk at a time; sums over chunks in float32."""
    hidden, head, labels, log_total = saved
    vocab = head.shape[0]
    size, chunks = _chunks(vocab)

    def fold(carry: tuple[Array, Array], chunk: Chunk) -> tuple[tuple[Array, Array], None]:
        d_hidden, d_head = carry
        weight, to_stored = jax.vjp(lambda w: _gathered_head(w, hidden.dtype), _rows(head, chunk, size))
        hit = (labels - chunk.start)[:, None] == jnp.arange(size)
        logits = _logits(hidden, weight, cap)
        d_logits = (jnp.exp(logits - log_total[:, None]) - hit) * g[:, None] * slope(logits, cap)
        d_logits = _only_fresh(d_logits, chunk, vocab, 0).astype(hidden.dtype)
        d_hidden += jnp.einsum("MQ,QD->MD", d_logits, weight, preferred_element_type=jnp.float32)
        (d_stored,) = to_stored(jnp.einsum("MQ,MD->QD", d_logits, hidden))
        d_stored += _rows(d_head, chunk, size)
        d_head = jax.lax.dynamic_update_slice_in_dim(d_head, d_stored, chunk.start, axis=0)
        return (constrain(d_hidden, "batch", None), _stored(d_head)), None

    start = (jnp.zeros(hidden.shape, jnp.float32), _stored(jnp.zeros_like(head)))
    (d_hidden, d_head), _ = jax.lax.scan(fold, start, chunks)
    return d_hidden.astype(hidden.dtype), d_head, None


target_nll.defvjp(_forward, _backward)


def by_targets() -> bool:
    """Whether a function traced here takes its loss by chunks of targets."""
    return one_cpu()


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def nll_sum(
    hidden: Float[Array, "M D"],
    head: Float[Array, "Q D"],
    labels: Int[Array, "M"],
    weight: Float[Array, "M"],
    cap: float = 0.0,
) -> Float[Array, ""]:
    """Sum of `target_nll` times `weight` (which has no gradient), by chunks of targets where gradients are taken."""
    return jnp.sum(target_nll(hidden, head, labels, cap) * weight)


def _chunk_of_targets(targets: int, vocab: int) -> int:
    """Return how many of `targets` are taken at a time where logits of `vocab` exist for each."""
    chunks = -(-targets // max(LOGITS // vocab, TARGETS))
    return -(-targets // chunks)


def _split(x: Array, size: int) -> Array:
    """Return [M, ...] as [chunks, size, ...], filled up with zeros."""
    chunks = -(-x.shape[0] // size)
    return jnp.pad(x, ((0, chunks * size - x.shape[0]), *((0, 0),) * (x.ndim - 1))).reshape(chunks, size, *x.shape[1:])


def _sum_forward(
    hidden: Array, head: Array, labels: Array, weight: Array, cap: float
) -> tuple[Array, tuple[Array, Array]]:
    """The sum, and its gradients of `hidden` and `head`."""
    targets, vocab = hidden.shape[0], head.shape[0]
    matrix = head.astype(hidden.dtype)
    size = _chunk_of_targets(targets, vocab)

    def fold(carry: tuple[Array, Array], chunk: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], Array]:
        total, d_head = carry
        hidden, labels, weight = chunk
        logits = capped(jnp.einsum("MD,QD->MQ", hidden, matrix, preferred_element_type=jnp.float32), cap)
        peak = logits.max(axis=1, keepdims=True)
        exps = jnp.exp(logits - peak)
        norm = exps.sum(axis=1, keepdims=True)
        nll = (peak + jnp.log(norm) - jnp.take_along_axis(logits, labels[:, None], axis=1))[:, 0]
        d_logits = (exps * (weight[:, None] / norm)).at[jnp.arange(size), labels].add(-weight)
        d_logits = (d_logits * slope(logits, cap)).astype(hidden.dtype)
        d_head += jnp.einsum("MQ,MD->QD", d_logits, hidden, preferred_element_type=jnp.float32)
        return (total + jnp.sum(nll * weight), d_head), jnp.einsum("MQ,QD->MD", d_logits, matrix)

    start = (jnp.zeros(()), jnp.zeros(head.shape, jnp.float32))
    chunks = (_split(hidden, size), _split(labels, size), _split(weight, size))
    (total, d_head), d_hidden = jax.lax.scan(fold, start, chunks)
    return total, (d_hidden.reshape(-1, hidden.shape[1])[:targets], d_head.astype(head.dtype))


def _sum_backward(cap: float, gradients: tuple[Array, Array], g: Float[Array, ""]) -> tuple[Array, Array, None, None]:
    d_hidden, d_head = gradients
    return d_hidden * g.astype(d_hidden.dtype), d_head * g.astype(d_head.dtype), None, None


nll_sum.defvjp(_sum_forward, _sum_backward)


@jax.custom_vjp
def pick(hidden: Float[Array, "R L D"], idx: Int[Array, "R T"], real: Bool[Array, "R T"]) -> Float[Array, "R T D"]:
    """hidden[r, idx[r, t]]; the backward pass gathers, too, where autodiff would scatter.

    `real` entries of a row have different `idx`; the others pass no gradient on.
    """
    return jnp.take_along_axis(hidden, idx[..., None], axis=1)


def _pick_backward(saved: tuple[Array, Array, int], g: Float[Array, "R T D"]) -> tuple[Array, None, None]:
    idx, real, length = saved
    slots = jnp.arange(length)[None, :, None]
    hits = (idx[:, None] == slots) & real[:, None]  # only ever reduced
    at = jnp.max(jnp.where(hits, jnp.arange(idx.shape[1]) + 1, 0), axis=2)[..., None]  # 0: predicts nothing
    return jnp.where(at > 0, jnp.take_along_axis(g, jnp.maximum(at - 1, 0), axis=1), 0), None, None


pick.defvjp(lambda hidden, idx, real: (pick(hidden, idx, real), (idx, real, hidden.shape[1])), _pick_backward)


def _at_targets(model: Eve, hidden: Float[Array, "R L D"], batch: Batch) -> Float[Array, "M D"]:
    """Normed hidden states that predict the targets, M = R T."""
    hidden = pick(hidden, batch["loss_idx"], batch["loss_weight"] > 0)
    return model.norm(hidden).reshape(-1, hidden.shape[-1])


def target_losses(model: Eve, batch: Batch) -> Float[Array, "R T"]:
    """Negative log-likelihood (nats) of each target of a micro-batch, float32 [R, T] as `labels`.

    Entries whose `loss_weight` is 0 mean nothing.
    """
    labels, hidden = batch["labels"], model.hidden(batch)[0]
    at_targets, head, flat = _at_targets(model, hidden, batch), model.head_weight, labels.reshape(-1)
    cap = model.cfg.logit_cap
    if not by_targets():
        return target_nll(at_targets, head, flat, cap).reshape(labels.shape)
    # As in training there: logits of all targets, even of a chunk of the vocabulary, may be more than the memory holds.
    size = _chunk_of_targets(flat.shape[0], min(head.shape[0], VOCAB_CHUNK))
    chunks = (_split(at_targets, size), _split(flat, size))
    nll = jax.lax.map(lambda chunk: target_nll(chunk[0], head, chunk[1], cap), chunks)
    return nll.reshape(-1)[: flat.shape[0]].reshape(labels.shape)


def loss_sums(model: Eve, batch: Batch) -> tuple[Array, Array]:
    """Sum of the negative log-likelihoods (nats) of a micro-batch's targets, and their number, both float32 scalars.

    In a batch with TARGET_WEIGHT, each is multiplied with its weight.
    """
    return _nll_sums(model, model.hidden(batch)[0], batch)


def _nll_sums(model: Eve, hidden: Float[Array, "R L D"], batch: Batch) -> tuple[Array, Array]:
    counted, labels = batch["loss_weight"].reshape(-1), batch["labels"].reshape(-1)
    weight = batch[TARGET_WEIGHT].reshape(-1) if TARGET_WEIGHT in batch else counted
    at_targets, cap = _at_targets(model, hidden, batch), model.cfg.logit_cap
    if by_targets():
        return nll_sum(at_targets, model.head_weight, labels, weight, cap), jnp.sum(counted)
    return jnp.sum(target_nll(at_targets, model.head_weight, labels, cap) * weight), jnp.sum(counted)


class LossSums(NamedTuple):
    """Sums over a micro-batch, float32 scalars: the negative log-likelihoods (nats) of the targets and their number;
    the aligning losses of the images (1 - mean cosine of each) and their number, both 0 in a model that does not align;
    the number of samples that have a target; the weights of the targets, None where these weigh 1.
    """

    nll: Array
    targets: Array
    align: Array
    images: Array
    samples: Array
    weight: Array | None = None


def samples_with_targets(batch: Batch) -> Float[Array, ""]:
    """Return the number of samples of a micro-batch that have a target whose loss counts."""
    segment = jnp.take_along_axis(batch["segment"], batch["loss_idx"], axis=1)
    first = jnp.diff(segment, axis=1, prepend=0) != 0  # targets of a sample lie together, and all weigh the same
    return jnp.sum(first & (batch["loss_weight"] > 0), dtype=jnp.float32)


def training_sums(model: Eve, batch: Batch) -> LossSums:
    """`loss_sums` and, in a model that aligns, the aligning loss (docs/model.md#patch-aligning-layer)."""
    samples = samples_with_targets(batch)
    weight = jnp.sum(batch[TARGET_WEIGHT]) if TARGET_WEIGHT in batch else None
    if not model.cfg.aligns or not batch["align_weight"].size:
        return LossSums(*loss_sums(model, batch), jnp.zeros(()), jnp.zeros(()), samples, weight)
    hidden, predicted, features = model.hidden_and_features(batch)
    features, share = aligned_with(model.cfg, features, batch)
    align = jnp.sum(share * (1 - _cosine(predicted, features)))
    return LossSums(*_nll_sums(model, hidden, batch), align, jnp.sum(share), samples, weight)


def _cosine(a: Float[Array, "R A C"], b: Float[Array, "R A C"]) -> Float[Array, "R A"]:
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    square = jnp.sum(a * a, axis=-1) * jnp.sum(b * b, axis=-1)
    return jnp.sum(a * b, axis=-1) * jax.lax.rsqrt(jnp.maximum(square, 1e-16))  # also of pads, whose features are 0
