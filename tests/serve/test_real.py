"""A model behind the server gives the answers that it gives alone; the command starts, answers and stops."""

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from eve_jax import EVE
from eve_jax.infer.scheduler import Scheduler, SchedulerSettings
from eve_jax.serve.settings import ServeSettings
from tests import reference as ref
from tests.launcher import launch
from tests.serve.bodies import CHAT, HTTP, chat, events, image, text, uri
from tests.serve.scripted import Address, serving
from tests.serve.test_prompts import file_of
from tests.weights import folders

ROOT = Path(__file__).parents[2]
NEW = 6
A = Image.fromarray(ref.tensors("A_inputs")["image_uint8_0"])


class Cold(Scheduler):
    """Compiles when a program is first needed: the tests here need few."""

    def warm_up(self, progress: Any = None) -> int:
        return 0


@pytest.fixture(scope="module")
def real(eve: EVE) -> Iterator[Address]:
    scheduler = Cold(eve.engine, SchedulerSettings(slots=2, context=256, chunk=64, block=4))
    with serving(eve, scheduler, ServeSettings(quiet=True), context=256) as address:
        yield address


def test_answers_are_those_of_the_model_alone(real: Address, eve: EVE) -> None:
    system = {"role": "system", "content": "S"}
    asked: list[tuple[Any, str, list[Image.Image]]] = [
        ("Why?", "Why?", []),
        ([image(uri(file_of(A))), text("What is it?")], "<image>\nWhat is it?", [A]),
    ]
    for content, question, images in asked:
        alone = eve.answer([system, {"role": "user", "content": question}], images, max_new_tokens=NEW)
        body = chat(content, temperature=0, max_tokens=NEW, logprobs=True, top_logprobs=3, return_token_ids=True)
        (choice,) = HTTP.post(real.url + CHAT, json=body).json()["choices"]
        assert choice["token_ids"] == alone.new_ids and choice["message"]["content"] == alone.text
        for token in choice["logprobs"]["content"]:
            assert token["logprob"] == max(top["logprob"] for top in token["top_logprobs"]) <= 0
        streamed = events(HTTP.post(real.url + CHAT, json=body | {"stream": True}).text)
        assert "".join(one["choices"][0]["delta"]["content"] for one in streamed) == alone.text
    again = HTTP.post(real.url + CHAT, json=body).json()["usage"]
    assert again["prompt_tokens_details"]["cached_tokens"] > again["prompt_tokens"] - 3, "the prompt was read before"


def test_requests_at_a_time_are_answered_as_alone(real: Address) -> None:
    """Greedy and drawn ones, with and without images, whole and as streams, more than there are slots."""
    contents = ["Why?", "And now?", [image(uri(file_of(A))), text("What is it?")], [text("Is it?"), image()]]
    bodies = [
        chat(content, temperature=heat, seed=n, max_tokens=5, return_token_ids=True, stream=bool(n % 2))
        for n, (content, heat) in enumerate(itertools.product(contents, (0, 0.7, 1.5)))
    ]

    def ids(body: dict[str, Any]) -> list[int]:
        given = HTTP.post(real.url + CHAT, json=body)
        choices = [one["choices"][0] for one in (events(given.text) if body["stream"] else [given.json()])]
        return [*itertools.chain.from_iterable(choice.get("token_ids", []) for choice in choices)]

    alone = [ids(body) for body in bodies]
    assert all(len(one) == 5 for one in alone) and len(set(map(tuple, alone))) > 8
    with ThreadPoolExecutor(len(bodies)) as pool:
        assert list(pool.map(ids, bodies)) == alone


def start(folder: Path, *flags: str) -> tuple[subprocess.Popen[str], str]:
    """`launch.serve` at a free port, and its address once it is ready."""
    command = [sys.executable, "-u", "-m", "launch.serve", f"--checkpoint={folder}", "--port=0", "--fit=shrink", *flags]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    url, lines = "", []
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"listening at (http://[\d.:]+)", line):
            url = found[1]
        if line == "ready\n":
            return process, url
    raise AssertionError(lines)


