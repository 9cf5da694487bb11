"""Flags of launch.eval: each that has no effect on what is asked for is refused by name, with where it applies."""

import json
import re
from pathlib import Path

import pytest

from launch import eval as command
from tests.eval.data_files import write_hub
from tests.launcher import launch

ASKING, SCORE = "launch.eval --checkpoint=...", "launch.eval score"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a benchmark, own questions with answers to them, and a text."""
    folder = tmp_path_factory.mktemp("data")
    write_hub(folder, "gqa")
    turns = [{"from": "human", "value": "Which?"}, {"from": "gpt", "value": "A"}]
    (folder / "mine.jsonl").write_text(json.dumps({"id": "1", "conversations": turns}) + "\n")
    (folder / "said.jsonl").write_text(json.dumps({"id": "1", "answer": "a"}) + "\n")
    (folder / "text.txt").write_text("A passage.\n")
    return folder


def error(*arguments: str) -> str:
    """The line of a command that is refused."""
    done = launch("launch.eval", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    return done.stderr.removeprefix("error: ").rstrip()


def test_every_flag_is_in_the_table() -> None:
    source = Path(command.__file__).read_text()
    defined = re.findall(r'(?:DEFINE_\w+|define_paths?)\(\s*"(\w+)"', source)
    every = {name for names in command.APPLY.values() for name in names}
    assert len(defined) == 19 and {*defined, *command.PROCESSES} == every


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        (["score", "--answers=x", "--checkpoint=y"], {"checkpoint": [ASKING]}),
        (
            ["score", "--answers=x", "--rows=2", "--mesh=data:2", "--num_processes=2"],
            {"rows": [ASKING], "mesh": [ASKING], "num_processes": [ASKING]},
        ),
        (["score", "--answers=x", "--json"], {"json": ["launch.eval replay"]}),
        (["--checkpoint=x", "--tasks=gqa", "--out=y", "--answers=z"], {"answers": [SCORE]}),
        (["replay", "FILE", "--metric=exact"], {"metric": [ASKING, SCORE]}),
        (["compare", "A", "B", "--out=y", "--nojson"], {"out": [ASKING, SCORE], "json": ["launch.eval replay"]}),
    ],
)
def test_flags_of_another_action(arguments: list[str], refused: dict[str, list[str]]) -> None:
    here = ASKING if arguments[0].startswith("-") else f"launch.eval {arguments[0]}"
    said = error(*arguments).split("; ")
    places = {name: " and ".join(where) for name, where in refused.items()}
    expected = [f"--{name} applies to {where}, not to {here}: leave it out" for name, where in places.items()]
    assert sorted(said) == sorted(expected)


@pytest.mark.parametrize(
    ("tasks", "given", "says"),
    [
        ("gqa", ["--data=DATA", "--metric=exact"], "--metric applies to .jsonl files of questions of your own"),
        ("gqa", ["--data=DATA", "--images=DATA"], "--images applies to .jsonl files of questions of your own"),
        (
            "gqa",
            ["--data=DATA", "--judge=http://x/v1", "--judge_model=m"],
            "--judge applies to tasks that need",
        ),
        (
            "gqa.eve",
            ["--data=DATA", "--protocol=lmms"],
            "--protocol applies to benchmarks whose protocol is not",
        ),
        ("DATA/mine.jsonl", ["--data=DATA"], "--data applies to benchmarks, not to mine.own: leave it out"),
        ("DATA/mine.jsonl", ["--protocol=both"], "--protocol applies to benchmarks whose protocol is not"),
        (
            "DATA/text.txt",
            ["--limit=3"],
            "--limit applies to benchmarks and .jsonl files of questions, not to",
        ),
        (
            "DATA/text.txt",
            ["--fit=fill"],
            "--fit applies to benchmarks and .jsonl files of questions, not to",
        ),
    ],
)
def test_flags_without_effect_on_the_tasks(data: Path, tasks: str, given: list[str], says: str) -> None:
    """Refused before a model is looked for, by the same line for asking and, where it has the flag, for scoring."""
    given = [f"--tasks={tasks}", *given]
    given = [argument.replace("DATA", str(data)) for argument in given]
    assert says in error("--checkpoint=none", f"--out={data / 'out'}", *given)
    if not tasks.endswith(".txt"):
        assert says in error("score", f"--answers={data / 'said.jsonl'}", *given)
    assert not (data / "out").exists()


def test_what_is_missing(data: Path) -> None:
    tasks = f"--tasks={data / 'mine.jsonl'}"
    line = error(tasks)
    assert line.startswith(
        "missing: --checkpoint (folder of a trained stage, an import, a Hugging Face folder, or a hub"
    )
    assert "; --out (folder for answers and reports" in line and "--tasks" not in line
    assert error("score").startswith("missing: --answers (score: files or folders of answers")
    line = error(tasks, "--checkpoint=none", f"--out={data / 'out'}")
    assert line.startswith("--checkpoint: none: no such folder; it takes a folder of a trained stage")
