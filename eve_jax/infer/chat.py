"""A conversation of several turns whose key/value cache is kept: a turn prefills its own tokens only."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, Unpack

import numpy as np

from eve_jax.data.record import Turn
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.text.templates import end_id
from eve_jax.infer.engine import Engine
from eve_jax.infer.finite import NotFinite
from eve_jax.infer.messages import Answer, Images, Messages, answer_of, text_pieces
from eve_jax.infer.prompt import Prompt
from eve_jax.infer.settings import AnswerSettings, CheckedSettings
from eve_jax.process.checks import encodable, of_type


class Answering(Protocol):
    """What a conversation needs of `EVE`, whose methods these are."""

    engine: Engine
    rule: SampleRule
    stop_ids: list[int]

    def prompt(self, messages: Messages, images: Images = ()) -> Prompt: ...

    def with_images(
        self, turns: Sequence[Turn], images: Images, ids_for: Callable[[Sequence[Turn], int], np.ndarray]
    ) -> Prompt: ...

    def settings(self, tokens: int, **settings: Unpack[AnswerSettings]) -> CheckedSettings: ...

    def decode(self, ids: Sequence[int], stops: Sequence[str] = ()) -> str: ...


class Chat:
    """A conversation with `eve`; `system` replaces the template's system sentence.

    `answer` is the last one given, None before the first. A question that raises UserError leaves the conversation as
    it was.
    """

    def __init__(self, eve: Answering, system: str = ""):
        of_type("system", system, "a text", str)
        self.eve, self.system = eve, encodable("system", system)
        self.new()

    def new(self) -> None:
        """Start over."""
        self.session = self.eve.engine.session()
        self.answer: Answer | None = None

    @property
    def tokens(self) -> int:
        """Tokens of the conversation so far, image tokens included."""
        return int(self.session.length[0]) + len(self.session.pending[0])

    def ask(self, question: str, images: Images = (), **settings: Unpack[AnswerSettings]) -> Answer:
        """The answer to a further question, to which `images` belong; `settings` are those of `EVE.generate`.

        `<image>` in the question says where an image goes, else they go before it; in a question without images it is
        text, as `\\<image>` always is. An answer that a stop string ends stays in the conversation with it.
        """
        eve = self.eve
        prompt = self._prompt(question, images)
        run = eve.settings(self.tokens + len(prompt), **settings)
        if run.stop:
            tokens = eve.engine.stream(prompt, run.max_new_tokens, eve.stop_ids, run.sampling, self.session)
            self.answer = answer_of(tokens, eve.rule.tokenizer.decode, run.stop)
            return self.answer
        (ids,) = eve.engine.reply(self.session, [prompt], run.max_new_tokens, eve.stop_ids, run.sampling)
        self.answer = Answer(eve.decode(ids), ids)
        return self.answer

    def stream(self, question: str, images: Images = (), **settings: Unpack[AnswerSettings]) -> Iterator[str]:
        """The text of `ask` in pieces as they are made; what was not asked for is not in the conversation either."""
        eve = self.eve
        prompt = self._prompt(question, images)
        run = eve.settings(self.tokens + len(prompt), **settings)
        ids: list[int] = []
        broken = False

        def kept() -> Iterator[int]:
            for token in eve.engine.stream(prompt, run.max_new_tokens, eve.stop_ids, run.sampling, self.session):
                ids.append(token)
                yield token

        try:
            yield from text_pieces(kept(), eve.rule.tokenizer.decode, run.stop)
        except NotFinite:  # the engine has taken the question back
            broken = True
            raise
        finally:
            if not broken:
                self.answer = Answer(eve.decode(ids, run.stop), ids)

    def _prompt(self, question: str, images: Images) -> Prompt:
        of_type("question", question, "a text", str)
        encodable("question", question)
        if not self.tokens:
            messages = [{"role": "system", "content": self.system}] if self.system else []
            return self.eve.prompt([*messages, {"role": "user", "content": question}], images)
        rule = self.eve.rule
        end = end_id(rule.tokenizer, rule.template)  # also of an answer that was cut: the next turn is written after it
        return self.eve.with_images(
            [Turn("human", question)],
            images,
            lambda turns, n: np.append(np.int32(end), rule.continuation_ids(turns[0].text, n)),
        )
