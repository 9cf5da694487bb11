"""A conversation of several turns whose key/value cache is kept: a turn prefills its own tokens only.

With a template that writes an answer otherwise once another turn follows (`Template.rewrites`), every turn reads all.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol, Unpack

import numpy as np

from eve_jax.data.record import Turn
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.text.encode import as_turn
from eve_jax.data.text.templates import end_id, get_template
from eve_jax.infer.cache import Session
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
        self._said: list[Turn] = []
        self._asked = Turn("human", "")
        self._seen = Prompt(np.zeros(0, np.int32))  # the images so far, for templates that read all again

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
        session, before = self._session()
        run = eve.settings(before + len(prompt), **settings)
        if run.stop:
            tokens = eve.engine.stream(prompt, run.max_new_tokens, eve.stop_ids, run.sampling, session)
            return self._keep(session, prompt, answer_of(tokens, eve.rule.tokenizer.decode, run.stop))
        (ids,) = eve.engine.reply(session, [prompt], run.max_new_tokens, eve.stop_ids, run.sampling)
        return self._keep(session, prompt, Answer(eve.decode(ids), ids))

    def stream(self, question: str, images: Images = (), **settings: Unpack[AnswerSettings]) -> Iterator[str]:
        """The text of `ask` in pieces as they are made; what was not asked for is not in the conversation either."""
        eve = self.eve
        prompt = self._prompt(question, images)
        session, before = self._session()
        run = eve.settings(before + len(prompt), **settings)
        ids: list[int] = []
        broken = False

        def kept() -> Iterator[int]:
            for token in eve.engine.stream(prompt, run.max_new_tokens, eve.stop_ids, run.sampling, session):
                ids.append(token)
                yield token

        try:
            yield from text_pieces(kept(), eve.rule.tokenizer.decode, run.stop)
        except NotFinite:  # the engine has taken the question back
            broken = True
            raise
        finally:
            if not broken:
                self._keep(session, prompt, Answer(eve.decode(ids, run.stop), ids))

    @property
    def _rewrites(self) -> bool:
        return get_template(self.eve.rule.template).rewrites

    def _session(self) -> tuple[Session, int]:
        """Return the session that a question is put to, and the tokens that it holds."""
        return (self.eve.engine.session(), 0) if self._rewrites else (self.session, self.tokens)

    def _keep(self, session: Session, prompt: Prompt, answer: Answer) -> Answer:
        self.session, self.answer = session, answer
        if self._rewrites:
            self._said += [self._asked, Turn("gpt", answer.text)]
            self._seen = prompt
        return answer

    def _prompt(self, question: str, images: Images) -> Prompt:
        of_type("question", question, "a text", str)
        encodable("question", question)
        if self._rewrites:
            return self._whole(question, images)
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

    def _whole(self, question: str, images: Images) -> Prompt:
        """Return the tokens of the conversation with a further question, and all its images."""
        system = [Turn("system", self.system)] if self.system else []

        def ids_for(turns: Sequence[Turn], n: int) -> np.ndarray:
            self._asked = as_turn(turns[0].text, n)
            return self.eve.rule.prompt_ids([*system, *self._said, self._asked], len(self._seen.grids) + n)

        prompt = self.eve.with_images([Turn("human", question)], images, ids_for)
        patches, grids = [*self._seen.patches, *prompt.patches], [*self._seen.grids, *prompt.grids]
        return replace(prompt, patches=patches, grids=grids)