def compiled(url: str) -> float:
    lines = HTTP.get(f"{url}/metrics").text.splitlines()
    return float(next(line.rpartition(" ")[2] for line in lines if line.startswith("eve:compiled_programs{")))


@pytest.mark.slow
def test_the_command_compiles_first_and_ends_its_answers_at_sigterm(tmp_path: Path) -> None:
    folder = folders.write_hf(tmp_path / "eve-a", *folders.golden())
    process, url = start(folder, "--slots=2", "--context=512", "--served_model_name=a,b")
    try:
        assert [one["id"] for one in HTTP.get(f"{url}/v1/models").json()["data"]] == ["a", "b"]
        before = compiled(url)
        for content in ("a", [image(uri(file_of(A))), text()], [text("b " * 90), image(), image()]):
            for more in (
                {"temperature": 0},
                {"top_p": 0.5, "logprobs": True, "top_logprobs": 20},
                {"n": 3, "min_p": 0.1},
            ):
                assert HTTP.post(url + CHAT, json=chat(content, max_tokens=20, **more)).status_code == 200
        assert compiled(url) == before > 0, "nothing is compiled after the start"
        with httpx.Client(verify=False, timeout=60) as client:
            body = chat(stream=True, max_tokens=300, ignore_eos=True, temperature=0)
            with client.stream("POST", url + CHAT, json=body) as stream:
                lines = stream.iter_lines()
                next(lines)
                process.send_signal(signal.SIGTERM)
                said = [line for line in lines if line]
        assert said[-1] == "data: [DONE]" and '"finish_reason":"length"' in said[-2]
        assert process.wait(60) == 0
    finally:
        process.kill()
    assert process.stderr is not None and "stopping: running answers end first" in process.stderr.read()


@pytest.mark.slow
def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    folder = folders.write_hf(tmp_path / "eve-a", *folders.golden())
    process, url = start(folder, "--slots=2", "--context=512", "--api_key=k1")
    try:
        assert HTTP.get(f"{url}/v1/models").status_code == 401
        with (
            httpx.Client(verify=False, timeout=60) as client,
            client.stream(
                "POST",
                url + CHAT,
                json=chat(stream=True, max_tokens=300, ignore_eos=True),
                headers={"Authorization": "Bearer k1"},
            ) as stream,
        ):
            next(stream.iter_lines())
            for _ in range(2):
                process.send_signal(signal.SIGINT)
                time.sleep(0.2)
            assert process.wait(20) == 0
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--checkpoint=/nonexistent", "--port=0"], "/nonexistent"),
        (["--checkpoint=", "--port=0"], "the checkpoint's name is empty"),
        (["--checkpoint=x", "--host=300.1.1.1"], "--host=300.1.1.1"),
        (["--checkpoint=x", "--temperature=3"], "--temperature"),
        (["--checkpoint=x", "--temperature=nan", "--port=0"], "--temperature=nan: expected 0 to 2"),
        (["--checkpoint=x", "--weights=int2"], "--weights=int2: expected int8 | int4"),
        (["--checkpoint=x", "--allowed_hosts=http://a"], "--allowed_hosts='http://a': expected hosts"),
        (["--port=8000"], "--checkpoint must be given"),
    ],
)
def test_errors_of_the_command_are_one_line(flags: list[str], says: str) -> None:
    done = launch("launch.serve", *flags)
    lines = done.stderr.splitlines()
    line = lines.pop()
    assert lines == (["reading the checkpoint /nonexistent ..."] if "/nonexistent" in flags[0] else [])
    assert done.returncode == 1 and line.startswith("error: ") and says in line


def test_a_port_that_is_taken_is_one_line(shared: Address) -> None:
    done = launch("launch.serve", "--checkpoint=x", f"--port={shared.url.rpartition(':')[2]}")
    assert done.returncode == 1 and "name another port" in done.stderr
