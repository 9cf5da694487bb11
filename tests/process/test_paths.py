"""`~` and `$VAR` in every path that people give, where no shell has replaced them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import base, demo
from configs.args import parse_args
from eve_jax.data.text.load import load_tokenizer
from eve_jax.errors import UserError
from eve_jax.hf.clip_teacher import describe_teacher
from eve_jax.infer.api import EVE
from eve_jax.infer.messages import to_images
from eve_jax.infer.score_files import score_files
from eve_jax.process.paths import expand, expand_config, expand_list, no_folder
from eve_jax.weights.import_export import export_checkpoint
from eve_jax.weights.open import open_checkpoint
from tests.launcher import launch

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, a variable that names a folder, and a current folder of its own."""
    for name in ("home", "cwd", "data"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    monkeypatch.setenv("STAGE", "stage3")
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("~", "{home}"),
        ("~/runs/x", "{home}/runs/x"),
        ("$DATA/a.jsonl", "{data}/a.jsonl"),
        ("${DATA}/${STAGE}_b", "{data}/stage3_b"),
        ("runs/$STAGE", "runs/stage3"),
        ("~/$STAGE", "{home}/stage3"),
        ("~root/x", "/root/x"),
        ("a~b/~c", "a~b/~c"),
        ("cost$5/100$", "cost$5/100$"),
        ("", ""),
        ("/plain/path/", "/plain/path/"),
        ("BAAI/EVE-7B-HD-v2.0", "BAAI/EVE-7B-HD-v2.0"),
    ],
)
def test_expand(tmp_path, written, expected):
    expected = expected.format(home=tmp_path / "home", data=tmp_path / "data")
    assert expand(written) == expected
    if written:
        assert expand(Path(written)) == os.path.normpath(expected) or written.endswith("/")


def test_names_that_are_there_are_taken_as_written(tmp_path):
    Path("~old.jsonl").touch()
    Path("a$STAGE").mkdir()
    Path("$NOT_SET").mkdir()
    assert expand("~old.jsonl") == "~old.jsonl"
    assert expand("a$STAGE") == "a$STAGE"
    assert expand("a$STAGE/new/$STAGE") == "a$STAGE/new/stage3"
    assert expand("$NOT_SET/x") == "$NOT_SET/x"
    Path("~").mkdir()
    assert expand("~/runs") == f"{tmp_path}/home/runs"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("$NOT_SET/x", r"--to=\$NOT_SET/x: the environment variable NOT_SET is not set"),
        ("a/${NOT_SET}", r"--to=a/\$\{NOT_SET\}: the environment variable NOT_SET is not set"),
        ("~nobody_of_that_name/x", "there is no user nobody_of_that_name"),
    ],
)
def test_what_means_nothing_is_an_error(written, said):
    with pytest.raises(UserError, match=said):
        expand(written, "--to")


def test_lists(tmp_path):
    assert expand_list("~/a.jsonl, $DATA/b.tar,tfds:$DATA/c:train") == (
        f"{tmp_path}/home/a.jsonl,{tmp_path}/data/b.tar,tfds:{tmp_path}/data/c:train"
    )
    assert expand_list("~/a,b.jsonl") == f"{tmp_path}/home/a,b.jsonl"
    Path("$STAGE,x.jsonl").touch()
    assert expand_list("$STAGE,x.jsonl") == "$STAGE,x.jsonl"


def test_every_path_of_a_config(tmp_path):
    recipe = demo.get_config("tiny")
    for config, name in ((base.get_config("tiny"), "config"), (recipe.stages.stage1, "config.stages.stage1")):
        config.init, config.teacher = "~/i", "$DATA/t"
        config.data.records, config.data.images, config.data.tokenizer = "~/r,$DATA/s", "~/p", "${DATA}/tok"
        outer: ConfigDict = recipe if config is recipe.stages.stage1 else config
        expand_config(outer)
        h, d = tmp_path / "home", tmp_path / "data"
        assert (config.init, config.teacher) == (f"{h}/i", f"{d}/t")
        assert (config.data.records, config.data.images) == (f"{h}/r,{d}/s", f"{h}/p")
        assert config.data.tokenizer == f"{d}/tok"
        config.data.images = "$NOT_SET/x"
        with pytest.raises(UserError, match=rf"^{name}\.data\.images=\$NOT_SET/x: the environment variable"):
            expand_config(outer)
        config.data.images = ""


