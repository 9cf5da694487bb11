"""Losses of answers, and how much of their attention goes to image tokens, layer by layer.

Dimensions: R rows, L slots, T targets, N heads, H head size.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from eve_jax.errors import Field, FieldError
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Batch, Params, bind
from eve_jax.model.kind_sights import KindSights
from eve_jax.model.layers import gathered
from eve_jax.model.loss import target_nll
from eve_jax.model.permute import permute
from eve_jax.model.routing import MaskedRows, Routed
from eve_jax.model.sight import Kind, Sight


class Watched(NamedTuple):
    """Rows whose attention layers give, in place of a cache, the share that each query has on image tokens.

    queries: causal places of the tokens that are watched. segment, image: of each token in causal order, its sample and
    whether it is an image's.
    """

    rows: MaskedRows
    queries: Int[Array, "R T"]
    segment: Int[Array, "R L"]
    image: Bool[Array, "R L"]

    @property
    def sight(self) -> Sight | KindSights:
        """What layers see."""
        return self.rows.sight

    def route(self, part: Routed, x: Array) -> Array:
        """As the rows."""
        return self.rows.route(part, x)

    def attend(self, q: Array, k: Array, v: Array, cache: None, kind: Kind) -> tuple[Array, Float[Array, "R T"]]:
        """The rows' attention, and for each query the share of image tokens, the mean over heads."""
        out, _ = self.rows.attend(q, k, v, None, kind)
        q, k = self.sight.turned(kind, q, k)
        q = jnp.take_along_axis(q, self.queries[..., None, None], axis=1)
        rows, count, heads, size = q.shape
        q = q.reshape(rows, count, k.shape[2], heads // k.shape[2], size)
        scores = jnp.einsum("RTKGH,RLKH->RKGTL", q, k, preferred_element_type=jnp.float32) * size**-0.5
        order = jnp.arange(k.shape[1])
        own = jnp.take_along_axis(self.segment, self.queries, axis=1)
        seen = (order <= self.queries[..., None]) & (self.segment[:, None] == own[..., None])
        first = self.sight.first(kind, self.queries)
        if first is not None:
            seen &= order >= first[..., None]
        weights = jax.nn.softmax(jnp.where(seen[:, None, None], scores, jnp.finfo(jnp.float32).min), axis=-1)
        share = jnp.where(self.image[:, None, None, None], weights, 0).sum(axis=-1)
        return out, share.mean(axis=(1, 2))


@partial(jax.jit, static_argnums=0)
def watch(cfg: ModelConfig, params: Params, batch: Batch) -> tuple[Float[Array, "R T"], Float[Array, "layers R T"]]:
    """Negative log-likelihood (nats) of each target, and the share of attention on image tokens of what predicts it.

    Entries whose `loss_weight` is 0 mean nothing. Computed with masked routing, token by token in causal order.
    """
    if cfg.in_turns:
        field = Field("model.wide_head_dim")
        raise FieldError(field, f"={cfg.wide_head_dim}: attention is shown of layers of one size alone")
    model = bind(cfg, params)
    vision, text = model.embed_slots(batch)
    rows = MaskedRows.of(cfg, batch, vision.shape[1])
    queries = jnp.take_along_axis(batch["inv"], batch["loss_idx"], axis=1)
    segment = permute(batch["segment"], batch["perm"], batch["inv"])
    watched: Any = Watched(rows, queries, segment, rows.is_vision & (segment > 0))
    x, shares, first = rows.enter(vision, text), [], 0
    for (stack,) in model.stacks:
        graph, weights = nnx.split(stack)
        count = jax.tree.leaves(weights)[0].shape[0]
        kinds = jax.tree.map(lambda kind, at=slice(first, first + count): kind[at], rows.sight.layers())

        def body(x: Array, own: tuple[nnx.State, Kind], graph: nnx.GraphDef = graph) -> tuple[Array, Array]:
            return nnx.merge(graph, gathered(own[0], x.dtype))(x, watched, own[1])

        x, share = jax.lax.scan(body, x, (weights, kinds))
        shares.append(share)
        first += count
    hidden = model.norm(jnp.take_along_axis(rows.leave(x), batch["loss_idx"][..., None], axis=1))
    labels = batch["labels"]
    nll = target_nll(hidden.reshape(-1, hidden.shape[-1]), model.head_weight, labels.reshape(-1), cfg.logit_cap)
    return nll.reshape(labels.shape), jnp.concatenate(shares)
