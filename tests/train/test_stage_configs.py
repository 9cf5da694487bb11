"""Every stage's config trains on the demo's records, and what is wrong with a command line is one line."""

from pathlib import Path

import pytest

from eve_jax.train.metrics import read_metrics
from eve_jax.train.trainer import train
from launch._configs import load_config
from tests.launcher import launch
from tests.train.placing import demo_data

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo_data(tmp_path_factory.mktemp("configs") / "data")


@pytest.mark.parametrize(
    "config",
    ["stage3", *(pytest.param(c, marks=pytest.mark.slow) for c in ("stage1", "stage2_1", "stage2_1:hd", "stage2_2"))],
)
def test_every_stage_config_trains_on_the_demos_records(data, tmp_path, config):
    records = "captions" if config.startswith(("stage1", "stage2_1")) else "sft"
    name, _, arg = config.partition(":")
    c = load_config(f"{name}:{','.join(filter(None, ('llm=tiny', arg)))}")
    c.data.update(records=f"{data}/{records}.jsonl", images=f"{data}/images", tokenizer=f"{data}/tokenizer")
    c.data.update(row_tokens=256, max_tokens=256, rows=2, micro_batches=1, max_shapes=1)
    c.train.steps = 3
    c.model.patch_hidden = 32
    folder = train(c, tmp_path, quiet=True)
    assert len(read_metrics(folder)) == 3
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--config=stage9"], "unknown config 'stage9'; known: caption, curate, demo, "),
        (["--config=stage3", "--config.optim.lrr=1"], "no field config.optim.lrr; did you mean config.optim.lr?"),
        (["--config=stage3:llm=nope"], "unknown LLM 'nope'"),
        (["--config=stage3", "--config.data.records=/nope.jsonl"], "/nope.jsonl"),
        (["--config=stage3:llm=tiny", "--config.mesh=fsdp:3"], "config.mesh"),
        (["--config=serve:llm=tiny"], "--config=serve is of inference, for launch.compile alone"),
    ],
)
def test_errors_are_one_line(data, tmp_path, args, says):
    given = " ".join(args)
    args = [*args, f"--workdir={tmp_path}", f"--config.data.tokenizer={data}/tokenizer"]
    if "data.records" not in given:
        args += [f"--config.data.records={data}/sft.jsonl", f"--config.data.images={data}/images"]
    done = launch("launch.train", *args)
    assert done.returncode == 1
    (line,) = [x for x in done.stderr.splitlines() if x]
    assert line.startswith("error: ")
    assert says in line
