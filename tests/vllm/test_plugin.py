"""vLLM with the plugin answers with the engine's ids; in an environment of its own, named by EVE_VLLM_PYTHON."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from eve_jax import EVE
from eve_jax.data.sources.records import open_records
from eve_jax.data.text.encode import IMAGE_ID
from eve_jax.infer.prompt import Prompt
from tests.vllm import exports

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("EVE_VLLM_PYTHON", "")
SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in the process that asks: fewer imports of torch
    "OMP_NUM_THREADS": "1",
}
NEW = 16
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="EVE_VLLM_PYTHON names no Python with vLLM (docs/vllm.md)"),
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of commands that find the plugin, installed from its own package."""
    source, site = tmp_path_factory.mktemp("source") / "eve_vllm", tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "eve_vllm", source)
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", f"--target={site}"]
    subprocess.run([*pip, str(source)], check=True)
    return os.environ | SETTINGS | {"PYTHONPATH": str(site)}


def ask(environment: dict[str, str], folder: Path, dtype: str = "float32", budget: int = 256) -> dict[str, Any]:
    """What vLLM answers to `exports.conversations()`, asked twice."""
    messages = [one.messages for one in exports.conversations()]
    task = {"folder": str(folder), "conversations": messages, "max_tokens": NEW, "length": 1536}
    command = [PYTHON, str(Path(__file__).with_name("ask.py")), json.dumps(task | {"dtype": dtype, "budget": budget})]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder.parent)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return json.loads(done.stdout.splitlines()[-1])


def expanded(prompt: Prompt, token: int) -> list[int]:
    """Ids of a prompt with `token` for each token of an image."""
    grids = iter(prompt.grids)
    ids: list[int] = []
    for id in prompt.ids.tolist():
        h, w = next(grids) if id == IMAGE_ID else (0, 0)
        ids += [token] * (1 + h * (w + 1)) if h else [id]
    return ids


def ours(folder: Path) -> tuple[EVE, list[Prompt], list[list[int]]]:
    """The engine, its prompts and its answers, each asked alone."""
    eve = EVE.from_pretrained(folder, dtype="float32")
    prompts = [eve.prompt(one.texts, one.images) for one in exports.conversations()]
    return eve, prompts, [eve.engine.generate([prompt], NEW, eve.stop_ids)[0] for prompt in prompts]


def without_end(ids: list[int], stops: list[int]) -> list[int]:
    return ids[:-1] if ids and ids[-1] in stops else ids


@pytest.mark.parametrize("form", exports.FORMS)
def test_answers_are_those_of_the_engine(environment, tmp_path, form):
    """In chunks of 256 tokens, which cut images in two; the second round reads prefixes from the cache."""
    folder = exports.write_export(tmp_path, form)
    eve, prompts, answers = ours(folder)
    found = ask(environment, folder)
    for answered in found["rounds"]:
        assert [one["prompt"] for one in answered] == [expanded(p, found["image_token"]) for p in prompts]
        assert [without_end(one["ids"], eve.stop_ids) for one in answered] == answers
    assert len({tuple(answer) for answer in answers}) > 3, "answers that differ tell something"
    assert found["image_token"] == eve.engine.cfg.vocab_size
    assert all(one["cached"] > 0 for one in found["rounds"][1] if len(one["prompt"]) > 256)


def test_padded_vocabulary_and_prefill_at_once(environment, tmp_path):
    folder = exports.write_export(tmp_path, "qwen2_dac", pad=7)
    eve, _, answers = ours(folder)
    found = ask(environment, folder, budget=1536)
    assert [without_end(one["ids"], eve.stop_ids) for one in found["rounds"][0]] == answers
    assert found["image_token"] == eve.engine.cfg.vocab_size


def test_bfloat16(environment, tmp_path):
    """The same prompts; answers may differ where two tokens are close."""
    folder = exports.write_export(tmp_path, "qwen2_dac")
    _, prompts, answers = ours(folder)
    found = ask(environment, folder, "bfloat16")
    first = found["rounds"][0]
    assert [one["prompt"] for one in first] == [expanded(p, found["image_token"]) for p in prompts]
    assert sum(one["ids"][:1] == answer[:1] for one, answer in zip(first, answers, strict=True)) >= len(answers) - 1


def test_gated_deltas_are_refused(environment, tmp_path, monkeypatch):
    monkeypatch.setitem(exports.FORMS, "rep", (exports.FORMS["llama3_rep_folded"][0], {}))
    folder = exports.write_export(tmp_path, "rep")
    with pytest.raises(AssertionError, match="export it again with --fold"):
        ask(environment, folder)


