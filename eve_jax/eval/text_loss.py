"""Text-only forgetting: the mean loss of a model on a text file, which no benchmark of images shows.

The runner computes the losses; this says on which texts, and what is reported.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from eve_jax.data.record import digest_of
from eve_jax.errors import UserError
from eve_jax.eval.task import DataSet, Generation, Row, Task, Verdict
from eve_jax.process.files import read_bytes, read_text

BENCHMARK = "text_loss"


@dataclass(frozen=True)
class TextLoss:
    """Mean loss on a text file.

    Attributes:
        path: the file, UTF-8. Passages are separated by empty lines.
        max_tokens: the most tokens of a passage; longer ones are cut into several by the runner.
    """

    path: Path
    max_tokens: int = 2048
    NUMBERS: ClassVar[frozenset[str]] = frozenset({"loss", "perplexity", "tokens", "passages"})  # of `aggregate`

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"{BENCHMARK}.{self.path.stem}"

    @property
    def digest(self) -> str:
        """Hash of the file."""
        return digest_of([read_bytes(self.path)])

    def passages(self) -> Iterator[tuple[str, str]]:
        """Return an id, from 0, and the text of each passage. Raises UserError for a file without text."""
        text = read_text(self.path)
        blocks = "\n".join("" if line.isspace() else line for line in text.splitlines()).split("\n\n")
        found = [block.strip("\n") for block in blocks if block.strip()]
        if not found:
            raise UserError(f"{self.path}: holds no text")
        yield from ((str(number), passage) for number, passage in enumerate(found))

    def aggregate(self, sums: Sequence[float], tokens: Sequence[int]) -> dict[str, float | int]:
        """Return the mean loss per token in nats, its perplexity, and how many tokens and passages it is of.

        Args:
            sums: of each passage, the sum of its tokens' losses in nats.
            tokens: of each passage, how many tokens have a loss.
        """
        total = sum(tokens)
        loss = math.fsum(sums) / total if total else math.nan
        return {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "tokens": total, "passages": len(sums)}


class TextLossTask(Task):
    """The loss on a text file among tasks: it has numbers, but asks no questions."""

    benchmark = BENCHMARK
    measure, top, digits = "nats per token", None, 4  # what reports call the loss
    generation = Generation(0)
    data = DataSet("", "")

    def __init__(self, text: TextLoss) -> None:
        self.protocol = text.path.stem

    def measured(self, aggregate: Mapping[str, Any]) -> str:
        """Return how many tokens and passages the loss is of; "no text" where there is none."""
        return f"{aggregate['tokens']:,} tokens in {aggregate['passages']:,} passages" if aggregate else "no text"

    def row_id(self, row: Row) -> str:
        """Raise: there are no rows."""
        raise NotImplementedError("a text file has no questions")

    def text(self, row: Row) -> str:
        """Raise: there are no rows."""
        raise NotImplementedError("a text file has no questions")

    def score(self, row: Row, output: str | None) -> Verdict:
        """Raise: there are no rows."""
        raise NotImplementedError("a text file has no questions")

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Raise: the numbers come from `TextLoss.aggregate`."""
        raise NotImplementedError("the loss is that of the passages")

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return the mean loss per token, in nats."""
        return aggregate["loss"]
