"""The answer log: found again by any process, whatever a killed one left."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from eve_jax.caption import answers
from eve_jax.caption.answers import AnswerLog
from eve_jax.caption.replies import Answer
from eve_jax.data.record import digest_of

GOOD = Answer("A bus, é 图.", "stop", 700, 5)
NO = Answer(rule="refused", words="status 400: no", status=400)


def key(number: int) -> str:
    return digest_of([str(number)])


def test_answers_are_found_at_once_and_by_the_next_process(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path)
    assert log.get(key(1)) is None and not list(tmp_path.iterdir()), "no file without an answer"
    log.add(key(1), GOOD, id="a", seconds=0.5, url="u")
    log.add(key(2), NO, id="b", seconds=0.5, url="u")
    for one in (log, AnswerLog(tmp_path)):
        assert one.get(key(1)) == GOOD
        assert one.get(key(2)) == NO
        assert one.get(key(3)) is None


def test_every_process_writes_a_file_of_its_own(tmp_path: Path) -> None:
    for number in range(3):
        AnswerLog(tmp_path).add(key(number), GOOD)
    assert len(list(tmp_path.glob("*.jsonl"))) == 3
    log = AnswerLog(tmp_path)
    assert all(log.get(key(number)) == GOOD for number in range(3))


def test_a_torn_last_line_is_skipped_and_the_others_count(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path)
    log.add(key(1), GOOD)
    log.add(key(2), GOOD)
    (file,) = tmp_path.glob("*.jsonl")
    data = file.read_bytes()
    first = data.index(b"\n") + 1
    for end in range(first, len(data)):
        file.write_bytes(data[:end])
        again = AnswerLog(tmp_path)
        assert again.get(key(1)) == GOOD
        assert again.get(key(2)) is None


def test_a_damaged_line_is_asked_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = AnswerLog(tmp_path)
    for number in range(3):
        log.add(key(number), GOOD)
    (file,) = tmp_path.glob("*.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    lines[1] = b"\0" * (len(lines[1]) - 2) + b"}\n"
    file.write_bytes(b"".join(lines))
    again = AnswerLog(tmp_path)
    assert [again.get(key(number)) for number in range(3)] == [GOOD, None, GOOD]
    assert "1 line cannot be read" in capsys.readouterr().err


def test_of_several_answers_the_last_counts_and_refusals_can_be_asked_again(tmp_path: Path) -> None:
    AnswerLog(tmp_path).add(key(1), NO)
    assert AnswerLog(tmp_path, retry=("server",)).get(key(1)) == NO
    log = AnswerLog(tmp_path, retry=("refused",))
    assert log.get(key(1)) is None
    log.add(key(1), GOOD)
    assert log.get(key(1)) == GOOD


def test_many_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys move from the dict into sorted arrays; nothing is lost on the way."""
    monkeypatch.setattr(answers, "COMPACT", 64)
    log = AnswerLog(tmp_path)
    for number in range(500):
        log.add(key(number), Answer(f"A bus {number}."))
    for one in (log, AnswerLog(tmp_path)):
        found = [one.get(key(number)) for number in range(500)]
        assert found == [Answer(f"A bus {number}.") for number in range(500)]
        assert one.get(key(500)) is None
    assert len(log._places._keys) >= 448


def test_a_full_disk_leaves_half_a_line_at_most_and_nothing_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AnswerLog(tmp_path)
    log.add(key(1), GOOD)
    write = os.write

    def full(handle: int, data: Any) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, bytes(data)[:20])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left") as error:
        log.add(key(2), GOOD)
    assert str(error.value.filename).endswith(".jsonl")
    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="cannot be written"):
        log.add(key(3), GOOD)
    again = AnswerLog(tmp_path)
    assert [again.get(key(number)) for number in (1, 2, 3)] == [GOOD, None, None]


def test_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100.0, 110.0, 500.0])
    monkeypatch.setattr("time.time", lambda: next(times))
    log = AnswerLog(tmp_path)
    log.add(key(1), GOOD, seconds=5.0)
    log.add(key(2), NO, seconds=1.0)
    other = AnswerLog(tmp_path)
    other.add(key(3), GOOD, seconds=5.0)
    usage = other.usage()
    assert (usage.requests, usage.prompt_tokens, usage.tokens) == (3, 1400, 10)
    assert usage.busy_seconds == 15.0 + 5.0
    assert json.loads(json.dumps(usage.to_dict()))["answers_per_day"] == 3 * 86400 / 20
