"""Generation with a key/value cache: prompts of any mixture of images and text, in batches, turn after turn.

A prompt is prefilled in a row of its own with the split layout of training (a bucketed shape, so that few programs are
compiled); decoded tokens are text, so a decoding step reads the text weights only. Everything here is token ids.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from eve_jax import sharding
from eve_jax.batch import RowShape, batch_arrays, zeros
from eve_jax.data.image.rule import PATCH_BYTES
from eve_jax.data.rows.build import Sample, lay_out
from eve_jax.data.text.encode import IGNORE
from eve_jax.infer.cache import Session, appended, bucket, roomy, round_up
from eve_jax.infer.finite import BROKEN, NotFinite, cause
from eve_jax.infer.sampling import GREEDY, Sampling, choose
from eve_jax.model.config import ModelConfig
from eve_jax.model.decoder import in_groups
from eve_jax.model.eve import Batch, Cache, Params, bind, empty_cache

NONE = -1  # in place of a token after the end of an answer


@dataclass(frozen=True)
class Prompt:
    """Token ids with IMAGE_ID for each image, and the images' patches: uint8 [h * w, B] with their (h, w)."""

    ids: np.ndarray
    patches: Sequence[np.ndarray] = ()
    grids: Sequence[tuple[int, int]] = ()

    def after(self, ids: Sequence[int]) -> "Prompt":
        """The prompt with text tokens `ids` before it."""
        return replace(self, ids=np.concatenate([np.asarray(ids, np.int32), self.ids])) if len(ids) else self

    @property
    def sample(self) -> Sample:
        """The prompt as a sample without targets."""
        return Sample(np.asarray(self.ids, np.int32), np.full(len(self.ids), IGNORE, np.int32), list(self.grids))

    @property
    def need(self) -> tuple[int, int, int]:
        """Patches, specials and text tokens of the prompt."""
        patches = sum(h * w for h, w in self.grids)
        specials = sum(h + 1 for h, _ in self.grids)
        return patches, specials, len(self.ids) - len(self.grids)

    def __len__(self) -> int:
        """Tokens of the prompt, image tokens included."""
        return sum(self.need)


def pack_prompts(
    prompts: Sequence[Prompt], shape: RowShape, patch_bytes: int = PATCH_BYTES
) -> tuple[Batch, np.ndarray]:
    """Batch arrays with one prompt a row, and the prompts' lengths int32 [R]; a patch has `patch_bytes` bytes."""
    batch = zeros(batch_arrays(len(prompts), shape, patch_bytes))
    for row, prompt in enumerate(prompts):
        for name, values in lay_out([prompt.sample], shape).items():
            batch[name][row] = values
        if prompt.patches:
            every = np.concatenate(prompt.patches)
            batch["patches"][row, : len(every)] = every
    return batch, np.array([len(p) for p in prompts], np.int32)


