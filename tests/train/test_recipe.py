"""The demo recipe at test size: ends with its report, resumes bit for bit after Ctrl-C."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs import demo, evev2, serve
from eve_jax.errors import UserError
from eve_jax.recipe import run_recipe
from eve_jax.train.metrics import read_metrics
from tests.launcher import launch

STAGES = ("llm", "llm_chat", "stage1", "stage2_1", "stage2_2", "stage3")
ROOT = Path(__file__).parents[2]
# Two stages with one row shape each, for fewer compilations; the later ones have two.
ONE_SHAPE = ("stage1", "stage2_1")
RECIPE = ("launch.recipe", "--config=demo:tiny", *(f"--config.stages.{s}.data.max_shapes=1" for s in ONE_SHAPE))
HERE = str(Path(__file__))
REST = tuple(evev2.get_config("llm=tiny").order)
pytestmark = pytest.mark.long


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", *args]


def run(*args: str) -> str:
    """Return what the command prints; it has to end well."""
    done = launch(*args)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def losses(workdir: Path) -> dict[str, list[tuple]]:
    keys = ("step", "loss", "lr", "grad_norm", "tokens", "vision_tokens", "targets", "rows")
    return {s: [tuple(m[k] for k in keys) for m in read_metrics(workdir / s)] for s in STAGES}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("recipe") / "work"
    return workdir, run(*RECIPE, f"--workdir={workdir}")


def test_report_and_chat(undisturbed):
    workdir, out = undisturbed
    report = json.loads((workdir / "report.json").read_text())
    assert {"accuracy", "blind_accuracy", "per_task", "stages"} <= report.keys()
    assert set(report["stages"]) == set(STAGES)
    for stage in report["stages"].values():
        assert stage["last_loss"] < stage["first_loss"]
    for picture in ("report.png", "losses.png", "stage3/report.png"):
        assert (workdir / picture).stat().st_size > 10_000
    line = next(line for line in out.splitlines() if "-m launch.chat" in line)
    chat = subprocess.run(line.strip() + " --json", shell=True, cwd=ROOT, capture_output=True)
    answer = json.loads(chat.stdout)
    assert answer.keys() == {"prompt", "text", "new_ids"}


def test_metrics_and_skipping(undisturbed):
    workdir, _ = undisturbed
    before = losses(workdir)
    for lines in before.values():
        assert [line[0] for line in lines] == list(range(1, len(lines) + 1))
    assert all(m[5] == 0 for m in before["llm"] + before["llm_chat"])
    assert all(0 < m[5] < m[4] for m in before["stage1"])
    config = demo.get_config("tiny")
    for name in ONE_SHAPE:
        config.stages[name].data.max_shapes = 1
    run_recipe(config, workdir)
    assert losses(workdir) == before


PHASES = ("data", *STAGES, "answers")


def reached(workdir: Path, printed: Path, phase: str, steps: int) -> bool:
    """True when a run, whose output goes to the file `printed`, is in the midst of `phase`."""
    if phase == "data":
        return any((workdir / "data.partial").glob("images/*/*"))
    if phase == "answers":
        return "held-out questions" in printed.read_text()
    return len(read_metrics(workdir / phase)) >= steps


def interrupted(undisturbed: Path, workdir: Path, phase: str, steps: int = 1) -> None:
    """Run a copy of the undisturbed recipe anew from `phase`, interrupt it there by Ctrl-C, and resume."""
    shutil.copytree(undisturbed, workdir)
    for later in PHASES[PHASES.index(phase) :]:
        if (workdir / later).is_dir():
            shutil.rmtree(workdir / later)
    (workdir / "report.json").unlink()
    args = command(*RECIPE, f"--workdir={workdir}")
    printed = workdir.parent / "output.txt"
    with printed.open("w") as file:
        process = subprocess.Popen(args, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
    limit = time.monotonic() + 300
    while not reached(workdir, printed, phase, steps) and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=300)
    out = printed.read_text()
    assert process.returncode == 130, out[-2000:]
    assert "Traceback" not in out
    assert not (workdir / "report.json").exists()
    if phase in STAGES:
        assert len(read_metrics(workdir / phase)) < len(read_metrics(undisturbed / phase))
    run(*RECIPE, f"--workdir={workdir}")
    assert (workdir / "report.json").exists()


@pytest.mark.slow
def test_ctrl_c_changes_nothing(undisturbed, tmp_path):
    interrupted(undisturbed[0], tmp_path / "work", "stage2_2", 2)
    assert losses(tmp_path / "work") == losses(undisturbed[0])


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_ctrl_c_in_every_phase(undisturbed, tmp_path, phase):
    interrupted(undisturbed[0], tmp_path / "work", phase)
    assert losses(tmp_path / "work") == losses(undisturbed[0])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "config.stages.stage1.data.records is empty"),
        ({"stage1": "a.jsonl"}, "config.stages.stage1.data.tokenizer is empty"),
        ({"stage1": "a.jsonl", "stage2_1": "a.jsonl"}, "config.stages.stage2_1_hd.data.records is empty"),
        (dict.fromkeys(REST, HERE) | {"stage3": "gone.jsonl"}, "gone.jsonl: "),
        (dict.fromkeys(REST, HERE) | {"stage3": "gone*.jsonl"}, "gone*.jsonl: no file matches; config.stages.stage3"),
    ],
)
def test_every_stage_must_name_its_records_before_anything_is_written(tmp_path, given, says):
    config = evev2.get_config("llm=tiny")
    if len(given) > 1:
        config.stages.stage1.data.tokenizer = "tokenizer"
    for name, records in given.items():
        config.stages[name].data.records = records
    with pytest.raises(UserError) as error:
        run_recipe(config, tmp_path / "runs")
    assert str(error.value).startswith(says)
    assert list(tmp_path.iterdir()) == []


def test_a_config_of_inference_is_no_recipe(tmp_path):
    with pytest.raises(UserError, match="--config=serve is of inference"):
        run_recipe(serve.get_config("llm=tiny"), tmp_path / "runs")


def test_a_stage_of_a_recipe_names_its_fields(tmp_path):
    config = demo.get_config("tiny")
    config.order, config.demo = ("stage1",), None
    config.stages.stage1.data.update(records=HERE, images="", tokenizer=str(ROOT))
    with pytest.raises(UserError, match=r"set config\.stages\.stage1\.data\.tokenizer to a folder"):
        run_recipe(config, tmp_path)


def test_order_of_unknown_stages():
    config = demo.get_config("tiny")
    config.order = ("llm", "stage9")
    with pytest.raises(UserError, match=r"'stage9'.*stages: llm, llm_chat"):
        run_recipe(config, Path("never"))
