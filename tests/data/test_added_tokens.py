"""Tokens that files next to a tokenizer add: their numbers, their flags, and every way in which they contradict."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eve_jax.data.text.added_tokens import read_added
from eve_jax.data.text.load import load_tokenizer
from eve_jax.data.text.templates import end_id, stop_ids
from eve_jax.data.text.tokenizer import COMPANIONS, Tokenizer
from eve_jax.errors import UserError
from tests.data.synthetic import byte_tokenizer

END = "<|im_end|>"
GOLDEN = Path(__file__).parents[1] / "golden"
BASE = {"tokenizer.json": 256, "tokenizer.model": 900}  # tokens of the two kinds


def folder_of(path: Path, kind: str, files: dict[str, Any]) -> Path:
    """A folder with a tokenizer that has no <|im_end|> (bytes, or a SentencePiece model), and `files` next to it."""
    path.mkdir(exist_ok=True)
    if kind == "tokenizer.json":
        byte_tokenizer(special=()).save(path)
    else:
        (path / kind).write_bytes((GOLDEN / "F_v1_spm.model").read_bytes())
    for name, content in files.items():
        (path / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def decoder(*tokens: dict[str, Any], first: int) -> dict[str, Any]:
    return {"added_tokens_decoder": {str(first + n): token for n, token in enumerate(tokens)}}


def files_with_end(n: int) -> list[dict[str, Any]]:
    """The ways in which files give <|im_end|> the number `n`, the first one free."""
    end = {"content": END, "special": True, "lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    bom = b"\xef\xbb\xbf" + json.dumps({END: n}).encode()
    return [
        {"added_tokens.json": {END: n}},
        {"added_tokens.json": {END: str(n)}},
        {"added_tokens.json": bom},
        {"tokenizer_config.json": decoder(end, first=n)},
        {"added_tokens.json": {END: n}, "tokenizer_config.json": decoder(end, first=n) | {"eos_token": END}},
        {"special_tokens_map.json": {"eos_token": END, "pad_token": None}},
        {"special_tokens_map.json": {"additional_special_tokens": [end]}},
        {"tokenizer_config.json": {"extra_special_tokens": {"turn_end": END}}},
        {"tokenizer_config.json": {"additional_special_tokens": [END, END]}, "added_tokens.json": {}},
    ]


def state(tokenizer: Tokenizer) -> tuple[Any, ...]:
    texts = ("hello" + END, f"a {END} b<pad> <b>", "USER: x")
    encoded = [tokenizer.encode_with_offsets(text) for text in texts]
    return tokenizer.vocab_size, tokenizer.bos, encoded, [tokenizer.decode(ids) for ids, _ in encoded]


@pytest.mark.parametrize("kind", BASE)
@pytest.mark.parametrize("way", range(9))
def test_an_end_that_files_add(kind: str, way: int, tmp_path: Path) -> None:
    n = BASE[kind]
    tokenizer = load_tokenizer(folder_of(tmp_path / "a", kind, files_with_end(n)[way]))
    assert tokenizer.vocab_size == n + 1
    assert end_id(tokenizer, "qwen2") == stop_ids(tokenizer, "qwen2")[0] == tokenizer.find(END) == n
    ids, offsets = tokenizer.encode_with_offsets("hello" + END + " x")
    assert ids.count(n) == 1
    assert offsets[ids.index(n)] == (5, 15)
    assert tokenizer.decode([n]) == ""
    assert tokenizer.fingerprint() != load_tokenizer(folder_of(tmp_path / "none", kind, {})).fingerprint()
    tokenizer.save(tmp_path / "b")
    again = load_tokenizer(tmp_path / "b")
    assert state(again) == state(tokenizer)
    assert again.fingerprint() == tokenizer.fingerprint()
    if kind == "tokenizer.json":  # complete without the other files
        for name in COMPANIONS:
            (tmp_path / "b" / name).unlink(missing_ok=True)
        assert state(load_tokenizer(tmp_path / "b")) == state(tokenizer)


@pytest.mark.parametrize("kind", BASE)
def test_flags_of_added_tokens(kind: str, tmp_path: Path) -> None:
    n = BASE[kind]
    tokens = [
        {"content": "<l>", "lstrip": True, "special": True},
        {"content": "<r>", "rstrip": True, "special": False},
        {"content": "<w>", "single_word": True, "special": False, "normalized": False},
    ]
    tokenizer = load_tokenizer(folder_of(tmp_path, kind, {"tokenizer_config.json": decoder(*tokens, first=n)}))
    ids, offsets = tokenizer.encode_with_offsets("a \n<l> b")
    assert offsets[ids.index(n)] == (1, 6)
    ids, offsets = tokenizer.encode_with_offsets("a <r>\n b")
    assert offsets[ids.index(n + 1)] == (2, 7)
    ids, offsets = tokenizer.encode_with_offsets("a<w> <w> <w>b")
    assert ids.count(n + 2) == 1
    assert offsets[ids.index(n + 2)] == (5, 8)
    assert tokenizer.decode([n, n + 1, n + 2]) in ("<r><w>", "<r> <w>")
    tokenizer.save(tmp_path / "again")
    for text in ("a \n<l> b", "a <r>\n b", "a<w> <w> <w>b"):
        assert load_tokenizer(tmp_path / "again").encode_with_offsets(text) == tokenizer.encode_with_offsets(text)


@pytest.mark.parametrize("kind", BASE)
@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"added_tokens.json": {END: 5}}, r"added_tokens\.json: token 5 is '<\|im_end\|>' here, .* in tokenizer\."),
        ({"added_tokens.json": {END: -1}}, r"'<\|im_end\|>' has the number -1; expected a whole number"),
        ({"added_tokens.json": {END: 1.5}}, r"has the number 1\.5"),
        ({"added_tokens.json": {END: True}}, r"has the number True"),
        ({"added_tokens.json": {END: [1]}}, r"has the number \[1\]"),
        ({"added_tokens.json": {"": "N"}}, r"added_tokens\.json: a token without any text"),
        ({"added_tokens.json": [END]}, r"added_tokens\.json does not hold a JSON object"),
        ({"added_tokens.json": b"\xff"}, r"added_tokens\.json is not valid JSON"),
        ({"added_tokens.json": b'{"<a>": 1, "<a>": 2}'}, r"is not valid JSON: '<a>' stands there twice"),
        (
            {"added_tokens.json": {END: "N+1"}},
            r"'<\|im_end\|>' is token N\+1, but there is no token N; a token is missing",
        ),
        (
            {"added_tokens.json": {END: "N", "<b>": "N"}},
            r"token N is '<b>' here, '<\|im_end\|>' in .*added_tokens\.json",
        ),
        (
            {
                "added_tokens.json": {END: "N"},
                "tokenizer_config.json": {"added_tokens_decoder": {"N+1": {"content": END}}},
            },
            r"added_tokens\.json: '<\|im_end\|>' is token N here, N\+1 in .*added_tokens_decoder; keep the number",
        ),
        ({"tokenizer_config.json": {"added_tokens_decoder": {"x": {"content": END}}}}, r"has the number 'x'"),
        ({"tokenizer_config.json": {"added_tokens_decoder": {"N": {"content": 1}}}}, r"is not a text but int"),
        (
            {"tokenizer_config.json": {"added_tokens_decoder": {"N": 1}}},
            r"added_tokens_decoder: N is neither a text nor",
        ),
        ({"tokenizer_config.json": {"added_tokens_decoder": []}}, r"added_tokens_decoder is not an object but list"),
        (
            {"tokenizer_config.json": {"added_tokens_decoder": {"N": {"content": END, "lstrip": "no"}}}},
            r"added_tokens_decoder: N: lstrip is 'no', not true or false",
        ),
        ({"tokenizer_config.json": {"eos_token": 5}}, r"tokenizer_config\.json: eos_token is neither a text nor"),
        ({"special_tokens_map.json": {"eos_token": {"content": None}}}, r"eos_token: the content of a token is not"),
        ({"special_tokens_map.json": {"additional_special_tokens": END}}, r"additional_special_tokens is not a list"),
        ({"special_tokens_map.json": {"additional_special_tokens": [["x"]]}}, r"additional_special_tokens is neither"),
        ({"added_tokens.json": b'{"a\\ud800": 1}'}, r"is not valid Unicode"),
    ],
)
def test_files_that_contradict(kind: str, files: dict[str, Any], says: str, tmp_path: Path) -> None:
    def numbered(value: Any) -> Any:
        if isinstance(value, str):
            return {"N": str(BASE[kind]), "N+1": str(BASE[kind] + 1)}.get(value, value)
        if isinstance(value, dict):
            return {numbered(k): numbered(v) for k, v in value.items()}
        return value

    says = says.replace(r"N\+1", str(BASE[kind] + 1)).replace("token N", f"token {BASE[kind]}")
    says = says.replace("decoder: N", f"decoder: {BASE[kind]}")
    with pytest.raises(UserError, match=says) as raised:
        load_tokenizer(folder_of(tmp_path, kind, numbered(files)))
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)


NUMBERS = st.sampled_from([0, 5, 255, 256, 257, 258, 900, 901, -1, 1.0, True, None, "256", "900", "x"])
CONTENTS = st.sampled_from([END, "<b>", "A", "</s>", "", " ", None, 3, ["a"], "a\\b(", "é"])
FLAGS = st.dictionaries(
    st.sampled_from(["lstrip", "rstrip", "special", "normalized"]), st.sampled_from([True, False, 2, ""])
)
ENTRIES = st.one_of(CONTENTS, st.builds(lambda content, flags: {"content": content, **flags}, CONTENTS, FLAGS))
ROLES = st.fixed_dictionaries(
    {},
    optional={
        "eos_token": ENTRIES,
        "pad_token": ENTRIES,
        "additional_special_tokens": st.one_of(CONTENTS, st.lists(ENTRIES, max_size=3)),
        "added_tokens_decoder": st.dictionaries(NUMBERS.map(str), ENTRIES, max_size=3),
    },
)
FILES = st.fixed_dictionaries(
    {},
    optional={
        "added_tokens.json": st.dictionaries(CONTENTS.filter(lambda c: isinstance(c, str)), NUMBERS, max_size=3),
        "tokenizer_config.json": ROLES,
        "special_tokens_map.json": ROLES,
    },
)


@pytest.mark.parametrize("kind", BASE)
@settings(deadline=None, max_examples=150)
@given(files=FILES, cut=st.integers(0, 200))
def test_any_files_give_the_same_tokens_again_or_one_line(
    kind: str, files: dict[str, Any], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever files say, what they do not speak of is read as without them."""
    path = tmp_path_factory.mktemp("any")
    raw = {name: json.dumps(content).encode() for name, content in files.items()}
    if cut < 20:
        raw = {name: content[:cut] for name, content in raw.items()}
    try:
        tokenizer = load_tokenizer(folder_of(path / "a", kind, raw))
    except UserError as error:
        assert str(path / "a") in str(error)
        assert "\n" not in str(error)
        return
    tokenizer.save(path / "b")
    assert state(load_tokenizer(path / "b")) == state(tokenizer)
    plain = load_tokenizer(folder_of(path / "none", kind, {}))
    assert tokenizer.encode("hello 7") == plain.encode("hello 7") or tokenizer.find(" ") is not None