class Engine:
    """Greedy or sampled generation by one set of parameters.

    `on_compile` is called before a program runs for the first time, which may take long.
    """

    def __init__(self, cfg: ModelConfig, params: Params):
        self.cfg, self.params = cfg, params
        self.on_compile: Callable[[], None] = lambda: None
        self._ran: set[tuple] = set()

    def session(self, rows: int = 1) -> Session:
        """A session of `rows` rows without tokens."""
        return Session.empty(self.cfg, rows)

    def prefill(self, session: Session, prompts: Sequence[Prompt], room: int = 0) -> Float[Array, "R Q"]:
        """Append each row's prompt to `session`, leave room for `room` more tokens; logits after its last token."""
        prompts = [p.after(ids) for p, ids in zip(prompts, session.pending, strict=True)]
        shape = bucket(tuple(np.max([p.need for p in prompts], axis=0).tolist()))
        batch, lengths = pack_prompts(prompts, shape, self.cfg.patch_bytes)
        start = session.length
        session.reserve(max(int(start.max()) + shape.length, int((start + lengths).max()) + room))
        first = not start.any()
        self._announce("prefill", len(prompts), shape, session.capacity, first)
        logits, session.cache = _prefill(self.cfg, first, self.params, batch, session.cache, start, lengths)
        session.length = start + lengths
        session.pending = [[] for _ in prompts]
        return logits

    def reply(
        self,
        session: Session,
        prompts: Sequence[Prompt],
        max_new_tokens: int,
        stop_ids: Sequence[int],
        sampling: Sampling = GREEDY,
    ) -> list[list[int]]:
        """Append each row's prompt and its answer to `session`; the answers, each as if the row were alone.

        An answer ends before a token of `stop_ids`, which is not appended, or with `max_new_tokens`. Raises `NotFinite`
        when logits are not finite; the session is then what it was.
        """
        before = session.mark()
        run = Reply(self, session, max_new_tokens, stop_ids, sampling)
        first = run.start(prompts)
        rest = run.decode(first, max_new_tokens - 1)[0] if max_new_tokens > 1 else first[:, None]
        tokens = np.concatenate([np.asarray(first)[:, None], np.asarray(rest)], axis=1)[:, :max_new_tokens]
        if broken := np.flatnonzero((tokens == BROKEN).any(axis=1)).tolist():
            session.rewind(before)
            raise self._not_finite(broken)
        answers = [_until(row, stop_ids) for row in tokens.tolist()]
        cut = [len(ids) == max_new_tokens for ids in answers]
        session.length = session.length + np.array([len(a) - c for a, c in zip(answers, cut, strict=True)], np.int32)
        session.pending = [ids[-1:] if c else [] for ids, c in zip(answers, cut, strict=True)]
        return answers

    def generate(
        self, prompts: Sequence[Prompt], max_new_tokens: int, stop_ids: Sequence[int], sampling: Sampling = GREEDY
    ) -> list[list[int]]:
        """The answer to each prompt, without the stop token, as if the prompt were alone."""
        return self.reply(self.session(len(prompts)), prompts, max_new_tokens, stop_ids, sampling)

    def stream(
        self,
        prompt: Prompt,
        max_new_tokens: int,
        stop_ids: Sequence[int],
        sampling: Sampling = GREEDY,
        session: Session | None = None,
    ) -> Iterator[int]:
        """The tokens of `reply` to one prompt as they are made; `session` has one row and is right at every token.

        Raises `NotFinite` after the tokens before logits that are not finite; the session is then what it was.
        """
        session = session or self.session()
        before = session.mark()
        run = Reply(self, session, max_new_tokens, stop_ids, sampling, at_a_time=1)
        token = run.start([prompt])
        for left in reversed(range(max_new_tokens)):
            value = int(np.asarray(token)[0])
            if value == BROKEN:
                session.rewind(before)
                raise self._not_finite([0])
            if value in stop_ids:
                return
            if left:  # the next one is under way while the caller has this one
                token = run.decode(token, 1)[1]
                session.length = session.length + np.int32(1)
            else:
                session.pending = [[value]]
            yield value

    def _not_finite(self, rows: Sequence[int]) -> NotFinite:
        return NotFinite(f"no answer: the logits are not finite; {cause(self.cfg, self.params)}", rows)

    def _announce(self, *program: Any) -> None:
        if program not in self._ran:
            self._ran.add(program)
            self.on_compile()


class Choice(NamedTuple):
    """How tokens are chosen (what `Sampling.arrays` gives), and those that end an answer: int32 [N]."""

    stops: np.ndarray
    sampling: dict[str, Any] | None


