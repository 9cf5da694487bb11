"""The answers of a task: a line of JSON for each question, appended as it is answered.

    {"id", "prompt", "answer", "prompt_tokens", "tokens", "seconds", "error", "verdict": {"score", "parsed", ...}}

Of lines with one id the last counts. A verdict is what the task said when the answer came, or at the last scoring; it
is for people: scoring makes each anew from the answer.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from eve_jax.errors import UserError, shorten
from eve_jax.eval.outcome import Answered
from eve_jax.process.files import write_atomically

FOLDER = "answers"


def read_lines(path: Path, then: str, cut: bool = True) -> list[dict[str, Any]]:
    """Return the objects of an appended JSONL file, [] where there is none.

    A last line that is not whole, which a killed process leaves, is left out, with a note, and with `cut` removed from
    the file; `then` says what follows from that. Raises UserError that names the file and the line of anything else
    that is no object.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    if lines[-1] and (cut or not _is_whole(lines[-1])):
        print(f"note: {path}: its last line is not whole; {then}", file=sys.stderr, flush=True)
        if cut:
            os.truncate(path, sum(len(line) + 1 for line in lines[:-1]))
        lines[-1] = b""
    return [_line(text, f"{path}#{number}") for number, text in enumerate(lines, 1) if text.strip()]


def _is_whole(text: bytes) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _line(text: bytes, where: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON ({shorten(str(error), 100)}); remove this line") from None
    if not isinstance(line, dict):
        raise UserError(f"{where}: not a JSON object; remove this line")
    return line


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Append one line in a single write, so that what a killed process leaves is whole lines but for the last."""
    data = (json.dumps(line, default=str) + "\n").encode()
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        while data:
            data = data[os.write(handle, data) :]
    finally:
        os.close(handle)


@dataclass
class Answers:
    """The answers of one task by id; kept in the file `path`, or in memory alone where that is None."""

    path: Path | None = None
    known: dict[str, Answered] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path | None) -> "Answers":
        """Return what is in the file, with the folder made. Raises UserError for a damaged line."""
        if path is None:
            return cls()
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = read_lines(path, "that question is asked again")
        try:
            return cls(path, {line["id"]: _answered(line) for line in lines})
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: not a file of answers ({error}); remove it, or choose another --out") from None

    def has(self, id: str, prompt: str) -> bool:
        """Return whether there is an answer to this very prompt; an error is none."""
        found = self.known.get(id)
        return found is not None and found.answer is not None and not found.error and found.prompt == prompt

    def add(self, answered: Answered) -> None:
        """Keep one more."""
        self.known[answered.id] = answered
        if self.path is not None:
            append_line(self.path, _written(answered))

    def settle(self, answered: Sequence[Answered]) -> None:
        """Write the file anew: `answered` with their verdicts in the order of the data, then all others."""
        self.known |= {one.id: one for one in answered}
        if self.path is None:
            return
        first = {one.id for one in answered}
        every = [*answered, *(one for id, one in self.known.items() if id not in first)]
        write_atomically(self.path, "".join(json.dumps(_written(one), default=str) + "\n" for one in every))


def _written(answered: Answered) -> dict[str, Any]:
    return asdict(answered)


def _answered(line: dict[str, Any]) -> Answered:
    """Return the answer of a line, without the verdict, which scoring makes anew."""
    return Answered(
        line["id"],
        line["prompt"],
        line["answer"],
        None,
        line["prompt_tokens"],
        line["tokens"],
        line["seconds"],
        line["error"],
    )
