"""Data sets of the hub as records: which files, read by range, the same rows as of the files, one commit, faults."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from configs import base
from eve_jax.config.stage import Config
from eve_jax.data.image_file import image_bytes
from eve_jax.data.prepare.convert import Conversion, convert
from eve_jax.data.record import BadRecord, Record
from eve_jax.data.sources.hub import RangeFile
from eve_jax.data.sources.hub_files import pinned_records, splits_of
from eve_jax.data.sources.records import check_present, open_records
from eve_jax.data.sources.shards import read_dataset
from eve_jax.errors import Unreachable, UserError
from eve_jax.train.lineage import as_begun
from tests.data.source_files import samples_of, write_parquet
from tests.data.synthetic import write_records
from tests.hub.conftest import forget
from tests.hub.server import Hub

ID = "org/talks"
NAME = f"hf:{ID}"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two Parquet files of six records each."""
    write_records(tmp_path, 12)
    samples = samples_of(tmp_path)
    (tmp_path / "data").mkdir()
    names = ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet")
    return [write_parquet(tmp_path / "data" / name, samples[6 * k : 6 * k + 6], 3) for k, name in enumerate(names)]


@pytest.fixture
def commit(hub: Hub, files: list[Path]) -> str:
    """The data set on the hub, with a split of its own name and files that no split has."""
    parts = {f"data/{path.name}": path.read_bytes() for path in files}
    card = b"---\nlicense: cc-by-4.0\n---\n# Talks\n"
    return hub.add(ID, {**parts, "data/test-0.parquet": parts[f"data/{files[1].name}"], "README.md": card}, "datasets")


def taken(record: Record) -> tuple:
    """What a record holds, but for where it stands."""
    return record.id, record.turns, [image_bytes(image) for image in record.images]


def test_the_same_records_as_of_the_files(hub: Hub, commit: str, files: list[Path]) -> None:
    remote, local = open_records(NAME), open_records(",".join(map(str, files)))
    assert [taken(record) for record in remote] == [taken(record) for record in local]
    assert remote.where(7) == f"{NAME}@{commit}/data/{files[1].name}#2" == remote[7].where
    assert (
        len(open_records(f"{NAME}@main:default:test"))
        == 6
        == len(open_records(f"llava:{NAME}::test".replace("::", ":default:")))
    )
    assert remote.fingerprint() == open_records(NAME).fingerprint() != local.fingerprint()
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.parquet"))  # nothing is kept
    check_present(NAME, "")


def test_only_what_is_asked_for_is_read(hub: Hub, commit: str, files: list[Path]) -> None:
    records, local = open_records(NAME), open_records(str(files[0]))
    hub.asked.clear()
    assert records[4].turns == local[4].turns  # of the second row group, which begins with record 3
    ranges = [tuple(map(int, asked.removeprefix("bytes=").split("-"))) for asked in hub.ranges()]
    images = sum(len(image_bytes(image)) for record in (local[3], local[4], local[5]) for image in record.images)
    assert 0 < sum(last - first + 1 for first, last in ranges) < 4000 < images
    hub.asked.clear()
    _ = records[3], records[5]
    assert not hub.asked
    assert image_bytes(records[4].images[0]) == image_bytes(local[4].images[0])
    assert sum(int(a.split("-")[1]) - int(a[6:].split("-")[0]) + 1 for a in hub.ranges()) < images + 4000


def test_prepared_shards_are_those_of_the_files(hub: Hub, commit: str, files: list[Path], tmp_path: Path) -> None:
    convert(Conversion(",".join(map(str, files)), "", str(tmp_path / "local"), 4, "decode"))
    convert(Conversion(NAME, "", str(tmp_path / "remote"), 4, "decode"))
    assert read_dataset(tmp_path / "remote") == read_dataset(tmp_path / "local")