class Reply:
    """One reply under way: the engine's programs with what stays the same from token to token.

    `at_a_time`: how many tokens `decode` is asked for at most; 0 = all of them.
    """

    def __init__(
        self,
        engine: Engine,
        session: Session,
        max_new_tokens: int,
        stop_ids: Sequence[int],
        sampling: Sampling = GREEDY,
        at_a_time: int = 0,
    ):
        self.engine, self.session = engine, session
        most = at_a_time or max_new_tokens
        self.size = roomy(most)
        self.room = max_new_tokens - most + self.size
        # One program for all few stops; BROKEN, of which there is one at least, ends a row as well.
        stops = np.full(round_up(len(stop_ids) + 1, 8), BROKEN, np.int32)
        stops[: len(stop_ids)] = list(stop_ids)
        self.choice = Choice(stops, sampling.arrays())

    def start(self, prompts: Sequence[Prompt]) -> Int[Array, "R"]:
        """Prefill; the first token of each answer, BROKEN where its logits are not finite."""
        logits = self.engine.prefill(self.session, prompts, self.room)
        return _choose(logits, self.session.length, self.choice.sampling)

    def decode(self, token: Int[Array, "R"], steps: int) -> tuple[Array, Array]:
        """The tokens after `token`, [R, size] with NONE after an end, and the last of each row; BROKEN ends a row."""
        engine, session = self.engine, self.session
        stops, sampling = self.choice
        engine._announce("decode", session.capacity, self.size, stops.size, len(token), tuple(sampling or ()))
        args = (session.cache, session.length, token, self.choice, np.int32(steps))
        session.cache, tokens, last = _decode(engine.cfg, self.size, engine.params, *args)
        return tokens, last


def _until(tokens: list[int], stop_ids: Sequence[int]) -> list[int]:
    end = next((i for i, t in enumerate(tokens) if t in stop_ids), len(tokens))
    return tokens[:end]


_choose = jax.jit(choose)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=4)
def _prefill(
    cfg: ModelConfig,
    first: bool,
    params: Params,
    batch: Batch,
    cache: Cache,
    start: Int[Array, "R"],
    lengths: Int[Array, "R"],
) -> tuple[Float[Array, "R Q"], Cache]:
    """Logits after each row's last token, and the cache; `first`: the cache holds nothing yet."""
    model = bind(cfg, params)
    hidden, (cache,) = model.extend(batch, [cache], start, model.layer_groups(1), first)
    last = jnp.take_along_axis(batch["perm"], lengths[:, None] - 1, axis=1)
    return model.logits(jnp.take_along_axis(hidden, last[..., None], axis=1)[:, 0]), cache


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def _decode(
    cfg: ModelConfig,
    size: int,
    params: Params,
    cache: Cache,
    length: Int[Array, "R"],
    token: Int[Array, "R"],
    choice: Choice,
    steps: Int[Array, ""],
) -> tuple[Cache, Int[Array, "R size"], Int[Array, "R"]]:
    """Up to `steps` tokens a row after `token`, which is chosen and not in the cache yet.

    Returns the cache, to which each row's tokens but the last are appended, the tokens (NONE after a stop token) and
    the last one. Ends early when every row has stopped; `size` >= `steps`, and the cache has room for `size` more.
    """
    model = bind(cfg, params)
    groups = _decoding_groups(cfg)
    weights, held = model.layer_groups(groups), in_groups(cache, groups)
    recent = in_groups(empty_cache(cfg, token.shape[0], size), groups)
    out = jnp.full((token.shape[0], size), NONE, jnp.int32)

    def wanted(carry: tuple) -> Array:
        return (carry[0] < steps) & ~jnp.all(carry[3])

    def body(carry: tuple) -> tuple:
        i, recent, token, done, out = carry
        hidden, recent = model.decode(token, held, recent, length, i, weights)
        token = jnp.where(done, token, choose(model.logits(hidden), length + i + 1, choice.sampling))
        out = out.at[:, i].set(jnp.where(done, NONE, token))
        return i + 1, recent, token, done | jnp.isin(token, choice.stops), out

    carry = jax.lax.while_loop(wanted, body, (jnp.int32(0), recent, token, jnp.isin(token, choice.stops), out))
    keys, values = (jnp.concatenate(parts) for parts in zip(*carry[1], strict=True))
    return appended(cache, (keys, values), length), carry[4], carry[2]


def _decoding_groups(cfg: ModelConfig) -> int:
    """Groups of layers in a decoding step: on CPU a scan would copy each layer's weights and cache for every token."""
    return cfg.num_layers if sharding.platform() == "cpu" else 1
