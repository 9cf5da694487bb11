"""Generation with a key/value cache: prompts of any mixture of images and text, in batches, turn after turn.

A prompt is prefilled in a row of its own with the split layout of training (a bucketed shape, so that few programs are
compiled); decoded tokens are text, so a decoding step reads the text weights only. Everything here is token ids.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from eve_jax.batch import RowShape
from eve_jax.infer import programs
from eve_jax.infer.cache import Session, bucket, filled, roomy, round_up
from eve_jax.infer.choosing import in_prompts
from eve_jax.infer.finite import BROKEN, NotFinite, cause
from eve_jax.infer.heads import as_given, regrouped
from eve_jax.infer.parameters import on_mesh, shard_params
from eve_jax.infer.programs import Choice
from eve_jax.infer.prompt import Prompt, pack_prompts
from eve_jax.infer.sampling import GREEDY, Sampling
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params


class Engine:
    """Greedy or sampled generation by one set of parameters, on one device or on a mesh.

    On a mesh of several devices, parameters are sharded by the rules of training (those that lie so already stay where
    they are), rows go over its data and fsdp axes, heads over tensor (fewer key/value heads than that has devices are
    copied, `eve_jax.infer.heads`; `cfg` then has their number). A mesh over several processes is used by all of them
    together: each makes the same calls with the same prompts, and each gets all answers.
    `on_compile` is called before a program runs for the first time, which may take long.
    """

    def __init__(self, cfg: ModelConfig, params: Params, mesh: Mesh | None = None):
        self.mesh = mesh if mesh is not None and mesh.size > 1 else None
        params = params if self.mesh is None else shard_params(cfg, params, self.mesh)
        self.given = cfg
        self.cfg, self.params = regrouped(cfg, params, self.mesh)
        self.on_compile: Callable[[], None] = lambda: None
        self._ran: set[tuple] = set()

    @property
    def weights(self) -> Params:
        """The parameters as they were given: the same on every mesh."""
        return as_given(self.given, self.cfg, self.params, self.mesh)

    def session(self, rows: int = 1) -> Session:
        """A session of `rows` rows without tokens; on a mesh, further rows fill it up, which nothing here returns."""
        return Session.empty(self.cfg, rows, self.mesh)

    def prefill(self, session: Session, prompts: Sequence[Prompt], room: int = 0) -> Float[Array, "R Q"]:
        """Append each row's prompt to `session`, leave room for `room` more tokens; logits after its last token."""
        logits = self._prefill(session, prompts, room)
        return logits if len(prompts) == session.rows else logits[: len(prompts)]

    def _prefill(self, session: Session, prompts: Sequence[Prompt], room: int) -> Float[Array, "R Q"]:
        """`prefill` with the logits of all the session's rows: those that fill up a mesh get the last prompt."""
        for text, prompt in zip(session.text, filled(prompts, session.rows), strict=True):
            text.extend(prompt.text)
        prompts = [p.after(ids) for p, ids in zip(filled(prompts, session.rows), session.pending, strict=True)]
        start = session.length
        first = not start.any()
        shape = _shape(prompts, first)
        batch, held = pack_prompts(prompts, shape, self.cfg.patch_bytes, session.held)
        lengths = held.length - start
        session.reserve(_needed(start, prompts, shape, room))
        self.announce("prefill", len(prompts), shape, session.capacity, first)
        args = (first, self.params, on_mesh(self.mesh, batch), session.cache, start, lengths)
        logits, session.cache = programs.prefill(self.cfg, self.mesh, *args)
        session.held = held
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
        limits = [max_new_tokens] * len(prompts)
        answers, broken = self.replies(session, prompts, limits, stop_ids, sampling)
        if broken:
            session.rewind(before)
            raise self.not_finite(broken)
        return answers

    def replies(
        self,
        session: Session,
        prompts: Sequence[Prompt],
        max_new_tokens: Sequence[int],
        stop_ids: Sequence[int],
        sampling: Sampling = GREEDY,
    ) -> tuple[list[list[int]], list[int]]:
        """`reply` with a limit for each row; next to the answers, the rows whose logits are not finite.

        Those rows' answers end before; the session is good for another reply only when there are none.
        """
        limits, most = np.array(filled(max_new_tokens, session.rows), np.int32), max(max_new_tokens)
        run = Reply(self, session, most, stop_ids, sampling)
        first = run.start(prompts)
        rest = run.decode(first, limits - 1)[0] if most > 1 else first[:, None]
        table = np.concatenate([np.asarray(first)[:, None], np.asarray(rest)], axis=1)
        rows = [row[:limit] for row, limit in zip(table.tolist(), limits.tolist(), strict=True)]
        answers = [_until(row, (*stop_ids, BROKEN)) for row in rows]
        cut = [len(ids) == limit for ids, limit in zip(answers, limits.tolist(), strict=True)]
        read = np.array([len(a) - c for a, c in zip(answers, cut, strict=True)], np.int32)
        session.held = session.held.and_text(read)
        session.pending = [ids[-1:] if c else [] for ids, c in zip(answers, cut, strict=True)]
        for text, ids in zip(session.text, answers, strict=True):
            text.extend(ids)
        count = len(prompts)
        return answers[:count], [number for number, row in enumerate(rows[:count]) if BROKEN in row]

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
        before, one = session.mark(), np.ones(session.rows, np.int32)
        run = Reply(self, session, max_new_tokens, stop_ids, sampling, at_a_time=1)
        token = run.start([prompt])
        for left in reversed(range(max_new_tokens)):
            value = int(np.asarray(token)[0])
            if value == BROKEN:
                session.rewind(before)
                raise self.not_finite([0])
            if value in stop_ids:
                return
            if left:  # the next one is under way while the caller has this one
                token = run.decode(token, one)[1]
                session.held = session.held.and_text(one)
            else:
                session.pending = [[value]] * session.rows
            for text in session.text:
                text.append(value)
            yield value

    def not_finite(self, rows: Sequence[int]) -> NotFinite:
        """The error that says why logits of `rows` are not finite; reads every weight."""
        return NotFinite(f"no answer: the logits are not finite; {cause(self.cfg, self.params)}", rows)

    def announce(self, *program: Any) -> None:
        """Call `on_compile` if `program`, whatever names it, runs for the first time."""
        if program not in self._ran:
            self._ran.add(program)
            self.on_compile()


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
        sampling.check_vocabulary(engine.cfg.vocab_size)
        self.stops, self.sampling, self.penalized = stops, sampling.arrays(), sampling.penalized
        self.seen: Array | np.ndarray | None = None

    def start(self, prompts: Sequence[Prompt]) -> Int[Array, "R"]:
        """Prefill; the first token of each answer, BROKEN where its logits are not finite."""
        logits = self.engine._prefill(self.session, prompts, self.room)
        if self.penalized:
            self.seen = in_prompts(self.session.text, self.engine.cfg.vocab_size)
        return programs.choose(self.engine.mesh, logits, self.session.length, self.sampling, self.seen)

    def decode(self, token: Int[Array, "R"], steps: Int[np.ndarray, "R"]) -> tuple[Array, Array]:
        """Up to each row's `steps` tokens after `token`, [R, size] with NONE after an end, and the last of each row.

        BROKEN ends a row.
        """
        engine, session = self.engine, self.session
        choice = Choice(self.sampling, self.stops, steps, self.seen)
        how = self.sampling and self.sampling.bias.shape, self.penalized
        engine.announce("decode", session.capacity, self.size, self.stops.size, len(token), how)
        args = (session.cache, session.length, programs.LastToken(token, session.held.next), choice)
        found = programs.decode(engine.cfg, engine.mesh, self.size, engine.params, *args)
        session.cache, tokens, last, self.seen = found
        return tokens, last


def _shape(prompts: Sequence[Prompt], padded: bool) -> RowShape:
    """The row shape of a prefill; `padded`: to the longer rows that kernels of training want."""
    need = tuple(np.max([p.need for p in prompts], axis=0).tolist())
    return bucket(need) if padded else bucket(need, 1)


def _needed(start: np.ndarray, prompts: Sequence[Prompt], shape: RowShape, room: int) -> int:
    """Tokens that the cache has to hold when `prompts` are appended to rows of `start` tokens, and `room` more."""
    return max(int(start.max()) + shape.length, int((start + [len(p) for p in prompts]).max()) + room)


def _until(tokens: list[int], stop_ids: Sequence[int]) -> list[int]:
    end = next((i for i, t in enumerate(tokens) if t in stop_ids), len(tokens))
    return tokens[:end]
