"""Flags of launch.eval: each that has no effect on what is asked for is refused by name, with where it applies."""

import json
import re
from pathlib import Path

import pytest

from eve_jax.eval.chosen import Choice
from eve_jax.eval.effects import EFFECTS, without_effect
from tests.eval.data_files import write_hub
from tests.launcher import ROOT, launch

ASKING, SCORE, REPLAY = "launch.eval --checkpoint=...", "launch.eval score", "launch.eval replay"
JUDGE = ("judge", "judge_model")
QUESTIONS = ("limit", "rows", "threads", "fit", "max_size", "template")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with benchmarks, own questions with answers to them, and a text."""
    folder = tmp_path_factory.mktemp("data")
    write_hub(folder, "gqa")
    write_hub(folder, "mmvet")
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


def test_every_flag_is_in_the_table_of_where_it_applies() -> None:
    source = (ROOT / "launch" / "eval.py").read_text()
    defined = re.findall(r'(?:DEFINE_\w+|define_paths?)\(\s*"(\w+)"', source)
    table = source[source.index("SCORING = (") : source.index("\n}\n", source.index("APPLY = {"))]
    named = re.findall(r'"([a-z_]+)"', table)
    elsewhere = {"coordinator", "num_processes", "process_id", "peer_timeout", "start_timeout", "weights"}
    assert len(defined) == 19 and {*defined, *elsewhere} == {*named} - {"score", "replay", "compare"}


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        (
            ["score", "--answers=x", "--checkpoint=y", "--rows=2", "--num_processes=2", "--json"],
            {"checkpoint": [ASKING], "rows": [ASKING], "num_processes": [ASKING], "json": [REPLAY]},
        ),
        (["--checkpoint=x", "--tasks=gqa", "--out=y", "--answers=z"], {"answers": [SCORE]}),
        (["replay", "FILE", "--metric=exact"], {"metric": [ASKING, SCORE]}),
        (["compare", "A", "B", "--out=y", "--nojson"], {"out": [ASKING, SCORE], "json": [REPLAY]}),
    ],
)
def test_flags_of_another_action(arguments: list[str], refused: dict[str, list[str]]) -> None:
    here = ASKING if arguments[0].startswith("-") else f"launch.eval {arguments[0]}"
    places = {name: " and ".join(where) for name, where in refused.items()}
    expected = [f"--{name} applies to {where}, not to {here}: leave it out" for name, where in places.items()]
    assert sorted(error(*arguments).split("; ")) == sorted(expected)


@pytest.mark.parametrize(
    ("tasks", "refused"),
    [
        (["gqa"], ("metric", "images", *JUDGE)),
        (["mmvet"], ("metric", "images")),
        (["mine.jsonl"], ("data", *JUDGE)),
        (["text.txt"], (*QUESTIONS, "data", "metric", "images", *JUDGE)),
        (["mine.jsonl", "mmvet", "text.txt"], ()),
    ],
)
def test_flags_without_effect_on_the_tasks(data: Path, tasks: list[str], refused: tuple[str, ...]) -> None:
    names = [str(data / name) if "." in name else name for name in tasks]
    chosen = Choice(names, data, judge=True).open()
    every = [name for settings, _, _ in EFFECTS for name in settings]
    said = without_effect(every, chosen)
    assert [line.split()[0] for line in said] == [f"--{name}" for name in refused]
    assert all(line.endswith(f", not to {', '.join(one.task.name for one in chosen)}: leave it out") for line in said)


@pytest.mark.parametrize(
    ("tasks", "takes"),
    [("gqa", True), ("gqa.eve", False), ("a.jsonl", False), ("a.TXT", False), ("gqa.eve,a.txt,mme", True)],
)
def test_which_tasks_take_a_protocol(tasks: str, takes: bool) -> None:
    assert Choice(tasks.split(",")).takes_protocol is takes


def test_commands_with_flags_without_effect_or_too_few(data: Path) -> None:
    """One line, before a model is looked for, and nothing is written."""
    own = f"--tasks={data / 'mine.jsonl'}"
    asking = ["--checkpoint=none", f"--out={data / 'out'}"]
    protocol = "--protocol applies to benchmarks whose protocol is not stated by their name: leave it out"
    assert error(*asking, own, "--protocol=both") == protocol
    line = error("score", f"--answers={data / 'said.jsonl'}", own, "--protocol=lmms", f"--data={data}")
    assert line == f"--data applies to benchmarks, not to mine.own: leave it out; {protocol}"
    line = error(own)
    assert line.startswith("missing: --checkpoint (folder of a trained stage, an import, a Hugging Face folder, or")
    assert "; --out (folder for answers and reports" in line and "--tasks" not in line
    line = error(*asking, own)
    assert line.startswith("--checkpoint: none: no such folder; it takes a folder of a trained stage")
    assert not any((data / "out").rglob("*.jsonl"))