class Server(NamedTuple):
    """vLLM's server of OpenAI's API."""

    address: str
    folder: Path

    def chat(self, messages: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
        """The body of an answer; of an error, too."""
        asked = {"messages": messages, "temperature": 0, "max_tokens": NEW, "return_token_ids": True} | fields
        request = urllib.request.Request(
            f"{self.address}/v1/chat/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            return {"status": error.code} | json.load(error)


@pytest.fixture(scope="module")
def server(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = exports.write_export(tmp_path_factory.mktemp("served"), "llama3_dac_scaled")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = {"model": folder, "port": port, "dtype": "float32", "max-model-len": 1536, "max-num-batched-tokens": 256}
    switches = ["--host=127.0.0.1", "--enforce-eager", "--trust-request-mm-kwargs"]
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", *switches]
    log = folder.parent / "server.log"
    with log.open("w") as out:
        started = subprocess.Popen(
            [*command, *(f"--{name}={value}" for name, value in flags.items())],
            env={k: v for k, v in environment.items() if k != "VLLM_ENABLE_V1_MULTIPROCESSING"},
            stdout=out,
            stderr=out,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(address, started, log)
        yield Server(address, folder)
    finally:
        started.terminate()
        started.wait(60)


def _wait(address: str, started: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert started.poll() is None, log.read_text()[-6000:]
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
            return
        except OSError:
            time.sleep(1)
    raise AssertionError(log.read_text()[-6000:])


def test_http(server):
    """Images as data URIs, the prompts made by the export's chat template."""
    eve, prompts, answers = ours(server.folder)
    token = eve.engine.cfg.vocab_size
    for said, prompt, answer in zip(exports.conversations(), prompts, answers, strict=True):
        body = server.chat(said.messages)
        assert "status" not in body, body
        assert body["prompt_token_ids"] == expanded(prompt, token)
        assert without_end(body["choices"][0]["token_ids"], eve.stop_ids) == answer
        # What may be half a character at the end is not sent.
        assert body["choices"][0]["message"]["content"].strip().rstrip("\ufffd") == eve.decode(answer).rstrip("\ufffd")


def test_http_sizes_of_images(server):
    said = exports.conversations()[2]
    eve = EVE.from_pretrained(server.folder, fit="shrink", max_size=256, dtype="float32")
    body = server.chat(said.messages, mm_processor_kwargs={"max_size": 256, "fit": "shrink"})
    assert "status" not in body, body
    assert body["prompt_token_ids"] == expanded(eve.prompt(said.texts, said.images), eve.engine.cfg.vocab_size)
    for kwargs, message in (
        ({"max_size": 1024}, "max_size is 1024: expected 32 to 512 pixels"),
        ({"fit": "stretch"}, "fit is 'stretch': expected fill or shrink"),
        ({"crop": 1}, "crop is not one of max_size, fit"),
    ):
        refused = server.chat(said.messages, mm_processor_kwargs=kwargs)
        assert (refused["status"], message in refused["error"]["message"]) == (400, True), refused


def test_http_refuses_roles(server):
    refused = server.chat([{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}])
    assert refused["status"] == 400
    assert "turns of user and assistant alternate" in refused["error"]["message"]


def captions_at(url: str, model: str, end: int, folder: Path, out: Path) -> dict[str, str]:
    """The captions, by id, that the command gets for the images of `folder` at an address; run twice, the second time
    all is there. Weights that never learned to end are made to after NEW tokens."""
    fields = {
        "endpoint.url": url,
        "endpoint.model": model,
        "endpoint.temperature": 0.0,
        "endpoint.body": json.dumps({"logit_bias": {str(end): 100}, "min_tokens": NEW}),
        "checks.min_words": 0,
        "checks.repetition": 0.0,
        **dict.fromkeys((f"checks.{name}" for name in ("finished", "refusals", "leaks", "coordinates")), False),
    }
    command = [sys.executable, "-m", "launch.caption", f"--config=caption:prompt={folder / 'prompt.txt'}"]
    command += [f"--from={folder / 'records.jsonl'}", f"--images={folder}", f"--to={out}"]
    command += [f"--config.{name}={value}" for name, value in fields.items()]
    for _ in range(2):
        own = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    rejected = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert {one["rule"] for one in rejected} <= {"empty"}
    return {record.id: record.turns[-1].text for record in open_records(str(out))}


def test_captions_are_those_of_our_server(server, tmp_path):
    """`launch.caption` gets the same captions from vLLM and from our own server."""
    pytest.importorskip("uvicorn")
    from eve_jax.infer.scheduler import SchedulerSettings
    from eve_jax.serve.local import served_here
    from eve_jax.serve.settings import ServeSettings

    with (tmp_path / "records.jsonl").open("w") as file:
        for number in range(6):
            exports.image(number, 160 + 32 * number, 128).save(tmp_path / f"{number}.png")
            file.write(json.dumps({"id": f"r{number}", "image": f"{number}.png", "alt": "a block"}) + "\n")
    (tmp_path / "prompt.txt").write_text("What is it?")
    eve = EVE.from_pretrained(server.folder, dtype="float32")
    (end, *_) = eve.stop_ids
    theirs = captions_at(f"{server.address}/v1", str(server.folder), end, tmp_path, tmp_path / "theirs")
    slots = SchedulerSettings(slots=2, context=1024)
    with served_here(eve, ServeSettings(names=("eve",), quiet=True), slots) as url:
        own = captions_at(url, "eve", end, tmp_path, tmp_path / "ours")
    assert len({*own.values()}) >= 3, "captions that differ tell something"
    # What may be half a character at the end is not sent.
    assert {id: text.rstrip("\ufffd") for id, text in theirs.items()} == {
        id: text.rstrip("\ufffd") for id, text in own.items()
    }
