"""Which format records are in: recognized by their fields, named before the source, or refused with the nearest."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from eve_jax.data.image.rule import ImageRule
from eve_jax.data.record import BadRecord, Record, Turn
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.sources.records import check_present, open_records
from eve_jax.data.view.inspect import inspect
from eve_jax.errors import UserError
from eve_jax.process.paths import expand_list
from tests.data.sources.record_formats import captions, finevision, img2dataset, talks
from tests.data.synthetic import byte_tokenizer

TALK = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A dot."}]
TURNS = (Turn("human", "What?"), Turn("gpt", "A dot."))
PAIR = {"user": "What?", "assistant": "A dot."}
CALL = {"role": "assistant", "content": "A dot.", "tool_calls": [{"function": {"name": "f"}}]}
ASK = {"role": "user", "content": "What?"}


def write(folder: Path, *records: dict[str, Any]) -> str:
    path = folder / "r.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def read(folder: Path, record: dict[str, Any], prefix: str = "") -> Record:
    return open_records(prefix + write(folder, record, {"caption": "A"}))[0]


@pytest.mark.parametrize(
    "record",
    [
        {"texts": [PAIR]},
        {"texts": [{**PAIR, "source": "x"}], "conversations": TALK},
        {"question": "What?", "answer": "A dot."},
        {"question": "What?", "answers": ["no", "A dot.", "A dot."]},
        {
            "question": "What?",
            "answers": [{"answer": "A dot."}],
            "answer": "a dot.",
            "multiple_choice_answer": "A dot.",
        },
        {"question": "Why?", "answer": "So.", "conversations": TALK},
        {"question": "What?", "answer": "A dot.", "caption": "Another text"},
        {"question": "What?", "caption": "A dot."},
        {"texts": ["of another kind"], "conversations": TALK},
        {"conversations": [{"from": "observation", "value": "What?"}, TALK[1]]},
    ],
)
def test_texts(record: dict[str, Any], tmp_path: Path) -> None:
    expected = TURNS[1:] if record.get("caption") == "A dot." else TURNS
    assert read(tmp_path, record).turns == expected


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"texts": ["a", "b"]}, "no conversations, messages or caption, but the fields 'texts'"),
        ({"texts": [PAIR, "x"]}, "entry 2 of texts is not an object with user and assistant"),
        ({"texts": [{**PAIR, "user": 3}]}, "user of entry 1 of texts is not a text but int"),
        ({"texts": [{**PAIR, "weight": 0}]}, "entry 1 of texts has weight 0, but every answer"),
        ({"texts": [PAIR], "conversations": [TALK[0], {**TALK[1], "value": "B"}]}, "hold different texts; keep one"),
        ({"question": "What?", "answer": 1}, "answer is 1, not a text or a list of texts"),
        ({"question": "What?", "answer": "B", "options": ["A", "B"]}, "has options, which are not read; write them"),
        ({"question": "What?", "answer": "B", "answers": ["A"]}, "answer and answers hold different texts"),
        ({"messages": [ASK, CALL]}, "turn 2 has tool_calls; calls of tools and their results are not trained"),
        ({"messages": [ASK, {"role": "tool", "content": "1"}]}, "turn 2 is from 'tool', calls of tools"),
        (
            {"conversations": [TALK[0], {"from": "function_call", "value": "f()"}]},
            "turn 2 is from 'function_call', calls",
        ),
        (
            {"caption": "A", "url": "https://e.org/a.jpg", "status": "failed_to_download"},
            "img2dataset has no image of it",
        ),
    ],
)
def test_texts_that_are_refused(record: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(BadRecord, match=reason):
        read(tmp_path, record)


@pytest.mark.parametrize(
    ("record", "nearest"),
    [
        ({"dialog": TALK}, "'dialog' is a list of {from, value}: call it conversations"),
        ({"x": [ASK]}, "'x' is a list of {role, content}: call it messages"),
        ({"qas": [PAIR]}, "'qas' is a list of {user, assistant}: call it texts"),
        (
            {"instruction": "What?", "output": "A dot."},
            "query (a text, with response; swift): call 'instruction' query and 'output' response",
        ),
        (
            {"image": "a.png", "text_input": "What?", "text_output": "A dot."},
            "call 'text_input' query and",
        ),
        (
            {"prompt": "What?", "chosen": "A dot.", "rejected": "A line."},
            "; swift): pairs of preferences are not trained on",
        ),
        ({"questions": [{"question": "What?"}]}, "'questions' holds a list of records"),
        ({"prompt": "What?"}, "the nearest format is query (a text, with response; swift); write 'prompt' so"),
        ({"image": "a.png", "b": "A dot."}, "the nearest format is conversations"),
        ({"image": "a.png", "captions": "A dot."}, "the nearest format is caption (a text; img2dataset)"),
        ({"quesiton": "What?"}, "the nearest format is question"),
        ({"a": 1}, "the nearest format is conversations (a list of {from, value}; llava"),
    ],
)
def test_what_is_not_recognized_is_refused_when_it_is_opened(
    record: dict[str, Any], nearest: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        open_records(write(tmp_path, *[record] * 20))
    error = str(caught.value)
    assert error.startswith(f"{tmp_path}/r.jsonl:1 (record r.jsonl:1): no conversations, messages or caption, but the")
    assert all(repr(name) in error for name in record)
    assert nearest in error
    assert error.endswith("(so are the first 16 records); formats are in docs/data.md#formats")
    pq.write_table(pa.table({name: [str(value)] for name, value in record.items()}), tmp_path / "r.parquet")
    with pytest.raises(UserError, match=r"has neither conversations nor a caption, but the columns .*; the nearest"):
        open_records(str(tmp_path / "r.parquet"))


def test_empty_fields_are_named(tmp_path: Path) -> None:
    for record, reason in (
        ({"question": "What?", "answers": []}, "but the fields 'question'; 'answers' is empty"),
        ({"conversations": [], "caption": ""}, "caption; 'conversations' and 'caption' are empty"),
        ({"query": "What?", "response": ""}, "; 'response' is empty"),
        ({"query": "What?", "response": 3, "history": []}, "response 1 is not a text but int$"),
    ):
        with pytest.raises(BadRecord, match=reason):
            read(tmp_path, record)
    with pytest.raises(BadRecord, match=r"is in the format question \(.*; 'question' and 'answers' are empty"):
        read(tmp_path, {"question": None, "answers": [], "a": 1}, "vqav2:")


def test_some_records_of_no_format_are_bad_ones(tmp_path: Path) -> None:
    records = open_records(write(tmp_path, *[{"a": 1}] * 15, {"caption": "A"}, {"caption": None}))
    assert records[15].turns == (Turn("gpt", "A"),)
    with pytest.raises(BadRecord):
        records[0]
    open_records(write(tmp_path, {"caption": None, "image": "a.png"}))


def test_a_named_format(tmp_path: Path) -> None:
    record = {"conversations": TALK, "messages": [ASK, {"role": "assistant", "content": "Another"}], "caption": "A"}
    with pytest.raises(BadRecord, match="conversations and messages hold different texts"):
        read(tmp_path, record)
    assert read(tmp_path, record, "sharegpt:").turns == TURNS
    assert read(tmp_path, record, "openai:").turns[1].text == "Another"
    assert read(tmp_path, record, "caption:").turns == (Turn("gpt", "A"),)
    wrong = r"r.jsonl:1 .*is not in the format texts \(a list of {user, assistant}; finevision.* but has the fields "
    with pytest.raises(UserError, match=wrong + "'conversations', .*: name it conversations, or name no format"):
        read(tmp_path, record, "cauldron:")
    with pytest.raises(UserError, match=wrong + "'prompt', 'id'; the nearest format is query"):
        read(tmp_path, {"prompt": "A", "id": 1}, "cauldron:")
    path = write(tmp_path, record)
    named, other = open_records(f"openai:{path}"), open_records(f"llava:{path}")
    assert named.fingerprint() != other.fingerprint()
    assert named.read(0)[1].unused == ("conversations", "caption")
    assert named.names == [f"openai:{path}"]
    with pytest.raises(UserError, match="no such records file"):
        open_records("openai:none.jsonl")


def test_a_format_alone_and_two_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither reads the current folder nor leaves out a format; a path may hold colons where it exists."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {"messages": [ASK, {"role": "assistant", "content": "A dot."}]})
    for name in ("openai:", "openai: ", "OpenAI:", "openai:,r.jsonl"):
        for refused in (open_records, lambda name: check_present(name, "")):
            with pytest.raises(UserError, match=r"(?i)^'openai:' is a format without records; name a file or folder "):
                refused(name)
    for first, second in (("finevision", "openai"), ("openai", "finevision")):
        expected = f"a source has one format; write {first}:r.jsonl or {second}:r.jsonl"
        for refused in (open_records, lambda name: check_present(name, "")):
            with pytest.raises(UserError, match=expected):
                refused(f"{first}:{second}:r.jsonl")
    for name in ("finevision:r.jsonl", "finevision:openai:r.jsonl"):
        Path("r.jsonl").rename(name)
        assert open_records(name)[0].turns == TURNS
        assert open_records(f"openai:{name}")[0].turns == TURNS
        Path(name).rename("r.jsonl")


def test_paths_behind_a_format(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_list("openai:~/a.jsonl,trl:$HOME/b") == f"openai:{tmp_path}/a.jsonl,trl:{tmp_path}/b"


def test_a_folder_of_img2dataset_and_its_parquet_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = img2dataset(tmp_path, captions(3))
    assert len(open_records(folder)) == 3
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match=r"is what img2dataset tells of the images in 00000.tar; name that file"):
        open_records(f"{folder}/00000.parquet")
    (Path(folder) / "more.jsonl").write_text(json.dumps({"caption": "A"}))
    assert len(open_records(folder)) == 3
    assert "its .tar files are read, not more.jsonl; name files to read others" in capsys.readouterr().err


class TestInspect:
    def lines(self, names: str, folder: Path, rule: SampleRule | None = None) -> list[str]:
        return list(inspect(names, str(folder), rule))

    def test_samples_as_they_are_trained(self, tmp_path: Path) -> None:
        path = finevision(tmp_path, talks(3))
        rule = SampleRule(byte_tokenizer(), ImageRule(max_size=64), "qwen2", max_tokens=1000)
        found = self.lines(path, tmp_path, rule)
        assert found[:4] == [
            f"{path}: 3 records",
            "format: texts (a list of {user, assistant}; finevision, cauldron)",
            "understood: 3 records, 1 text only; fields used: texts (3), images (2); not used: source (3), "
            "relevance_ratings (3)",
            "\u27e6between these\u27e7 is what is learned",
        ]
        assert "  | Was ist “das”? <b> 1.0 ASSISTANT:⟦ Ein ö 1.0<|im_end|>⟧USER: Was ist" in "\n".join(found)
        assert sum("pixels, seen as" in line for line in found) == 3
        assert sum(line.endswith("tokens learned") for line in found) == 3

    def test_without_a_stage_and_with_bad_records(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(picture_file())
        path = write(tmp_path, {"caption": "A dot.", "image": "a.png"}, {"caption": 3}, *[{"video": "a.mp4"}] * 2)
        found = self.lines(path, tmp_path)
        assert "cannot be used: 3 of 4" in found
        reasons = found[found.index("cannot be used: 3 of 4") + 1 :][:2]
        assert [line.partition(" (")[0] for line in reasons] == [f"  2 records, the first {path}:3", f"  {path}:2"]
        assert "holds video" in reasons[0] and reasons[0].endswith("training stops at it")
        assert found[-4:] == [f"  image 1: {tmp_path}/a.png: 40 x 30 pixels", "  | <image>⟦A dot.", "  | ⟧", ""]

    def test_the_most_frequent_reasons(self, tmp_path: Path) -> None:
        """A line for each kind, however many records have it, and one for the rest."""
        bad = [{"conversations": [{**TALK[0], "from": f"role {chr(97 + n)}"}]} for n in range(11)]
        image = {"caption": "A", "image": "none.png"}
        path = write(tmp_path, *bad, {"caption": "A dot."}, *[image] * 3, *[{"caption": n} for n in range(1, 6)])
        found = self.lines(path, tmp_path)
        first = found.index("cannot be used: 19 of 20") + 1
        assert found[first].startswith(f"  5 records, the first {path}:16 ") and found[first].endswith("text but int")
        assert found[first + 1].startswith(f"  3 records, the first {path}:13") and "none.png" in found[first + 1]
        assert all(f":{n} (" in line for n, line in enumerate(found[first + 2 : first + 10], 1))
        expected = "  and 3 more reasons, of 3 records; launch.prepare_data convert lists all that it drops in bad_rec"
        assert found[first + 10].startswith(expected)

    def test_without_a_usable_record(self, tmp_path: Path) -> None:
        """Each of them is named, and no sample is announced."""
        turns = [{"role": role, "content": "a"} for role in ("user", "assistant", "assistant")]
        found: list[str] = []
        path = write(tmp_path, {"messages": turns})
        with pytest.raises(UserError, match=rf"^{path}: no record can be used, for the reasons above$"):
            found.extend(inspect(path, str(tmp_path)))
        assert found[1:] == [
            "understood: no record can be used",
            "cannot be used: 1 of 1",
            f"  {tmp_path}/r.jsonl:1: turns do not alternate between human and gpt: turn 3 is from gpt, too",
            "",
        ]


def picture_file() -> bytes:
    """A PNG of 40 x 30 pixels."""
    stream = io.BytesIO()
    Image.new("RGB", (40, 30)).save(stream, "PNG")
    return stream.getvalue()