def test_an_ordinary_token_at_another_number(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"'</s>' is token 900 here, 2 in tokenizer\.model; keep the number that the model"
    ):
        load_tokenizer(folder_of(tmp_path / "a", "tokenizer.model", {"added_tokens.json": {"</s>": 900}}))
    with pytest.raises(
        UserError, match=r"'A' is token 256 here, \d+ in tokenizer\.json; keep the number that the model"
    ):
        load_tokenizer(folder_of(tmp_path / "b", "tokenizer.json", {"added_tokens.json": {"A": 256}}))


def test_settings_of_a_sentencepiece_bos(tmp_path: Path) -> None:
    for fields, bos in (({}, 1), ({"bos_token": "<start>"}, 900), ({"bos_token": {"content": "</s>"}}, 2)):
        folder = folder_of(tmp_path / str(bos), "tokenizer.model", {"tokenizer_config.json": fields})
        assert load_tokenizer(folder).bos == bos


def test_saving_replaces_another_tokenizer(tmp_path: Path) -> None:
    target = folder_of(tmp_path / "t", "tokenizer.json", {"added_tokens.json": {"<x>": 256, "<y>": 257}})
    spm = load_tokenizer(folder_of(tmp_path / "a", "tokenizer.model", {"added_tokens.json": {END: 900}}))
    spm.save(target)
    assert load_tokenizer(target).fingerprint() == spm.fingerprint()
    byte_tokenizer().save(target)
    assert load_tokenizer(target).fingerprint() == byte_tokenizer().fingerprint()


