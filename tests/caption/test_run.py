"""Runs over records: what is written, what is rejected and why, and that a run resumes to the same bytes."""

import errno
import hashlib
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from benchmarks.caption_server import Asked, Reply, ScriptedEndpoint, describe, refusal
from benchmarks.caption_texts import good_caption
from eve_jax.caption.answers import AnswerLog
from eve_jax.caption.folder import Allowed
from eve_jax.caption.replies import Stop
from eve_jax.caption.write import caption_records, check_kept, funnel_lines
from eve_jax.data.image_file import image_bytes
from eve_jax.data.record import Turn
from eve_jax.data.sources.records import open_records
from eve_jax.errors import UserError
from eve_jax.process import interrupt
from eve_jax.process.interrupt import Interrupted
from tests.caption.scenes import config_of, files_of, image_file, rejected, run, write_images

BOX = {"boxes": [{"name": "cup", "score": 0.9, "box": [0.1, 0.2, 0.3, 0.4]}]}


@pytest.fixture
def records(tmp_path: Path) -> str:
    return write_images(tmp_path / "in", 20)


def test_captioned_records(tmp_path: Path, records: str) -> None:
    """In the order of the source, with the image file as it was, the caption as the answer and the web's as `alt`."""
    funnel, endpoint = run(records, tmp_path / "out")
    assert funnel == {"in": 20, "kept": 20, "rejected": {}, "again": 0}
    assert sum(endpoint.received.values()) == 20
    found = open_records(str(tmp_path / "out"))
    assert [record.id for record in found] == [f"r{number}" for number in range(20)]
    said = {asked.image: describe(asked) for asked in endpoint.requests}
    for number, record in enumerate(found):
        assert image_bytes(record.images[0]) == (tmp_path / "in" / f"{number}.jpg").read_bytes()
        assert record.kept == {"alt": f"alt {number}"}
        assert len(record.turns) == 1 and record.turns[0].role == "gpt" and record.turns[0].text in said.values()
    assert len({record.turns for record in found}) == 20
    usage = json.loads((tmp_path / "out" / "usage.json").read_text())
    assert (usage["requests"], usage["prompt_tokens"]) == (20, 14_000)
    assert not (tmp_path / "out" / "asked").exists() and not list((tmp_path / "out").glob("*.part"))


def test_the_prompt_has_what_is_known(tmp_path: Path) -> None:
    more: dict[int, Any] = {0: {"experts": BOX}, 1: {"alt": "", "caption": "a café"}, 2: {"experts": json.dumps(BOX)}}
    records = write_images(tmp_path / "in", 3, more)
    off: dict[str, Any] = {"checks__classes": 0.0, "endpoint__concurrency": 1, "endpoint__start": 1}
    _, endpoint = run(records, tmp_path / "out", arg="densefusion", **off)
    prompts = {asked.image: asked.prompt for asked in endpoint.requests}
    assert len(prompts) == 3
    by_alt = {alt: next(p for p in prompts.values() if alt in p) for alt in ("alt 0", "a café", "alt 2")}
    assert "cup: [0.100,0.200,0.300,0.400]" in by_alt["alt 0"] and "cup: [" in by_alt["alt 2"]
    assert "cup" not in by_alt["a café"]
    kept = [dict(record.kept) for record in open_records(str(tmp_path / "out"))]
    assert kept == [{"alt": "alt 0", "experts": BOX}, {"alt": "a café"}, {"alt": "alt 2", "experts": json.dumps(BOX)}]


