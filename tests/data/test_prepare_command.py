"""`python -m launch.prepare_data`: what users type, and what they see."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.data.synthetic import byte_tokenizer, write_records
from tests.launcher import launch
from tests.train.test_codes import write_vq

ROOT = Path(__file__).parents[2]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return launch("launch.prepare_data", *arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("command")
    write_records(target, 12)
    (target / "images" / "4_0.png").unlink()
    byte_tokenizer().save(target / "tokenizer")
    return target


def test_convert_then_show(folder: Path) -> None:
    made, out = folder / "made", folder / "rows.html"
    config = ("--config=stage3:llm=tiny", f"--config.data.tokenizer={folder}/tokenizer")
    convert = ("convert", f"--from={folder}/records.jsonl", f"--images={folder}/images", f"--to={made}")
    run = command(*convert, "--records_per_shard=5", "--processes=1", *config)
    assert (run.returncode, run.stdout.splitlines()[-1]) == (0, f"done: {made}")
    assert "11 records kept, 1 dropped" in run.stdout
    assert "missing file" in run.stdout
    assert "up to 128^2" in run.stdout
    assert "lengths: 11 records of" in run.stdout
    assert json.loads((made / "summary.json").read_text())["kept"] == 11
    run = command("show", *config, f"--config.data.records={made}", "--config.data.rows=2", f"--out={out}")
    assert (run.returncode, run.stdout) == (0, f"done: {out}\n")
    assert "<title>stage3: step 0 of " in out.read_text(encoding="utf-8")


def test_inspect(folder: Path) -> None:
    run = command("inspect", f"{folder}/records.jsonl", f"--images={folder}/images")
    lines = run.stdout.splitlines()
    assert (run.returncode, lines[0]) == (0, f"{folder}/records.jsonl: 12 records")
    assert lines[1].startswith("format: conversations (a list of {from, value}; llava, sharegpt")
    assert "cannot be used: 1 of 12" in lines
    assert sum("(record r" in line and line.endswith("characters learned") for line in lines) == 3


def test_nothing_but_bad_records(folder: Path) -> None:
    (folder / "bad.jsonl").write_text("{\n")
    run = command("convert", f"--from={folder}/bad.jsonl", f"--to={folder}/bad")
    assert run.returncode == 1
    assert run.stderr.strip() == f"error: {folder}/bad: none of the 1 record can be used; see its bad_records.jsonl"


def test_bad_command_lines_end_in_one_line(folder: Path) -> None:
    out = f"--out={folder}/x.html"
    for arguments, message in (
        ((), "say what to do first: python -m launch.prepare_data convert|inspect|show"),
        (("conver", "--to=x"), "'conver' is none of these; did you mean convert?"),
        (("convert", "--to=x"), "--from must be given"),
        (("inspect",), "RECORDS must be given"),
        (("inspect", f"{folder}/none.json"), "no such records file; set RECORDS to files"),
        (("inspect", "$NOWHERE/a.json"), "error: $NOWHERE/a.json: the environment variable NOWHERE is not set"),
        (("inspect", "s3://b//x"), "error: s3://b//x: "),
        (("inspect", "a.json", "--from=b.json"), "RECORDS and --from are both given; leave one of them out"),
        (("inspect", f"mesages:{folder}/records.jsonl"), "'mesages' is no format; expected one of conversations,"),
        (("inspect", f"mesages:{folder}/records.jsonl"), "did you mean messages?"),
        (("convert", f"--from={folder}/none.json", f"--to={folder}/x"), "no such records file; set --from to files"),
        (("show", out), "--config must be given"),
        (("show", out, "--config=stage3", "--processes=2"), "--processes is for convert, not for show"),
        (("show", "--config=demo:tiny", "--stage=stage9", out), "--stage=stage9 is not one of llm, llm_chat"),
    ):
        run = command(*arguments)
        assert run.returncode == 1
        assert message in run.stderr
        assert run.stderr.count("\n") == 1
    assert not (folder / "x").exists()


def test_codes_are_made_in_one_process(folder: Path) -> None:
    """Several are refused before anything is written."""
    write_vq(folder / "vq")
    config = (f"--config=dt:vq={folder}/vq,llm=tiny-llama", f"--config.data.tokenizer={folder}/tokenizer")
    convert = ("convert", f"--from={folder}/records.jsonl", f"--images={folder}/images", f"--to={folder}/codes")
    run = command(*convert, "--processes=2", *config)
    assert (run.returncode, run.stderr) == (
        1,
        "error: --processes=2: codes of images are made in one process, which uses every core or accelerator; leave "
        "--processes out\n",
    )
    assert not (folder / "codes").exists()
