"""Whatever a record holds, it is read or it is a `BadRecord` of one line."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eve_jax.data.record import BadRecord, Record
from eve_jax.data.sources.fields import KNOWN, Place, read_record

TEXTS = ["", "a.png", "http://e.org/a.png", "data:image/png;base64,AA==", "data:,", "file:///a%20b", "a\\b%", "\ud800"]
KEYS = ["from", "role", "value", "content", "type", "text", "image", "image_url", "path", "bytes", "url", "index", "x"]
ROLES = ["user", "assistant", "system", "tool", "text", "image", "image_url"]
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=9) | st.text(max_size=9)
plain |= st.sampled_from(TEXTS + ROLES)
values = st.recursive(plain, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from(KEYS), v, max_size=4))
names = st.sampled_from([*sorted(KNOWN), "video", "picture", "a[].b", "conversations[].image", "Image"]) | st.text()
TALK = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A dot."}]


ANY = (st.dictionaries(names, values, max_size=4), st.booleans())


@settings(max_examples=100, deadline=None, derandomize=True)
@given(*ANY)
def test_any_fields(fields: dict[str, Any], with_talk: bool) -> None:
    read_or_refused(fields, with_talk)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(*ANY)
def test_many_more_fields(fields: dict[str, Any], with_talk: bool) -> None:
    read_or_refused(fields, with_talk)


def read_or_refused(fields: dict[str, Any], with_talk: bool) -> None:
    """Read the record; what is refused is refused in one line that says where."""
    place = Place("r.jsonl:1", "r.jsonl:1", "images", "beside")
    try:
        record, found = read_record({**fields, "conversations": TALK} if with_talk else fields, place)
    except BadRecord as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 2000
        assert error.where == "r.jsonl:1"
    else:
        assert isinstance(record, Record)
        assert set(found.used) <= {*fields, "conversations"}
        assert not set(found.used) & set(found.unused)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(["width", "source", "score", "meta"]), st.integers() | st.booleans()))
def test_harmless_fields_change_nothing(fields: dict[str, Any]) -> None:
    place = Place("r.jsonl:1", "1", "images")
    bare = {"image": "a.png", "conversations": TALK}
    assert read_record({**fields, **bare}, place)[0] == read_record(bare, place)[0]
