"""The engine's compiled programs: prefill, the first token of an answer, and decoding.

Each takes the mesh that its arrays lie on, None for one device, where nothing below places anything. On a mesh, rows go
over its data and fsdp axes, heads over tensor; what the host reads is whole on every device, so on every process, too.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from eve_jax import sharding
from eve_jax.infer import choosing
from eve_jax.infer.cache import appended, placed
from eve_jax.infer.sampling import Rules
from eve_jax.model.config import ModelConfig
from eve_jax.model.decoder import HeldGroup, in_groups
from eve_jax.model.eve import Batch, Cache, Params, bind
from eve_jax.model.layer_cache import LayerCache, empty_cache

NONE = -1  # in place of a token after the end of an answer


class LastToken(NamedTuple):
    """The token that each row continues from, int32 [R], and what rotary positions count of it, int32 [R]."""

    token: Any
    number: Any


class Choice(NamedTuple):
    """How tokens are chosen (what `Sampling.arrays` gives), and what ends a row: a token of `stops`, int32 [N], or as
    many tokens as its own of `steps`, int32 [R]. seen: `choosing.choose`'s, without the token to continue from."""

    sampling: Rules | None
    stops: np.ndarray
    steps: np.ndarray
    seen: Any = None


@partial(jax.jit, static_argnums=0)
def choose(
    mesh: Mesh | None,
    logits: Float[Array, "R Q"],
    position: Int[Array, "R"],
    how: Rules | None,
    seen: Int[Array, "R Q"] | None = None,
) -> Int[Array, "R"]:
    """Each row's next token (`eve_jax.infer.choosing.choose`)."""
    with sharding.use(mesh):
        return sharding.constrain(choosing.choose(logits, position, how, seen), None)


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=5)
def prefill(
    cfg: ModelConfig,
    mesh: Mesh | None,
    first: bool,
    params: Params,
    batch: Batch,
    cache: Cache,
    start: Int[Array, "R"],
    lengths: Int[Array, "R"],
) -> tuple[Float[Array, "R Q"], Cache]:
    """Logits after each row's last token, and the cache; `first`: the cache holds nothing yet."""
    with sharding.use(mesh):
        model = bind(cfg, params)
        hidden, (cache,) = model.extend(batch, [cache], start, model.layer_groups(1), first)
        last = jnp.take_along_axis(batch["perm"], lengths[:, None] - 1, axis=1)
        logits = model.logits(jnp.take_along_axis(hidden, last[..., None], axis=1)[:, 0])
        return sharding.constrain(logits, None, None), placed(cache)


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=4)
def decode(
    cfg: ModelConfig,
    mesh: Mesh | None,
    size: int,
    params: Params,
    cache: Cache,
    length: Int[Array, "R"],
    known: LastToken,
    choice: Choice,
) -> tuple[Cache, Int[Array, "R size"], Int[Array, "R"], Int[Array, "R Q"] | None]:
    """Up to each row's own `choice.steps` tokens after the `known` one, which is chosen and not in the cache yet.

    Returns the cache, to which each row's tokens but the last are appended, the tokens (NONE after a row's end), the
    last one, and `choice.seen` with the others.

    Ends early when every row has stopped; `size` >= all steps, and the cache has room for `size` more.
    """
    token, number = known
    with sharding.use(mesh):
        model = bind(cfg, params)
        groups = decoding_groups(cfg)
        weights = model.layer_groups(groups)
        held: list[HeldGroup] = [partial(LayerCache, *part) for part in in_groups(cache, groups)]
        recent = in_groups(placed(empty_cache(cfg, token.shape[0], size)), groups)
        out = jnp.full((token.shape[0], size), NONE, jnp.int32)

        def wanted(carry: tuple) -> Array:
            return ~jnp.all(carry[3])

        def body(carry: tuple) -> tuple:
            i, recent, token, done, out, seen = carry
            seen = None if seen is None else choosing.counted(seen, token, ~done)
            hidden, recent = model.decode(token, held, recent, length, i, weights, number)
            chosen = choosing.choose(model.logits(hidden), length + i + 1, choice.sampling, seen)
            token = sharding.constrain(jnp.where(done, token, chosen), None)
            out = out.at[:, i].set(jnp.where(done, NONE, token))
            return i + 1, recent, token, done | jnp.isin(token, choice.stops) | (i + 1 >= choice.steps), out, seen

        done = jnp.isin(token, choice.stops) | (choice.steps <= 0)
        carry = jax.lax.while_loop(wanted, body, (jnp.int32(0), recent, token, done, out, choice.seen))
        keys, values = (jnp.concatenate(parts) for parts in zip(*carry[1], strict=True))
        tokens, last = (sharding.constrain(x, *[None] * x.ndim) for x in (carry[4], carry[2]))
        return placed(appended(cache, (keys, values), length)), tokens, last, carry[5]


def decoding_groups(cfg: ModelConfig) -> int:
    """Groups of layers in a decoding step: on CPU a scan would copy each layer's weights and cache for every token."""
    return cfg.num_layers if sharding.platform() == "cpu" else 1
