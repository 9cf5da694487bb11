"""The answer log: every answer that was paid for, a line of JSON each, appended as it comes and never changed.

    OUT/answers/HOST-PID-TOKEN.jsonl
    {"key", "id", "text", "finish", "prompt_tokens", "tokens", "seconds", "time", "url"}
    {"key", "rule", "id", "words", "status", "seconds", "time", "url"}        the endpoint's last word on a request

The key is a hash of what was sent: the image's bytes, the prompt, the model and how it samples. So an answer is found
again whatever became of shards, filters and thresholds, and is paid for once. Every process writes a file of its own;
what a killed one leaves of its last line is skipped.
"""

import json
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eve_jax.caption.replies import Answer
from eve_jax.errors import UserError, amount, warn

FOLDER = "answers"
HEAD = re.compile(rb'\{"key": "([0-9a-f]{32})", (?:"rule": "(\w+)", )?')
COMPACT = 50_000  # new answers that are kept in a dict before they join the sorted ones
OFFSET_BITS = 40  # of a place: a file's number, and the byte in it where the line begins
DAY = 86_400.0


class _Places:
    """Where the line of every key is: 16 bytes an answer, by the first half of the key; of equal ones the last one."""

    def __init__(self) -> None:
        self._keys, self._places = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        self._new: dict[int, int] = {}

    def add(self, key: str, place: int) -> None:
        self._new[int(key[:16], 16)] = place
        if len(self._new) >= COMPACT:
            keys = np.concatenate([self._keys, np.fromiter(self._new.keys(), np.uint64, len(self._new))])
            places = np.concatenate([self._places, np.fromiter(self._new.values(), np.int64, len(self._new))])
            order = np.argsort(keys, kind="stable")
            self._keys, self._places = keys[order], places[order]
            self._new = {}

    def find(self, key: str) -> int | None:
        number = int(key[:16], 16)
        if number in self._new:
            return self._new[number]
        at = int(np.searchsorted(self._keys, np.uint64(number), side="right")) - 1
        return int(self._places[at]) if at >= 0 and int(self._keys[at]) == number else None


@dataclass
class Usage:
    """What the answers of a log cost, as the endpoints counted it.

    Attributes:
        requests: that were answered or refused for good; retries of failed ones are not among them.
        busy_seconds: in which a process was at work, from its first to its last answer.
    """

    requests: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    busy_seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the counts, with tokens a second and answers a day."""
        seconds = self.busy_seconds
        found = vars(self) | {"busy_seconds": round(seconds, 3)}
        if not seconds:  # nothing was asked
            return found
        rates = {"tokens_per_second": self.tokens / seconds, "answers_per_day": self.requests * DAY / seconds}
        return found | {name: round(rate, 3) for name, rate in rates.items()}


class AnswerLog:
    """The answers in a folder, which is made where it is not there, and a file for those of this process.

    retry: rules of refusals that count as not answered. Raises UserError for a folder that cannot be read. `add` raises
    OSError, after which nothing more is written.
    """

    def __init__(self, folder: Path, retry: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self._places, self._files = _Places(), []
        self._out: int | None = None
        self._broken = False
        self._end = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._files = sorted(folder.glob("*.jsonl"))
        damaged = 0
        for number, file in enumerate(self._files):
            for offset, line in _lines(file):
                head = HEAD.match(line)
                if head is None:
                    damaged += 1
                elif (head[2] or b"").decode() not in retry:
                    self._places.add(head[1].decode(), number << OFFSET_BITS | offset)
        if damaged:
            warn(f"{folder}: {amount(damaged, 'line')} cannot be read; what was answered there is asked again")

    def get(self, key: str) -> Answer | None:
        """Return the answer to the request of that key, None where there is none."""
        place = self._places.find(key)
        if place is None:
            return None
        file = self._files[place >> OFFSET_BITS]
        try:
            with file.open("rb") as stream:
                stream.seek(place & ((1 << OFFSET_BITS) - 1))
                line = json.loads(stream.readline())
            if line["key"] != key:
                return None
            if "rule" in line:
                return Answer(rule=line["rule"], words=line["words"], status=line["status"])
            return Answer(line["text"], line["finish"], line["prompt_tokens"], line["tokens"])
        except OSError as error:
            raise UserError(f"{file} cannot be read: {error.strerror}") from error
        except (ValueError, LookupError, TypeError):
            return None  # damaged: asked again

    def add(self, key: str, answer: Answer, **more: Any) -> None:
        """Append an answer, in one write. more: what else its line holds (id, seconds, url)."""
        if self._broken:
            raise OSError("the answer log cannot be written")  # a line after half a line would be lost with it
        line: dict[str, Any] = {"key": key}
        if answer.rule:
            line |= {"rule": answer.rule, **more, "words": answer.words, "status": answer.status}
        else:
            line |= {**more, "text": answer.text, "finish": answer.finish}
            line |= {"prompt_tokens": answer.prompt_tokens, "tokens": answer.tokens}
        data = (json.dumps(line | {"time": round(time.time(), 3)}, ensure_ascii=False) + "\n").encode()
        place = self._open() << OFFSET_BITS | self._end
        try:
            self._write(data)
        except BaseException:
            self._broken = True
            raise
        self._end += len(data)
        self._places.add(key, place)

    def _open(self) -> int:
        """Return the number of this process's file, which is made for its first answer."""
        if self._out is None:
            host = re.sub(r"[^\w.-]", "_", socket.gethostname()) or "host"
            path = self.folder / f"{host}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
            self._out = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o666)
            self._files.append(path)
        return len(self._files) - 1

    def _write(self, data: bytes) -> None:
        assert self._out is not None
        while data:
            try:
                data = data[os.write(self._out, data) :]
            except OSError as error:
                error.filename = str(self._files[-1])
                raise

    def close(self) -> None:
        """Close the file of this process."""
        if self._out is not None:
            os.close(self._out)
            self._out, self._broken = None, True

    def usage(self) -> Usage:
        """Return what all answers in the folder cost."""
        found = Usage()
        for file in self._files:
            times = []
            for _, text in _lines(file):
                if HEAD.match(text) is None:
                    continue
                line = json.loads(text)
                found.requests += 1
                found.prompt_tokens += line.get("prompt_tokens", 0)
                found.tokens += line.get("tokens", 0)
                times += [line["time"], line["time"] - line.get("seconds", 0.0)]
            found.busy_seconds += max(times) - min(times) if times else 0.0
        return found


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the complete lines of a log with the bytes at which they begin. Raise UserError."""
    offset = 0
    try:
        with file.open("rb") as stream:
            for line in stream:
                if line.endswith(b"}\n"):
                    yield offset, line
                offset += len(line)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