def test_a_conversion_keeps_its_commit(hub: Hub, commit: str, files: list[Path], tmp_path: Path) -> None:
    stopped: list[str] = []

    def closed(path: str) -> int:
        """Refuse the second file once the records of the first are converted."""
        if path.endswith(files[1].name) and (tmp_path / "out" / "00005.json").is_file():
            stopped.append(path)
            return 403
        return 0

    hub.closed = closed
    with pytest.raises(Unreachable, match=rf"^{NAME}@{commit}/data/{files[1].name}: cannot be read from the hub"):
        convert(Conversion(NAME, "", str(tmp_path / "out"), 1, "headers"))
    assert stopped and not (tmp_path / "out" / "00006.json").exists()
    hub.closed = lambda path: 0
    hub.add(ID, {"data/train.parquet": b"other"}, "datasets")
    forget()
    assert convert(Conversion(NAME, "", str(tmp_path / "out"), 1, "headers"))["kept"] == 12
    with pytest.raises(UserError, match="the run began with"):
        convert(Conversion(f"{NAME}@{'0' * 40}", "", str(tmp_path / "out"), 1, "headers"))


def test_a_run_keeps_its_commit(hub: Hub, commit: str, tmp_path: Path) -> None:
    def config() -> Config:
        written = base.get_config("tiny")
        written.data.records, written.eval.records = f"a.jsonl,{NAME}", f"{NAME}:default:test"
        return Config.of(written)

    began = config()
    assert began.data.records == f"a.jsonl,{NAME}@{commit}" and began.eval.records == f"{NAME}@{commit}:default:test"
    (tmp_path / "stage" / "checkpoints" / "5").mkdir(parents=True)
    (tmp_path / "stage" / "config.json").write_text(began.to_json())
    later = hub.add(ID, {"README.md": b""}, "datasets")
    forget()
    now = config()
    assert later in now.data.records
    assert as_begun(tmp_path / "stage", now).to_json() == began.to_json()


def test_what_the_hub_does_not_give_is_no_bad_record(hub: Hub, commit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    records = open_records(NAME)
    image = records[1].images[0]
    hub.closed = lambda path: 403 * ("resolve" in path)
    for read in (lambda: records[7], lambda: image_bytes(image)):
        with pytest.raises(Unreachable, match="cannot be read from the hub") as found:
            read()
        assert not isinstance(found.value, BadRecord)
    hub.closed = lambda path: 0
    assert records[7].turns
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unreachable, match="HF_HUB_OFFLINE is set"):
        _ = records[10]


