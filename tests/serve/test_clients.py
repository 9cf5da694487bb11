"""Other projects' clients work: LiteLLM, LangChain, and lmms-eval's `openai` model, each where it is installed."""

import base64
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.serve.bodies import image, png, text, user
from tests.serve.scripted import SAID, Address, Scripted

pytestmark = pytest.mark.slow
MESSAGES: list[Any] = [user([text("What?"), image()])]


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
def test_litellm(shared: Address, told: Scripted, monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it is fetched
    litellm = pytest.importorskip("litellm")
    base: dict[str, Any] = {"model": f"{provider}/eve", "api_base": f"{shared.url}/v1", "api_key": "none"}
    answer = litellm.completion(messages=MESSAGES, max_tokens=50, temperature=0, **base)
    assert answer.choices[0].message.content == SAID.strip() and answer.usage.prompt_tokens > 0
    stream = litellm.completion(messages=MESSAGES, stream=True, **base)
    assert "".join(one.choices[0].delta.content or "" for one in stream) == SAID.strip()
    with pytest.raises(litellm.BadRequestError, match="top_p"):
        litellm.completion(messages=MESSAGES, top_p=2, **base)
    assert told.requests[0].max_new_tokens == 50 and len(told.requests[0].prompt.grids) == 1


def test_langchain(shared: Address, told: Scripted) -> None:
    langchain = pytest.importorskip("langchain_openai")
    chat = langchain.ChatOpenAI(base_url=f"{shared.url}/v1", api_key="none", model="eve", max_tokens=40, temperature=0)
    block = {"type": "image", "base64": base64.b64encode(png()).decode(), "mime_type": "image/png"}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What?"}, block]}]
    assert chat.invoke(messages).content == SAID.strip()
    assert "".join(str(part.content) for part in chat.stream(messages)) == SAID.strip()
    assert told.requests[0].max_new_tokens == 40 and len(told.requests[0].prompt.grids) == 1


def test_lmms_eval(shared: Address, told: Scripted, tmp_path: Path) -> None:
    """Its `openai` model asks questions about images of a task that it has."""
    pytest.importorskip("lmms_eval")
    pytest.importorskip("datasets").Dataset.from_list(
        [{"question": f"What is it? {n}", "answer": "bus", "image": _opened()} for n in range(6)]
    ).to_parquet(tmp_path / "data" / "test.parquet")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "own.yaml").write_text(TASK.format(data=tmp_path / "data" / "test.parquet"))
    (tmp_path / "tasks" / "own.py").write_text(FUNCTIONS)
    arguments = f"model_version=eve,base_url={shared.url}/v1,api_key=none,timeout=60"
    command = ["-m", "lmms_eval", "--model=openai", f"--model_args={arguments}", "--tasks=own", "--log_samples"]
    command += [f"--include_path={tmp_path / 'tasks'}", f"--output_path={tmp_path / 'out'}", "--batch_size=1"]
    local = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "OPENAI_API_KEY": "none"}
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, env=os.environ | local, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    samples = next((tmp_path / "out").rglob("*samples_own.jsonl")).read_text()
    assert samples.count("It is a r") >= 6 and "LMMS_EVAL_REQUEST_FAILED" not in samples
    assert len(told.requests) == 6 and all(len(request.prompt.grids) == 1 for request in told.requests)


def _opened() -> Any:
    return Image.open(io.BytesIO(png()))


TASK = """
task: own
dataset_path: parquet
dataset_kwargs: {{data_files: {{test: "{data}"}}}}
test_split: test
output_type: generate_until
doc_to_visual: !function own.visual
doc_to_text: !function own.text
doc_to_target: answer
generation_kwargs: {{max_new_tokens: 30, temperature: 0, do_sample: false}}
process_results: !function own.results
metric_list: [{{metric: exact, aggregation: mean, higher_is_better: true}}]
"""
FUNCTIONS = """
def visual(doc):
    return [doc["image"].convert("RGB")]
def text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]
def results(doc, results):
    return {"exact": float(doc["answer"] in results[0])}
"""
