"""A config of the user's own takes one file and no change in the package: by its path, or as MODULE:FUNCTION."""

import subprocess
from pathlib import Path

import pytest

from tests.data.synthetic import byte_tokenizer, write_records
from tests.launcher import launch

MINE = '''
"""My stage. Arguments: the number of rows."""

from configs import stage3


def get_config(arg=""):
    c = stage3.get_config("llm=tiny,variant=dense")
    c.name = "mine"
    c.data.rows = int(arg or 2)
    return c


def on_captions(arg=""):
    c = get_config(arg)
    c.name, c.stage, c.data.template = "captions", "1", "plain"
    return c


def broken(arg=""):
    c = get_config(arg)
    c.data.image_mode = "anyratio_dl"
    return c
'''

SHOWN = """
import sys
from eve_jax.config.stage import Config
from launch._configs import load_config

c = Config.of(load_config(sys.argv[1]))
print(c.name, c.data.rows)
"""


def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m ARGS` in `folder`, which is outside the repository."""
    return launch(*args, cwd=folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mine")
    (made / "sub").mkdir()
    (made / "sub" / "my_stage.py").write_text(MINE)
    (made / "my_stages.py").write_text(MINE)
    (made / "shown.py").write_text(SHOWN)
    write_records(made, 8)
    byte_tokenizer(["<|im_end|>"]).save(made / "tokenizer")
    return made


@pytest.mark.parametrize(
    ("config", "name", "rows"),
    [
        ("sub/my_stage.py:3", "mine", 3),
        ("my_stages:on_captions", "captions", 2),
        ("my_stages:on_captions:4", "captions", 4),
    ],
)
def test_rows_of_my_stage(folder: Path, config: str, name: str, rows: int) -> None:
    """The stage's own name and number of rows reach what the command does, and overrides win."""
    fields = ["--config.data.records=records.jsonl", "--config.data.images=images", "--config.data.tokenizer=tokenizer"]
    sizes = ["--config.data.max_tokens=512", "--config.data.row_tokens=512", "--config.data.micro_batches=1"]
    out = f"--out={name}{rows}.html"
    done = run(folder, "launch.prepare_data", "show", f"--config={config}", *fields, *sizes, out)
    assert done.returncode == 0, done.stderr
    assert (folder / f"{name}{rows}.html").is_file()
    shown = run(folder, "shown", config)
    assert shown.stdout.split() == [name, str(rows)], shown.stderr


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            "my_stages:on_caption",
            "module my_stages cannot be used: it has no function on_caption; did you mean on_captions?",
        ),
        ("my_stage:get_config", "unknown config 'my_stage'; known: "),
        ("my_stage:get_config", "there is no module 'my_stage' on Python's path either"),
        ("nowhere.my_stage:f", "there is no module 'nowhere.my_stage'"),
        ("my_stages", "unknown config 'my_stages'; known: "),
        ("my_stages:MINE", "has no function MINE"),
        ("my_stages:get_config:x", "my_stages.py, line 10: invalid literal for int()"),
        ("sub/my_stages.py", "there is no file sub/my_stages.py"),
        ("my_stages:broken", "config.data.image_mode='anyratio_dl': expected one of anyratio_ld, "),
        ("stgae3", "did you mean stage3?"),
        ("os.path:getsize:my_stages.py", "returns int, not a ConfigDict"),
    ],
)
def test_what_is_not_found_is_named(folder: Path, config: str, says: str) -> None:
    before = sorted(folder.iterdir())
    done = run(folder, "launch.train", f"--config={config}", "--workdir=work")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith("error: ") and says in done.stderr
    assert [p for p in sorted(folder.iterdir()) if p.name != "__pycache__"] == before