def test_a_question_and_records_with_conversations(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cup."}]
    records = write_images(tmp_path / "in", 2, {0: {"alt": None, "conversations": talk}})
    run(records, tmp_path / "out", write__question="Describe <image> it.")
    first, second = open_records(str(tmp_path / "out"))
    assert first.kept == {"alt": "A cup."} and second.kept == {"alt": "alt 1"}
    assert first.turns[0] == Turn("human", "Describe \\<image> it.") and first.turns[1].role == "gpt"


def test_what_is_wrong_with_a_record_is_said_and_stops_nothing(tmp_path: Path) -> None:
    more: dict[int, Any] = {
        1: {"image": "missing.jpg"},
        2: {"image": ["0.jpg", "3.jpg"]},
        4: {"experts": {"boxes": [{"name": 7}]}},
        5: {"conversations": "no list"},
        6: {"image": "broken.jpg"},
    }
    records = write_images(tmp_path / "in", 10, more)
    (tmp_path / "in" / "broken.jpg").write_bytes(image_file(0, (200, 200))[:900])

    def script(asked: Asked) -> Reply | str:
        number = next(n for n in range(10) if f'"alt {n}"' in asked.prompt)
        if number == 7:
            return refusal(400, "flagged")
        return "A bus on the" if number == 8 else describe(asked)

    funnel, _ = run(records, tmp_path / "out", script)
    by_id = rejected(tmp_path / "out")
    assert {id: found[:2] for id, found in by_id.items()} == {
        "r1": ("read", "image"),
        "r2": ("read", "images"),
        "r4": ("read", "experts"),
        "r5": ("read", "record"),
        "r6": ("read", "image"),
        "r7": ("ask", "refused"),
        "r8": ("check", "length"),
    }
    assert "missing file" in by_id["r1"][2] and by_id["r7"][2] == "status 400: flagged"
    assert funnel["in"] == funnel["kept"] + sum(
        count for rules in funnel["rejected"].values() for count in rules.values()
    )
    assert [record.id for record in open_records(str(tmp_path / "out"))] == ["r0", "r3", "r9"]
    lines = (tmp_path / "out" / "rejected.jsonl").read_text()
    assert '"where": ' in lines and '"caption": "A bus on the"' in lines
    assert "1 rejected, check: length" in "\n".join(funnel_lines(funnel))


def test_the_same_caption_for_many_images(tmp_path: Path, records: str) -> None:
    """Asked again, once; what then differs is kept, what does not is rejected."""

    def script(asked: Asked) -> str:
        number = next(n for n in range(20) if f'"alt {n}"' in asked.prompt)
        if number < 12 and not (number < 6 and asked.body["seed"]):
            return "A photo of a thing that lies on a plain surface in a room."
        return describe(asked)

    funnel, endpoint = run(records, tmp_path / "out", script, checks__same=5)
    assert funnel["rejected"] == {"check": {"same": 6}} and funnel["kept"] == 14
    assert sum(endpoint.received.values()) == 20 + 12
    assert rejected(tmp_path / "out")["r7"][2] == "6 images have this caption"
    allowed, _ = run(records, tmp_path / "other", script, checks__same=12)
    assert allowed["kept"] == 20


@pytest.mark.parametrize("after", [1, 7, 13])
def test_a_run_that_ends_anywhere_resumes_to_the_same_bytes(tmp_path: Path, records: str, after: int) -> None:
    run(records, tmp_path / "whole")
    asked_before = 0

    def script(asked: Asked) -> Reply | str:
        nonlocal asked_before
        asked_before += 1
        return refusal(401, "key is gone") if asked_before > after else describe(asked)

    with pytest.raises(Stop, match="key is gone"):
        run(records, tmp_path / "out", script, endpoint__start=2, endpoint__concurrency=2)
    known = len(list(_lines(tmp_path / "out")))
    assert after - 2 <= known <= after
    _, endpoint = run(records, tmp_path / "out")
    assert sum(endpoint.received.values()) == 20 - known
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def _lines(out: Path) -> list[dict[str, Any]]:
    files = sorted((out / "answers").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_a_complete_folder_is_left_alone(tmp_path: Path, records: str) -> None:
    run(records, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir() if path.is_file()}
    del before[tmp_path / "out" / "caption.json"]
    _, endpoint = run(records, tmp_path / "out")
    assert not endpoint.received
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_threshold_asks_nobody_and_gives_what_a_new_run_would(tmp_path: Path, records: str) -> None:
    run(records, tmp_path / "out")
    funnel, endpoint = run(records, tmp_path / "out", checks__max_words=60, write__records_per_shard=5)
    assert 0 < funnel["rejected"]["check"]["length"] < 20 and funnel["kept"] > 0
    rejected_once = {asked.image for asked in endpoint.requests}
    assert all(asked.body["seed"] == 1 for asked in endpoint.requests), "second attempts alone"
    run(records, tmp_path / "new", checks__max_words=60, write__records_per_shard=5)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "new")
    assert len(rejected_once) == funnel["again"]


def test_another_prompt_or_model_is_refused_without_leave(tmp_path: Path, records: str) -> None:
    run(records, tmp_path / "out")
    before = files_of(tmp_path / "out")
    for change, name in (
        ({"prompt__text": "What is it?"}, "prompt.text"),
        ({"endpoint__model": "n"}, "endpoint.model"),
        ({"image__max_side": 20}, "image.max_side"),
    ):
        with pytest.raises(UserError, match=rf"asked for with another config\.{name}; .*--new_answers"):
            run(records, tmp_path / "out", **change)
    assert files_of(tmp_path / "out") == before
    _, endpoint = run(records, tmp_path / "out", new=Allowed(answers=True), prompt__text="What is it?")
    assert sum(endpoint.received.values()) == 20 and files_of(tmp_path / "out") != before
    _, endpoint = run(records, tmp_path / "out", new=Allowed(answers=True))
    assert not endpoint.received, "the first answers are still there"
    assert files_of(tmp_path / "out") == before


def test_other_records_are_refused_without_leave_and_share_their_answers(tmp_path: Path, records: str) -> None:
    run(records, tmp_path / "out")
    more = write_images(tmp_path / "in", 25)
    with pytest.raises(UserError, match=r"captions of other records.*--new_records"):
        run(more, tmp_path / "out")
    funnel, endpoint = run(more, tmp_path / "out", new=Allowed(records=True))
    assert funnel["kept"] == 25 and sum(endpoint.received.values()) == 5


def test_refusals_are_asked_again_on_request(tmp_path: Path, records: str) -> None:
    def script(asked: Asked) -> Reply | str:
        return refusal(400, "flagged") if '"alt 3"' in asked.prompt else describe(asked)

    run(records, tmp_path / "out", script)
    assert list(rejected(tmp_path / "out")) == ["r3"]
    funnel, endpoint = run(records, tmp_path / "out", new=Allowed(retry=("refused",)))
    assert funnel["kept"] == 20 and sum(endpoint.received.values()) == 1


def test_first_answers_that_are_all_rejected_end_the_run(tmp_path: Path, records: str) -> None:
    with pytest.raises(
        Stop, match=r"the first 10 answers were all rejected \(length: 10\), such as: 3 words: A red bus\."
    ):
        run(records, tmp_path / "out", lambda asked: "A red bus.", checks__first_bad=10)
    assert len(_lines(tmp_path / "out")) >= 10, "what was paid for is kept"
    funnel, endpoint = run(
        records, tmp_path / "out", lambda asked: "A red bus.", checks__first_bad=0, checks__min_words=1
    )
    assert funnel["kept"] == 20 and sum(endpoint.received.values()) < 20


def test_an_endpoint_that_fails_one_image_after_the_other_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: str
) -> None:
    monkeypatch.setattr("eve_jax.caption.run.FAILED_IN_A_ROW", 5)
    counts: list[int] = []

    def script(asked: Asked) -> Reply | str:
        counts.append(1)
        return describe(asked) if len(counts) <= 3 else refusal(500, "boom")

    with pytest.raises(Stop, match=r"failed at 5 images in a row \(status 500: boom\).*--retry=server"):
        run(records, tmp_path / "out", script, endpoint__tries=1)
    funnel, _ = run(records, tmp_path / "out", new=Allowed(retry=("server",)))
    assert funnel["kept"] == 20


