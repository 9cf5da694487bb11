"""Answers that were given before: our own files, lmms-eval's samples, plain JSONL.

Each is a `Recorded`: the task that it is about, and its lines, from which `matched` finds the answer to each question.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from eve_jax.errors import UserError, shorten
from eve_jax.eval.answers import FOLDER, read_lines
from eve_jax.eval.sources.base import Item
from eve_jax.eval.task import Task

SAMPLES = re.compile(r"(?:.*_)?samples_(?P<task>.+)\.jsonl")  # of lmms-eval
FAILED = "[LMMS_EVAL_REQUEST_FAILED"  # how lmms-eval begins the text of a request that failed
OURS = {"id", "prompt", "answer", "verdict", "error"}
IDS, TEXTS = ("id", "question_id"), ("answer", "text")
Key = str | int | tuple[str, str]


class Said(NamedTuple):
    """An answer, or why there is none; the prompt that it was given to, "" if that is not known."""

    answer: str | None
    error: str
    prompt: str


@dataclass
class Recorded:
    """A file of answers.

    Attributes:
        path: the file.
        kind: "ours", "lmms" (lmms-eval's samples) or "plain".
        task: the name of the task in the file's own name; "" for a plain file.
        protocol: the protocol in the file's name; "" where it says none.
        answers: the answers in the order of the file.
        places: place in `answers` of a question's id, of (id, prompt) where ids may be those of several questions, or
            of the number of a row in the data, from 0.
    """

    path: Path
    kind: str
    task: str = ""
    protocol: str = ""
    answers: list[Said] = field(default_factory=list)
    places: dict[Key, int] = field(default_factory=dict)

    def add(self, said: Said, *keys: Key) -> None:
        """Add an answer; of those with the same key the last counts."""
        self.places |= dict.fromkeys(keys, len(self.answers))
        self.answers.append(said)

    def add_new(self, said: Said, where: str, *keys: Key) -> None:
        """Add an answer. Raises UserError that names `where` for a second, different one to a question."""
        before = self.places.get(keys[0])
        if before is not None and self.answers[before][:2] != said[:2]:
            raise UserError(f"{where}: a second answer to {keys[0]}, which differs from the first; keep one of them")
        self.add(said, *keys)

    def matched(self, task: Task, items: Sequence[Item]) -> tuple[dict[str, Said], list[str]]:
        """Return the answer to each item that has one, by its id, and the names of answers to none of `items`."""
        found: dict[str, Said] = {}
        used: set[int] = set()
        for item in items:
            raw = str(item.row.get("question_id", item.row.get("id", "")))
            keys: tuple[Key, ...] = (item.number, (raw, task.text(item.row)), item.id)
            place = next((self.places[key] for key in keys if key in self.places), None)
            if place is not None:
                found[item.id] = self._checked(self.answers[place], task, item)
                used.add(place)
        unused = {place: key for key, place in self.places.items() if place not in used}
        return found, [str(key[0] if isinstance(key, tuple) else key) for key in unused.values()]

    def _checked(self, said: Said, task: Task, item: Item) -> Said:
        """Return `said`, an error where lmms-eval asked something else at this row: its data are other ones."""
        if self.kind == "lmms" and said.prompt and _words(task.prompt(item.row)) not in _words(said.prompt):
            error = f"{self.path.name}: doc_id {item.number} was asked something else than {item.where}; give its data"
            return Said(None, error, said.prompt)
        return said


def _words(text: str) -> str:
    return " ".join(text.split())


def open_recorded(path: Path) -> list[Recorded]:
    """Return the answers in a file; in a folder of ours, or one of lmms-eval's samples.

    Raises UserError for a folder without such files, and for a line that is no answer.
    """
    if path.is_dir():
        ours = [file for file in sorted((path / FOLDER).glob("*.jsonl")) if not file.name.endswith(".judge.jsonl")]
        files = ours or [file for file in sorted(path.rglob("*.jsonl")) if SAMPLES.fullmatch(file.name)]
        if not files:
            raise UserError(f"{path}: holds neither {FOLDER}/TASK.jsonl nor lmms-eval's *_samples_TASK.jsonl")
    elif path.is_file():
        files = [path]
    else:
        raise UserError(f"{path}: no such file or folder")
    return [_read(file) for file in files]


def _read(path: Path) -> Recorded:
    lines = read_lines(path, "it is left out", cut=False)
    places = [f"{path}#{number}" for number in range(1, len(lines) + 1)]
    if (found := SAMPLES.fullmatch(path.name)) and all("doc_id" in line for line in lines):
        recorded = Recorded(path, "lmms", found["task"])
        for line, where in zip(lines, places, strict=True):
            recorded.add_new(_sample(line, where), where, _whole(line["doc_id"], where))
    elif lines and all(line.keys() >= OURS for line in lines):
        name, _, protocol = path.stem.rpartition(".")
        recorded = Recorded(path, "ours", name, protocol)
        for line, where in zip(lines, places, strict=True):
            answer = None if line["error"] else _text_of("answer", line["answer"], where)
            recorded.add(Said(answer, line["error"] or "", line["prompt"]), str(line["id"]))
    else:
        recorded = Recorded(path, "plain")
        for line, where in zip(lines, places, strict=True):
            id, said = _plain(line, where)
            recorded.add_new(said, where, *([(id, said.prompt)] if said.prompt else []), id)
    return recorded


def _sample(line: Mapping[str, Any], where: str) -> Said:
    """Return the answer of a line of lmms-eval: what the model said, before filters where both are there."""
    value = line.get("resps", line.get("filtered_resps"))
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None:
        value = ""
    if not isinstance(value, str):
        raise UserError(f"{where}: filtered_resps is not one text ({shorten(json.dumps(value), 80)})")
    prompt = line.get("input")
    return _unless_failed(value, prompt if isinstance(prompt, str) else "")


def _unless_failed(text: str, prompt: str) -> Said:
    if text.lstrip().startswith(FAILED):
        return Said(None, f"the request failed: {shorten(text, 120)}", prompt)
    return Said(text, "", prompt)


def _plain(line: Mapping[str, Any], where: str) -> tuple[str, Said]:
    id = next((line[name] for name in IDS if name in line), None)
    name = next((name for name in TEXTS if name in line), None)
    if not isinstance(id, str | int) or isinstance(id, bool):
        raise UserError(f"{where}: no {' or '.join(IDS)}, a text or a whole number; each line answers one question")
    if name is None:
        raise UserError(f"{where}: no {' or '.join(TEXTS)}, a text; each line is an answer to one question")
    prompt = line.get("prompt")
    return str(id), _unless_failed(_text_of(name, line[name], where), prompt if isinstance(prompt, str) else "")


def _text_of(name: str, value: Any, where: str) -> str:
    """Return the text of an answer. Raises UserError that names `where` and the field for anything else."""
    if isinstance(value, str):
        return value
    if value is None:
        remedy = 'write "" for an empty answer, or remove the line: the question then counts as not answered'
    else:
        remedy = "write what the model said as a text in quotes"
    raise UserError(f"{where}: {name} is {shorten(json.dumps(value), 60)}, not a text; {remedy}")


def _whole(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UserError(f"{where}: doc_id is no row number ({shorten(str(value), 40)})")
    return value
