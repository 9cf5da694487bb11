"""A source of the user's own is one file with one class, named as module:Class among other records."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from eve_jax.data.prepare.convert import Conversion, convert
from eve_jax.data.record import BadRecord
from eve_jax.data.sources.records import open_records
from eve_jax.errors import UserError
from eve_jax.train.metrics import read_metrics
from eve_jax.train.trainer import train

SOURCE = """
from eve_jax.data.record import BadRecord, Fields, Record, Turn

TEXTS = ["one", "two", "", "four"]

class Words:
    tables = None

    def __len__(self):
        return len(TEXTS)

    def where(self, index):
        return f"words#{index + 1}"

    def read(self, index):
        if not TEXTS[index]:
            raise BadRecord("an empty word", self.where(index), f"w{index}")
        turns = Turn("human", "Say it."), Turn("gpt", TEXTS[index])
        return Record(f"w{index}", (), turns, self.where(index)), Fields()

    def fingerprint(self):
        return repr(TEXTS)
"""
Own = Callable[[str, str], Path]


def test_its_records_among_others(tmp_path: Path, own_module: Own) -> None:
    own_module("toy_source", SOURCE)
    record = {"id": "j", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}
    (tmp_path / "more.jsonl").write_text(json.dumps(record) + "\n")
    records = open_records("more.jsonl, toy_source:Words")
    assert (records.names, records.starts.tolist()) == (["more.jsonl", "toy_source:Words"], [0, 1, 5])
    assert [records[index].id for index in (0, 1, 2, 4)] == ["j", "w0", "w1", "w3"]
    assert records[4].turns[1].text == "four"
    with pytest.raises(BadRecord, match=r"words#3 \(record w2\): an empty word"):
        records[3]
    before = records.fingerprint()
    own_module("toy_source", SOURCE.replace("two", "zwei"))
    assert open_records("more.jsonl, toy_source:Words").fingerprint() == before  # a module is imported once


def test_it_trains_and_is_part_of_the_identity(stage: ConfigDict, tmp_path: Path, own_module: Own) -> None:
    own_module("toy_source", SOURCE)
    stage.data.records = f"{stage.data.records},toy_source:Words"
    stage.data.repeats = "1," * stage.data.records.count(",") + "20"
    stage.train.steps, stage.train.writers = 1, "none"
    folder = train(stage, tmp_path, quiet=True)
    assert len(read_metrics(folder)) == 1
    bad = [json.loads(line) for line in (folder / "bad_records.jsonl").read_text().splitlines()]
    assert {"where": "words#3", "id": "w2", "image": "", "reason": "an empty word", "found": "planning"} in bad
    own_module("other_source", SOURCE.replace("two", "zwei"))
    stage.data.records = stage.data.records.replace("toy_source", "other_source")
    with pytest.raises(UserError, match=r"records of other_source:Words .* are not those of its last checkpoint"):
        train(stage, tmp_path, quiet=True)


@pytest.mark.parametrize("processes", [1, 2])
def test_it_is_converted(processes: int, tmp_path: Path, own_module: Own) -> None:
    own_module("toy_source", SOURCE)
    summary = convert(Conversion("toy_source:Words", "", str(tmp_path / "made"), 2, "headers"), processes=processes)
    assert (summary["kept"], summary["reasons"]) == (3, {"an empty word": 1})
    assert [r.turns[1].text for r in open_records(str(tmp_path / "made"))] == ["one", "two", "four"]


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ("no_such:Words", "there is no module no_such; put it into the current folder or on PYTHONPATH"),
        ("toy_source.sub:Words", r"there is no module toy_source\.sub"),
        ("toy_source:Word", r"module toy_source \(.*toy_source\.py\) has no Word"),
        ("toy_source:TEXTS", "is no class; expected the class of a source"),
        ("toy_source:Words,toy_source:Nothing", "has no Nothing"),
    ],
)
def test_what_is_missing_is_named(named: str, says: str, own_module: Own) -> None:
    own_module("toy_source", SOURCE)
    with pytest.raises(UserError, match=rf"^config\.data\.records: .*{says}[^\n]*$"):
        open_records(named)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"def where": "def place"}, "class broken:Words has no where; a source has __len__, read, where, fingerprint"),
        ({"    tables = None": ""}, "class broken:Words has no tables"),
        ({"import BadRecord,": "import NoSuch,"}, "module broken cannot be imported: ImportError: cannot import name"),
        (
            {"TEXTS = ": "import no_package; TEXTS = "},
            "cannot be imported: ModuleNotFoundError: No module named 'no_pa",
        ),
        ({"TEXTS = [": "TEXTS = [("}, "module broken cannot be imported: SyntaxError"),
        ({"    tables = None": "    def __init__(self): self.x = {}['y']"}, r"broken:Words\(\) failed: KeyError: 'y'"),
        ({"return len(TEXTS)": "return 1.5"}, r"broken:Words: __len__\(\).* not a whole number|failed: TypeError"),
        ({"return repr(TEXTS)": "return TEXTS"}, r"fingerprint\(\) gives \['one'.* \(list\), not a text"),
        ({"tables = None": "tables = 3"}, "tables gives 3 .*, not a folder or None"),
    ],
)
def test_a_class_that_is_no_source(change: dict[str, str], says: str, own_module: Own) -> None:
    text = SOURCE
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)
    own_module("broken", text)
    with pytest.raises(UserError, match=rf"^config\.data\.records: [^\n]*{says}[^\n]*$"):
        open_records("broken:Words")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"TEXTS[index])": "{}[index])"}, r"read\(0\) failed: KeyError: 0 .*raise BadRecord for a record"),
        ({", Fields()": ""}, r"read\(0\) gives .*, not a Record and Fields"),
        ({'"human"': '"user"'}, r"read\(0\) gives .*, not a tuple of Turns of system, human, gpt"),
        ({"(), turns": "[], turns"}, r"read\(0\) gives \[\] \(list\), not a tuple of paths or StoredImages"),
        ({'Record(f"w{index}"': "Record(index"}, r"read\(0\) gives .*, not texts id and where"),
    ],
)
def test_a_record_that_is_none(change: dict[str, str], says: str, own_module: Own) -> None:
    """What stops a run: a fault of the class, other than a record that it refuses."""
    ((old, new),) = change.items()
    assert old in SOURCE
    own_module("broken", SOURCE.replace(old, new))
    records = open_records("broken:Words")
    with pytest.raises(UserError, match=says) as raised:
        records.read(0)
    assert not isinstance(raised.value, BadRecord)