def test_nothing_kept_is_an_error_after_all_is_written(tmp_path: Path, records: str) -> None:
    funnel, _ = run(records, tmp_path / "out", lambda asked: "A bus.")
    assert funnel == json.loads((tmp_path / "out" / "funnel.json").read_text()) and funnel["kept"] == 0
    with pytest.raises(UserError, match=r"no caption was kept, of 20 records; see rejected\.jsonl there"):
        check_kept(funnel, tmp_path / "out")


def test_a_folder_of_something_else_is_refused(tmp_path: Path, records: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="holds something else"):
        run(records, tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "x"


def test_a_full_disk_is_one_error_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: str
) -> None:
    add = AnswerLog.add

    def full(self: AnswerLog, key: str, *args: Any, **more: Any) -> None:
        if len(list(_lines(tmp_path / "out"))) >= 6:
            raise OSError(errno.ENOSPC, "No space left on device", "answers/x.jsonl")
        add(self, key, *args, **more)

    monkeypatch.setattr(AnswerLog, "add", full)
    with pytest.raises(OSError, match="No space left") as error:
        run(records, tmp_path / "out")
    assert error.value.errno == errno.ENOSPC
    monkeypatch.setattr(AnswerLog, "add", add)
    funnel, endpoint = run(records, tmp_path / "out")
    assert funnel["kept"] == 20 and sum(endpoint.received.values()) == 14


def test_ctrl_c_lets_what_is_in_flight_finish(tmp_path: Path, records: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "_asked", False)  # as it was for the tests that follow in this process

    def script(asked: Asked) -> str:
        if endpoint.running == 3:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return describe(asked)

    with ScriptedEndpoint(script, seconds=0.5) as endpoint:
        config = config_of(endpoint.url, endpoint__start=3, endpoint__concurrency=3)
        with pytest.raises(Interrupted, match="rerun the command to resume"):
            caption_records(config, records, str(Path(records).parent), tmp_path / "out")
        assert sum(endpoint.received.values()) == sum(endpoint.served.values()) == len(_lines(tmp_path / "out")) == 3


def test_the_answer_is_a_function_of_the_request() -> None:
    """On which the comparisons above rely."""
    asked = Asked({"messages": [{"content": [{"image_url": {"url": "u"}}, {"text": "t"}]}], "seed": 0}, {}, 1)
    digest = hashlib.blake2b(b"u\0t\x000", digest_size=8).digest()
    assert describe(asked) == describe(asked._replace(times=2)) == good_caption(int.from_bytes(digest, "big"))
