"""Generation with a key/value cache: prompts of any mixture of images and text, in batches.

A prompt is prefilled in a row of its own with the split layout of training (a bucketed shape, so that few programs are
compiled); decoded tokens are text, so a decoding step reads the text weights only.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from eve_jax.data.rows import Sample, lay_out
from eve_jax.data.shapes import ROW_MULTIPLE, RowShape
from eve_jax.model.config import PATCH_BYTES, ModelConfig
from eve_jax.model.eve import Cache, Params, bind, empty_cache


@dataclass(frozen=True)
class Prompt:
    """Token ids with IMAGE_ID for each image, and the images' patches: uint8 [h * w, 3072] with their (h, w)."""

    ids: np.ndarray
    patches: Sequence[np.ndarray] = ()
    grids: Sequence[tuple[int, int]] = ()

    @property
    def sample(self) -> Sample:
        """The prompt as a sample without targets."""
        return Sample(np.asarray(self.ids, np.int32), np.full(len(self.ids), -100, np.int32), list(self.grids))

    @property
    def need(self) -> tuple[int, int, int]:
        """Patches, specials and text tokens of the prompt."""
        patches = sum(h * w for h, w in self.grids)
        specials = sum(h + 1 for h, _ in self.grids)
        return patches, specials, len(self.ids) - len(self.grids)


@dataclass
class Session:
    """Rows whose caches hold `length` [R] tokens each; `token` [R, 1] is chosen and not yet in the cache."""

    cache: Cache
    length: Array
    token: Array
    done: Array
    capacity: int


def _round_up(n: int, step: int) -> int:
    return -(-n // step) * step


def bucket(need: tuple[int, int, int]) -> RowShape:
    """A row shape that holds `need`: sizes in steps of an eighth of their magnitude, so that prompts share shapes."""

    def roomy(n: int) -> int:
        return _round_up(n, max(16, 2 ** max((n - 1).bit_length() - 3, 0))) if n else 0

    patches, specials, text = map(roomy, need)
    return RowShape(patches, specials, _round_up(patches + specials + text, ROW_MULTIPLE) - patches - specials)


def pack_prompts(prompts: Sequence[Prompt], shape: RowShape) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Batch arrays with one prompt a row, and the prompts' lengths [R]."""
    rows = [lay_out([p.sample], shape) for p in prompts]
    batch = {key: np.stack([r[key] for r in rows]) for key in rows[0]}
    patches = np.zeros((len(prompts), shape.patches, PATCH_BYTES), np.uint8)
    for row, prompt in zip(patches, prompts, strict=True):
        if prompt.patches:
            every = np.concatenate(prompt.patches)
            row[: len(every)] = every
    return {**batch, "patches": patches}, np.array([sum(p.need) for p in prompts], np.int32)


class Engine:
    """Greedy or sampled generation by one set of parameters."""

    def __init__(self, cfg: ModelConfig, params: Params):
        self.cfg, self.params = cfg, params
        self._prefill = jax.jit(functools.partial(_prefill, cfg), donate_argnums=2)
        self._decode = jax.jit(functools.partial(_decode, cfg), static_argnums=(3,), donate_argnums=(1,))

    def start(self, prompts: Sequence[Prompt], room: int) -> Session:
        """Prefill `prompts`, one a row, leaving room for `room` more tokens."""
        shape = bucket(tuple(np.max([p.need for p in prompts], axis=0).tolist()))
        batch, lengths = pack_prompts(prompts, shape)
        capacity = _round_up(shape.length + room, ROW_MULTIPLE)
        cache = empty_cache(self.cfg, len(prompts), capacity)
        start = jnp.zeros(len(prompts), jnp.int32)
        logits, cache = self._prefill(self.params, batch, cache, start, lengths)
        token = jnp.argmax(logits, axis=-1).astype(jnp.int32)[:, None]
        return Session(cache, jnp.asarray(lengths), token, jnp.zeros(len(prompts), bool), capacity)

    def generate(self, prompts: Sequence[Prompt], max_new_tokens: int, stop_ids: Sequence[int]) -> list[list[int]]:
        """Greedy tokens of each prompt, the stop token left out; each as if the prompt were alone."""
        session = self.start(prompts, max_new_tokens)
        stops = np.array(sorted(stop_ids), np.int32)
        tokens = np.asarray(self._decode(self.params, session.cache, _decoding(session, stops), max_new_tokens)[1])
        return [_until(row, stop_ids) for row in tokens.tolist()]

    def stream(self, prompt: Prompt, max_new_tokens: int, stop_ids: Sequence[int]) -> Iterator[int]:
        """Greedy tokens of one prompt as they are made, the stop token left out."""
        session = self.start([prompt], max_new_tokens)
        state, cache = _decoding(session, np.array(sorted(stop_ids), np.int32)), session.cache
        for _ in range(max_new_tokens):
            (cache, state), tokens = self._decode(self.params, cache, state, 1)
            token = int(tokens[0, 0])
            if token in stop_ids:
                return
            yield token


def _until(tokens: list[int], stop_ids: Sequence[int]) -> list[int]:
    end = next((i for i, t in enumerate(tokens) if t in stop_ids), len(tokens))
    return tokens[:end]


def _decoding(session: Session, stops: np.ndarray) -> tuple[Array, Array, Array, Array]:
    return session.length, session.token, session.done, jnp.asarray(stops)


def _prefill(
    cfg: ModelConfig, params: Params, batch: dict[str, Array], cache: Cache, start: Array, lengths: Array
) -> tuple[Array, Cache]:
    """Logits [R, Q] after each row's last token, and the cache."""
    model = bind(cfg, params)
    hidden, cache = model.extend(batch, cache, start)
    last = jnp.take_along_axis(batch["perm"], lengths[:, None] - 1, axis=1)
    return model.logits(jnp.take_along_axis(hidden, last[..., None], axis=1)[:, 0]), cache


def _text_step(token: Array) -> dict[str, Array]:
    """Batch arrays of one text token a row."""
    rows = token.shape[0]
    zero = jnp.zeros((rows, 1), jnp.int32)
    return {
        "patches": jnp.zeros((rows, 0, PATCH_BYTES), jnp.uint8),
        "special_ids": jnp.zeros((rows, 0), jnp.int32),
        "text_ids": token,
        "position": zero,
        "perm": zero,
        "inv": zero,
    }


def _decode(
    cfg: ModelConfig, params: Params, cache: Cache, state: tuple[Array, Array, Array, Array], steps: int
) -> tuple[tuple[Cache, tuple[Array, Array, Array, Array]], Array]:
    """Emit `steps` tokens a row ([R, steps]; after a stop token, the stop token again), ending early when all stop."""
    model = bind(cfg, params)
    length, token, done, stops = state
    out = jnp.broadcast_to(stops[0] if stops.size else 0, (token.shape[0], steps)).astype(jnp.int32)

    def wanted(carry: tuple) -> Array:
        return (carry[0] < steps) & ~jnp.all(carry[4])

    def body(carry: tuple) -> tuple:
        i, cache, length, token, done, out = carry
        out = jnp.where(jnp.arange(steps) == i, jnp.where(done[:, None], out, token), out)
        done = done | jnp.isin(token[:, 0], stops)
        hidden, cache = model.extend(_text_step(token), cache, length)
        token = jnp.argmax(model.logits(hidden[:, 0]), axis=-1).astype(jnp.int32)[:, None]
        return i + 1, cache, length + 1, token, done, out

    carry = jax.lax.while_loop(wanted, body, (jnp.int32(0), cache, length, token, done, out))
    return (carry[1], (carry[2], carry[3], carry[4], stops)), carry[5]
