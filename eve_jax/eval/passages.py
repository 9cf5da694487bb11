"""The loss of a model on a text file, by the machinery that scores records."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from eve_jax.data.record import Fields, Record, Turn
from eve_jax.data.sources.records import Records
from eve_jax.data.text.tokenizer import Tokenizer
from eve_jax.errors import UserError
from eve_jax.eval.text_loss import TextLoss
from eve_jax.eval.together import in_every
from eve_jax.infer.api import EVE
from eve_jax.infer.score import Score, ScoreSettings, score_records
from eve_jax.process.connect import peers
from eve_jax.train.shared_data import same_everywhere

PLAIN = "plain"  # the template that adds nothing before a text


class Passages:
    """The passages of a text file as records without images; see `eve_jax.data.record.Source`."""

    path: Path | None
    tables: Path | None = None

    def __init__(self, text: TextLoss, tokenizer: Tokenizer) -> None:
        self.path, self._digest = text.path, text.digest
        self._parts = [
            (f"{id}.{number}", part)
            for id, passage in text.passages()
            for number, part in enumerate(cut(passage, tokenizer, text.max_tokens))
        ]

    def __len__(self) -> int:
        return len(self._parts)

    def where(self, index: int) -> str:
        """Return the file and the number of the passage, from 0, with that of its part."""
        return f"{self.path}#{self._parts[index][0]}"

    def read(self, index: int) -> tuple[Record, Fields]:
        """Return a passage, or a part of one, as a text to learn."""
        id, part = self._parts[index]
        return Record(id, (), (Turn("gpt", part),), self.where(index)), Fields()

    def fingerprint(self) -> str:
        """Return the hash of the file."""
        return self._digest


def cut(passage: str, tokenizer: Tokenizer, max_tokens: int) -> Iterator[str]:
    """Yield `passage` in parts of at most about `max_tokens` tokens: those of the whole, which parts may cut in two."""
    starts = [start for start, _ in tokenizer.encode_with_offsets(passage)[1]]
    edges = [0, *starts[max_tokens::max_tokens], len(passage)]
    for start, end in pairwise(edges):
        if part := passage[start:end].strip():
            yield part


def text_loss(eve: EVE, text: TextLoss, quiet: bool = False) -> dict[str, float | int]:
    """Return the numbers of `TextLoss.aggregate` for a model; see `passage_scores`."""
    lines = passage_scores(eve, text, quiet)
    return text.aggregate([line.nll_sum for line in lines], [line.n_target for line in lines])


def passage_scores(eve: EVE, text: TextLoss, quiet: bool = False) -> list[Score]:
    """Return the loss of every passage of a text, computed in float32 whatever a model's weights are stored in.

    On the mesh of the model; with several processes, all must call it, and each gets the numbers. Raises UserError
    where a passage has no finite loss, and when the processes read different texts.
    """
    passages = in_every("text", lambda: Passages(text, eve.tokenizer))
    same_everywhere(peers(), f"text in {text.path}", passages.fingerprint())
    records = Records({str(text.path): [passages]})
    settings = ScoreSettings(replace(eve.rule, template=PLAIN), row_tokens=text.max_tokens)
    engine = eve.engine
    cfg = replace(engine.cfg, dtype="float32")
    scores = score_records(cfg, engine.params, records, settings, quiet, engine.mesh)
    scored = [one for one in scores.bad if "nothing to learn" not in one.reason]
    if scored or not scores.lines:
        raise UserError(scores.none_scored() if not scores.lines else scored[0].described)
    return scores.lines