def test_offline_reads_the_cache(hub: Hub, commit: str, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download(ID, repo_type="dataset")
    forget()
    hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    remote = open_records(NAME)
    assert [taken(record) for record in remote] == [taken(one) for one in open_records(",".join(map(str, files)))]
    assert not hub.asked
    with pytest.raises(UserError, match=r"^hf:org/other: the hub did not give it: HF_HUB_OFFLINE is set"):
        open_records("hf:org/other")


def test_offline_with_a_part_of_the_files(hub: Hub, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing trains on the part of a data set that happens to be in the cache."""
    from huggingface_hub import hf_hub_download

    data = files[0].read_bytes()
    made = {f"data/train-0000{number}-of-00002.parquet": data for number in range(2)}
    hub.add("org/part", made | {"README.md": b"---\nlicense: mit\n---\n"}, "datasets")
    assert len(open_records("hf:org/part")) > 0  # reads by range, and keeps the commit alone
    forget()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"^hf:org/part: HF_HUB_OFFLINE is .* not have its Parquet files; .*`hf do"):
        open_records("hf:org/part")
    forget()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hf_hub_download("org/part", "data/train-00001-of-00002.parquet", repo_type="dataset")
    forget()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"the cache does not have data/train-00000-of-00002.parquet; where"):
        open_records("hf:org/part")


def test_a_server_without_ranges(hub: Hub, commit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from eve_jax.data.sources.hub_files import DataSet

    data = hub.files(ID, "datasets")["README.md"]
    file = RangeFile(DataSet.of(NAME).snapshot(), "README.md", len(data))
    assert (file.seek(3), file.read(5), file.read(0), file.seek(-2, 2), file.read(), file.read()) == (
        3, data[3:8], b"", len(data) - 2, data[-2:], b""
    )  # fmt: skip
    short = RangeFile(DataSet.of(NAME).snapshot(), "README.md", len(data) + 10)
    with pytest.raises(Unreachable, match="the hub gave"):
        short.read()


CARD = """---
configs:
- config_name: short
  data_files:
  - {split: train, path: "short/*.parquet"}
  - {split: test, path: [held/a.parquet, "held/**/b.parquet"]}
- config_name: long
  default: true
  data_files: "long/part-?.parquet"
- config_name: below
  data_dir: below
---
"""
FILES = [
    "short/0.parquet", "short/deep/0.parquet", "held/a.parquet", "held/x/b.parquet", "long/part-1.parquet",
    "long/part-10.parquet", "below/validation-0.parquet", "below/train/0.parquet", "README.md",
]  # fmt: skip


def test_splits_by_the_card(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text(CARD)
    found = {(one.config, one.name): (one.files, one.first) for one in splits_of(FILES, card)}
    assert found == {
        ("short", "train"): (("short/0.parquet",), False),
        ("short", "test"): (("held/a.parquet", "held/x/b.parquet"), False),
        ("long", "train"): (("long/part-1.parquet",), True),
        ("below", "train"): (("below/train/0.parquet",), False),
        ("below", "validation"): (("below/validation-0.parquet",), False),
    }
    card.write_text("---\na: [\n---\n")
    with pytest.raises(UserError, match=r"README\.md: its front matter cannot be read"):
        splits_of(FILES, card)


@pytest.mark.parametrize("files", ["7", "[7]", "[{split: train}]", "[{path: [7]}]", "{train: 7}"])
def test_configs_that_name_no_files_are_one_line(tmp_path: Path, files: str) -> None:
    card = tmp_path / "README.md"
    card.write_text(f"---\nconfigs:\n- config_name: a\n  data_files: {files}\n---\n")
    with pytest.raises(UserError, match=r"README\.md: `data_files` of its `configs` are neither patterns nor"):
        splits_of(FILES, card)


@pytest.mark.parametrize(
    ("file", "config", "split"),
    [
        ("data/train-00000-of-00001.parquet", "default", "train"),
        ("data/validation-00000-of-00001.parquet", "default", "validation"),
        ("en/test-00000-of-00001.parquet", "en", "test"),
        ("en/dev/0000.parquet", "en", "validation"),
        ("default/train/0000.parquet", "default", "train"),
        ("train/a.parquet", "default", "train"),
        ("latest.parquet", "default", "train"),
        ("my_eval.parquet", "default", "test"),
    ],
)
def test_splits_by_names(file: str, config: str, split: str, tmp_path: Path) -> None:
    (found,) = splits_of([file, "a.json"], tmp_path / "none")
    assert (found.config, found.name, found.files) == (config, split, (file,))


def test_what_is_not_there(hub: Hub, commit: str, files: list[Path]) -> None:
    data = files[0].read_bytes()
    hub.add("org/several", {"en/test-0.parquet": data, "de/test-0.parquet": data, "de/dev-0.parquet": data}, "datasets")
    card = b"---\nconfigs:\n- config_name: default\n  data_files: a.jsonl\n---\n"
    hub.add("org/lines", {"a.jsonl": b"{}", "README.md": card}, "datasets")
    hub.add("org/none", {"a.csv": b""}, "datasets")
    for name, says in {
        "hf:org/several": "the data set has several configs; name one, hf:org/several:CONFIG, of de, en",
        "hf:org/several:fr": "the data set has no config 'fr'; name one",
        "hf:org/several:de": "config de has no split train; name one, hf:org/several:de:SPLIT, of validation, test",
        "hf:org/several:en:train": "config en has no split train",
        "hf:org/lines": "split train of default is in a.jsonl; only Parquet files are read from the hub",
        "hf:org/none": "the data set has no Parquet files, which alone are read",
        "hf:org/absent": "the hub did not give it: it has none of that name",
        f"{NAME}@v7": "the hub did not give it: it has no such revision",
        "hf:org": "expected hf:ORG/NAME",
        f"{NAME}:a:b:c": "expected hf:ORG/NAME",
    }.items():
        with pytest.raises(UserError, match=f"^{name}: .*{says}"):
            open_records(name)
    assert len(open_records("hf:org/several:en")) == 6  # its only split
    assert pinned_records("a.jsonl,b\\,c.jsonl") == "a.jsonl,b\\,c.jsonl"
