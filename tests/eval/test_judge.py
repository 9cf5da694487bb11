"""Judges: an OpenAI-style address, recorded replies, and requests that fail."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from eve_jax.errors import UserError
from eve_jax.eval import registry
from eve_jax.eval.judge import HttpJudge, JudgeFailed, Question, ReplayedJudge
from tests.eval.goldens import golden

ANSWERS: list[tuple[int, Any]] = []
ASKED: list[tuple[str, dict[str, Any], str | None]] = []


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        ASKED.append((self.path, body, self.headers["Authorization"]))
        status, reply = ANSWERS.pop(0)
        data = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ANSWERS.clear()
    ASKED.clear()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def _said(text: str | None) -> tuple[int, Any]:
    return 200, {"choices": [{"message": {"content": text}}]}


def test_a_reply_comes_from_an_address(address: str) -> None:
    ANSWERS[:] = [(503, "busy"), (200, {"choices": []}), _said("8 9")]
    judge = HttpJudge(address, "m", "k", pause=0)
    assert judge.ask(Question("Which?", "You judge.", 0.2, 5)) == "8 9"
    path, body, key = ASKED[-1]
    assert (path, key) == ("/v1/chat/completions", "Bearer k")
    messages = [{"role": "system", "content": "You judge."}, {"role": "user", "content": "Which?"}]
    assert body == {"model": "m", "messages": messages, "temperature": 0.2, "max_tokens": 5}
    assert len(ASKED) == 3


def test_a_failed_request_is_an_error(address: str) -> None:
    ANSWERS[:] = [(401, {"error": "no key"})]
    with pytest.raises(JudgeFailed, match=r"no reply \(status 401.*no key.*check address, model and key|no key"):
        HttpJudge(address, "m", pause=0).ask(Question("?"))
    assert len(ASKED) == 1
    with pytest.raises(UserError, match="expected http://HOST"):
        HttpJudge("localhost:1", "m")
    with pytest.raises(JudgeFailed, match="refused"):
        HttpJudge("http://127.0.0.1:9/v1", "m", pause=0).ask(Question("?"))


class _Broken:
    """Fails at one call of the number `at`, else says `reply`."""

    model = "m"

    def __init__(self, at: int, reply: str) -> None:
        self.at, self.reply, self.calls = at, reply, 0

    def ask(self, question: Question) -> str:
        self.calls += 1
        if self.calls == self.at:
            raise JudgeFailed("no reply")
        return self.reply


@pytest.mark.parametrize(("name", "reply"), [("mmvet.lmms", "0.5"), ("mmvet.eve", "0.5"), ("llavabench.eve", "8 9")])
def test_one_failed_request_spares_the_other_rows(name: str, reply: str) -> None:
    data, task = golden(name), registry.get(*name.split("."))
    verdicts = [task.score(row, output) for row, output in zip(data["rows"], data["outputs"], strict=True)]
    judged = task.judge(data["rows"], verdicts, _Broken(3, reply))
    assert [bool(verdict.error) for verdict in judged[:4]] == [False, False, True, False]
    assert all(verdict.parsed for verdict in judged if not verdict.error)
    whole = [(row, verdict) for row, verdict in zip(data["rows"], judged, strict=True) if not verdict.error]
    aggregate = task.aggregate([row for row, _ in whole], [verdict for _, verdict in whole])
    assert task.headline(aggregate) in (50.0, 112.5)


def test_a_failed_request_of_mmbench_takes_its_question_along() -> None:
    data, task = golden("mmbench_en.lmms_judge"), registry.get("mmbench_en", "lmms_judge")
    verdicts = [task.score(row, output) for row, output in zip(data["rows"], data["outputs"], strict=True)]
    judged = task.judge(data["rows"], verdicts, _Broken(2, "A"))
    failed = {int(row["index"]) % 1_000_000 for row, v in zip(data["rows"], judged, strict=True) if v.error}
    assert failed == {359}


@pytest.mark.parametrize(
    ("replies", "score", "calls"),
    [
        (["nothing"] * 7, 0.0, 6),
        (["nan", "0.4"], 0.4, 2),
        (["x", "x", "x", "x", "0.9"], 0.9, 5),
    ],
)
def test_official_grading_of_mmvet_ends(replies: list[str], score: float, calls: int) -> None:
    data, task = golden("mmvet.eve"), registry.get("mmvet", "eve")
    row = data["rows"][0]
    [verdict] = task.judge([row], [task.score(row, "x")], ReplayedJudge([{"reply": reply} for reply in replies]))
    assert (verdict.record["graded"], verdict.record["judge_calls"], verdict.parsed) == (score, calls, score > 0)


@pytest.mark.parametrize("reply", ["1.5", "words", ""])
def test_lmms_grading_of_mmvet_ends(reply: str) -> None:
    """lmms-eval asks for ever while a judge says 1.5."""
    data, task = golden("mmvet.lmms"), registry.get("mmvet", "lmms")
    row = data["rows"][0]
    [verdict] = task.judge([row], [task.score(row, "x")], _Broken(-1, reply))
    assert verdict.score == 0 and not verdict.parsed


def test_official_texts_are_sent_when_they_are_given() -> None:
    seen: list[Question] = []

    class Listening(_Broken):
        def ask(self, question: Question) -> str:
            seen.append(question)
            return "8 9"

    data = golden("llavabench.eve")
    rule = {"llava_bench_conv": {"role": "Assistant", "prompt": "{rule text}"}}
    task = registry.get("llavabench", "eve").with_files({"rule": rule})
    task.judge(data["rows"][:1], [task.score(data["rows"][0], data["outputs"][0])], Listening(-1, ""))
    assert seen[0].content == data["judge_calls"][0]["content"]
    assert (seen[0].system, seen[0].temperature) == (data["judge_calls"][0]["system"], 0.2)
    row = golden("mmvet.eve")["rows"][0]
    vet = registry.get("mmvet", "eve").with_files({"judge_prompt": "SHOTS"})
    vet.judge([row], [vet.score(row, "x = -1 or x = -5")], Listening(-1, ""))
    assert seen[1].content == "SHOTS" + golden("mmvet.eve")["judge_calls"][0]["prompt_tail"]
