"""vLLM with the plugin answers with the engine's ids; in an environment of its own, named by EVE_VLLM_PYTHON."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from eve_jax import EVE
from eve_jax.data.text.encode import IMAGE_ID
from eve_jax.infer.engine import Prompt
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