def test_a_vocabulary_that_is_too_small(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(folder_of(tmp_path, "tokenizer.json", {"added_tokens.json": {"<a>": 256, END: 257}}))
    tokenizer.check_vocabulary(258, "config.model.vocab_size")
    with pytest.raises(
        UserError, match=r"has 258 tokens, the last of them '<\|im_end\|>', but config\.model\.vocab_size is 257"
    ):
        tokenizer.check_vocabulary(257, "config.model.vocab_size")


def test_no_files_no_tokens(tmp_path: Path) -> None:
    assert read_added(None) == read_added(tmp_path) == []


@pytest.mark.parametrize("kind", BASE)
@pytest.mark.parametrize(
    "way", [0, 3, 4, 5, 7, 8]
)  # transformers does not read numbers as text, a BOM, objects in lists
def test_numbers_are_those_of_transformers(kind: str, way: int, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    load = {"tokenizer.json": transformers.PreTrainedTokenizerFast, "tokenizer.model": transformers.LlamaTokenizer}[
        kind
    ]
    folder = folder_of(tmp_path, kind, files_with_end(BASE[kind])[way])
    ours, theirs = load_tokenizer(folder), load.from_pretrained(folder)
    assert len(theirs) == ours.vocab_size
    for text in ("hello" + END, f"a {END}"):
        assert theirs.encode(text, add_special_tokens=False) == ours.encode(text)
    ours.save(tmp_path / "saved")
    saved = load.from_pretrained(tmp_path / "saved")
    assert saved.encode("hello" + END, add_special_tokens=False) == ours.encode("hello" + END)
