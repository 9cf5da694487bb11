"""The real lmms-eval with our model: its answers and scores are those of `eve_jax.eval`, and a rerun asks nothing."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from eve_jax import EVE
from eve_jax.eval import evaluate
from tests.weights import folders

ROOT = Path(__file__).parents[2]
TASKS = {  # of lmms-eval: ours, and the entry of the aggregate that is its metric
    "mme": ("mme", ("mme_perception_score", "mme_perception_score")),
    "scienceqa_img": ("scienceqa", ("exact_match", "exact_match")),
    "ai2d": ("ai2d", ("exact_match", "exact_match")),
    "realworldqa": ("realworldqa", ("exact_match", "exact_match")),
    "chartqa": ("chartqa", ("relaxed_overall", "relaxed_overall")),
    "mmmu_val": ("mmmu", ("mmmu_acc", "mmmu_acc")),
}
LIMIT = 12
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint, and the data in the layout that lmms-eval loads offline."""
    pytest.importorskip("lmms_eval", reason="needs the extra lmms")
    folder = tmp_path_factory.mktemp("lmms")
    folders.write_hf(folder / "hf", *folders.golden())
    with tarfile.open(ROOT / "tests" / "golden" / "eval" / "parquet.tar.xz") as file:
        file.extractall(folder, filter="data")
    return folder


def run(work: Path, out: str, *more: str) -> subprocess.CompletedProcess[str]:
    arguments = f"checkpoint={work / 'hf'},answers={work / 'answers'},fit=shrink"
    command = ["-m", "lmms_eval", "--model=eve_jax", f"--model_args={arguments}", f"--tasks={','.join(TASKS)}"]
    command += [f"--limit={LIMIT}", "--batch_size=4", f"--output_path={work / out}", "--log_samples", *more]
    local = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(work / "home"), "LMMS_EVAL_DATASETS_CACHE": str(work / "cache")}
    env = os.environ | local | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *command], cwd=work / "parquet", env=env, capture_output=True, text=True)


def run_well(work: Path, out: str) -> None:
    done = run(work, out)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def samples(folder: Path, task: str) -> list[dict[str, Any]]:
    (file,) = folder.rglob(f"*_samples_{task}.jsonl")
    found = [json.loads(line) for line in file.read_text().splitlines()]
    return sorted(found, key=lambda sample: sample["doc_id"])


def text_of(sample: dict[str, Any]) -> str:
    given = sample["filtered_resps"]
    return given if isinstance(given, str) else given[0]


def test_answers_and_scores_are_ours(work: Path) -> None:
    run_well(work, "out")
    names = [ours for ours, _ in TASKS.values()]
    eve = EVE.from_pretrained(work / "hf", "shrink")
    outcomes = {one.task.benchmark: one for one in evaluate(eve, names, work / "parquet", None, "lmms", LIMIT, rows=7)}
    (results,) = (work / "out").rglob("*_results.json")
    found = json.loads(results.read_text())["results"]
    for task, (ours, (theirs, metric)) in TASKS.items():
        outcome = outcomes[ours]
        assert not outcome.failed and not outcome.error
        assert [text_of(sample) for sample in samples(work / "out", task)] == [
            (one.answer or "").strip() for one in outcome.answered
        ], task
        numbers = outcome.aggregate | outcome.further
        value = next(v for key, v in found[task].items() if key.split(",")[0] == theirs)
        if task != "mmmu_val":  # guesses at random where it cannot parse
            assert value == pytest.approx(numbers[metric], abs=1e-9), task


def test_a_rerun_asks_nothing_and_goes_on_after_a_kill(work: Path) -> None:
    """Answers that are there are kept, a line that a kill has cut is asked again, and the scores are the same."""
    file = work / "answers" / "answers" / "mme.lmms-eval.jsonl"
    before = file.read_text()
    lines = before.splitlines(keepends=True)
    assert len(lines) == LIMIT
    file.write_text("".join(lines[:5]) + lines[5][:20])
    run_well(work, "again")
    after = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["id"] for line in after[:5]] == [json.loads(line)["id"] for line in lines[:5]]
    assert {line["id"]: line["answer"] for line in after} == {
        line["id"]: line["answer"] for line in map(json.loads, lines)
    }
    for task in TASKS:
        first, second = (list(map(text_of, samples(work / out, task))) for out in ("out", "again"))
        assert first == second


def test_a_setting_that_is_refused_ends_the_run_with_our_line(work: Path) -> None:
    """Among lmms-eval's own lines; the setting and the question are named, and the status is 1."""
    done = run(work, "refused", "--gen_kwargs=num_beams=3")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    line = "the generation setting num_beams=3 is not supported; see --gen_kwargs"
    assert line in done.stdout + done.stderr