def test_doors_of_python(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}/home/model"):
        EVE.from_pretrained("~/model")
    with pytest.raises(UserError, match=r"folder=.*NOT_SET is not set"):
        EVE.from_pretrained("$NOT_SET/model")
    with pytest.raises(UserError, match=f"{tmp_path}/data/a.png"):
        to_images("$DATA/a.png")
    with pytest.raises(UserError, match=r"llm=.*NOT_SET is not set"):
        base.get_config("$NOT_SET/qwen")


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--config=stage3:llm=tiny", "--workdir={}"],
        ["train", "--config=stage3:llm=tiny", "--workdir=w", "--config.data.tokenizer={}"],
        ["train", "--config=stage3:llm={}", "--workdir=w"],
        ["recipe", "--config=demo:tiny", "--workdir={}"],
        ["recipe", "--config=demo:tiny", "--workdir=w", "--config.stages.stage1.init={}"],
        ["convert", "import", "--from={}", "--to=x"],
        ["convert", "export", "--from=x", "--to={}"],
        ["prepare_data", "convert", "--from=a.jsonl,{}", "--to=x"],
        ["prepare_data", "convert", "--from=a.jsonl", "--images={}", "--to=x"],
        ["prepare_data", "show", "--config=stage3", "--out={}"],
        ["score", "--checkpoint={}", "--records=x", "--out=y"],
        ["score", "--checkpoint=c", "--records=x,{}", "--out=y"],
        ["score", "--checkpoint=c", "--records=x", "--out={}"],
        ["chat", "--checkpoint={}"],
        ["chat", "--checkpoint=c", "--image=a.png", "--image={}"],
    ],
)
def test_a_variable_that_is_not_set_at_every_door(command):
    """One line that names flag or field, and nothing on disk."""
    arguments = [a.format("$NOT_SET/x") for a in command[1:]]
    done = launch(f"launch.{command[0]}", *arguments, cwd=Path.cwd())
    said = done.stderr
    field = next(a for a in command if "{}" in a).partition("=")[0].lstrip("-")
    assert (done.returncode, said.count("\n")) == (1, 1), said
    assert said.startswith("error: ")
    assert "the environment variable NOT_SET is not set" in said
    assert field in said or "llm=" in said
    assert not list(Path.cwd().iterdir())


def test_a_folder_is_made_in_the_home_folder(tmp_path):
    records = tmp_path / "data" / "r.jsonl"
    records.write_text(
        '{"id": "1", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}\n'
    )
    done = launch("launch.prepare_data", "convert", "--from=$DATA/r.jsonl", "--to=~/$STAGE", cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "home" / "stage3" / "eve_records.json").is_file()
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize("take", [open_checkpoint, load_tokenizer, describe_teacher])
def test_hub_ids_where_a_folder_alone_is_taken(take):
    with pytest.raises(
        UserError, match=r"^ORG/Name-1\.5B: no such folder; hf:ORG/Name-1\.5B or hf:.* is the hub's model"
    ):
        take("ORG/Name-1.5B")


@pytest.mark.parametrize(
    "take",
    [
        EVE.from_pretrained,
        base.get_config,
        lambda name: export_checkpoint(name, "out"),
        lambda name: score_files(name, str(write_record()), "", "scores.jsonl"),
    ],
)
def test_hub_ids_of_no_model(take):
    """Nothing listens where the tests have the hub."""
    with pytest.raises(UserError, match=r"^ORG/Name-1\.5B: no such folder, and the hub did not give it: "):
        take("ORG/Name-1.5B")
    assert [p.name for p in Path.cwd().iterdir() if p.name != "r.jsonl"] == []


def write_record() -> Path:
    turns = '[{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]'
    Path("r.jsonl").write_text(f'{{"id": "1", "conversations": {turns}}}\n')
    return Path("r.jsonl").absolute()


def test_paths_that_are_no_hub_id(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "runs" / "stage1", "runs", "a/b/c", "../a", "-", "a b/c"):
        with pytest.raises(UserError, match=r": no such folder$"):
            open_checkpoint(path)
    with pytest.raises(UserError, match=r"/file is a file; name the folder$"):
        open_checkpoint(tmp_path / "file")


def test_ascii_output():
    code = "from launch._flags import run; run(lambda: print('caf\\u00e9 \\u732b \\udcff'))"
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "caf\\xe9 \\u732b \\udcff\n"), done.stderr


@pytest.mark.parametrize(
    "given",
    [
        "ORG/Name-1.5B@main",
        "https:/huggingface.co/ORG/Name-1.5B",
        "https://huggingface.co/ORG/Name-1.5B/tree/main",
        "hf://ORG/Name-1.5B@v1.0",
    ],
)
def test_a_place_on_the_hub_in_other_spellings(given: str) -> None:
    with pytest.raises(UserError, match=r"no such folder; hf:ORG/Name-1\.5B or "):
        raise no_folder(given)


def test_an_argument_of_a_config_may_have_a_comma(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ba,se").mkdir()
    assert parse_args("x", "llm=ba,se,variant=moe", llm="", variant="") == {"llm": "ba,se", "variant": "moe"}
    assert parse_args("x", "variant=moe,llm=ba,se,hd", llm="", variant="", hd=False) == {
        "llm": "ba,se", "variant": "moe", "hd": True
    }  # fmt: skip
    with pytest.raises(UserError, match="unknown argument 'sf'"):
        parse_args("x", "llm=ba,sf", llm="")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("lora=", "lora requires lora=VALUE"),  # of a variable of the shell that is not set
        ("lora", "lora requires lora=VALUE"),
        ("hd=1", "hd takes no value"),
        ("lora=8,hd,lora=16", "lora is given twice"),
    ],
)
def test_an_argument_of_a_config_has_one_value(given: str, says: str) -> None:
    with pytest.raises(UserError, match=f"^--config=x:{given}: {says}$"):
        parse_args("x", given, lora="", hd=False)
