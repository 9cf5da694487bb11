"""The one object that makes samples: what follows from it, and names of tables and runs that older versions made."""

import pickle
from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import stage3
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.record import BadRecord, Record, Turn
from eve_jax.data.samples.measure import table_name
from eve_jax.data.samples.sample_rule import NO_LIMIT, SampleRule
from eve_jax.data.sources.records import Records
from eve_jax.data.text.encode import IMAGE_ID, continuation_ids, encode_chat, prompt_ids
from eve_jax.data.text.tokenizer import Tokenizer
from eve_jax.errors import UserError
from tests.data.synthetic import byte_tokenizer

IMAGES = ImageRule("anyratio_ld", max_size=96)
TURNS = (Turn("human", "What <image> is it?"), Turn("gpt", "A bus."))


class Named(Tokenizer):
    """A tokenizer that is known by a text alone."""

    def encode_with_offsets(self, text: str, quoted: Any = ()) -> tuple[list[int], list[tuple[int, int]]]:
        raise NotImplementedError

    def decode(self, ids: Iterable[int] | np.ndarray, skip_special: bool = True) -> str:
        raise NotImplementedError

    @property
    def vocab_size(self) -> int:
        raise NotImplementedError

    def find(self, token: str) -> int | None:
        raise NotImplementedError

    def fingerprint(self) -> str:
        return "a tokenizer"

    def _write(self, folder: Any) -> None:
        raise NotImplementedError


# Tables that are kept stay in use (their name has the version of the table); runs of version 0.1 can be resumed, in
# which special tokens in texts were such.
KEPT = {
    SampleRule(Named(), IMAGES, "qwen2", False, 1000, "drop", special_text=True): (
        "lengths-e48b50fabcb7fed70717c09598f12807.npz",
        {
            "tokenizer": "5b3bead41775742c73cd1b423240cd24",
            "template": "e59c18be96ea2822c5a1676690058752",
            "image_rule": "078590b7a6ae1a2170d340adf3366a4b",
            "settings": "cb91e982ef8ff9c95a6aa4bd504029d6",
        },
    ),
    SampleRule(Named(), ImageRule(), "v1", True, 5000, "truncate_text", special_text=True): (
        "lengths-0fd55c38418780773114e59138beb915.npz",
        {
            "tokenizer": "5b3bead41775742c73cd1b423240cd24",
            "template": "290f348180b1ba5255e6c9c997257940",
            "image_rule": "2afb9b83f9314e5d029766197f539792",
            "settings": "5434c69ab09de2f00ba1ee9db49d48f9",
        },
    ),
}


@pytest.mark.parametrize("rule", KEPT)
def test_names_of_tables_and_fingerprints_of_runs_stay(rule: SampleRule) -> None:
    records = cast(Records, SimpleNamespace(fingerprint=lambda: "some records"))
    assert (table_name(records, rule), rule.fingerprint()) == KEPT[rule]


def test_text_that_is_only_text_is_another_rule() -> None:
    records = cast(Records, SimpleNamespace(fingerprint=lambda: "some records"))
    before = SampleRule(Named(), IMAGES, "qwen2", False, 1000, special_text=True)
    now = replace(before, special_text=False)
    assert table_name(records, before) != table_name(records, now)
    changed = {name for name, value in now.fingerprint().items() if value != before.fingerprint()[name]}
    assert changed == {"settings"}


@pytest.mark.parametrize("image_first", [False, True])
def test_samples_and_prompts(image_first: bool) -> None:
    tokenizer = byte_tokenizer()
    rule = SampleRule(tokenizer, IMAGES, "qwen2", image_first)
    record = Record("r", ("a.png",), TURNS, "records.jsonl:1")
    encoded = rule.encode(record)
    assert encoded.ids.tolist() == encode_chat(TURNS, tokenizer, "qwen2", 1, image_first).ids.tolist()
    assert rule.fit(encoded, [(300, 300)]) == (encoded, [(300, 300)])
    assert rule.max_tokens == NO_LIMIT
    asked = rule.prompt_ids(TURNS, 1)
    assert asked.tolist() == prompt_ids(TURNS, tokenizer, "qwen2", 1, image_first).tolist()
    assert tokenizer.decode(asked[: asked.tolist().index(IMAGE_ID)]).endswith("USER: " if image_first else "What ")
    more = rule.continuation_ids("And <image>?", 1)
    assert more.tolist() == continuation_ids("And <image>?", tokenizer, "qwen2", 1, image_first).tolist()


def test_too_long_samples_are_rebuilt_as_they_were_measured() -> None:
    record = Record("r", ("a.png",), (TURNS[0], Turn("gpt", "A bus. " * 20)), "records.jsonl:1")
    natural = [(6, 4)]
    cutting = SampleRule(byte_tokenizer(), IMAGES, "qwen2", max_tokens=250, too_long="truncate_text")
    encoded = cutting.encode(record)
    short, grids = cutting.fit(encoded, natural)
    assert (len(short.ids) - 1 + 24 + 7, grids) == (250, natural)
    assert cutting.cut(encoded, grids).ids.tolist() == short.ids.tolist()
    assert cutting.shrunk(natural, len(short.ids) - 1) == natural
    n_text = len(encoded.ids) - 1
    shrinking = SampleRule(byte_tokenizer(), IMAGES, "qwen2", max_tokens=n_text + 12, too_long="shrink_image")
    same, grids = shrinking.fit(encoded, natural)
    assert (same, grids) == (encoded, [(3, 2)])
    assert shrinking.cut(encoded, grids) is encoded
    assert shrinking.shrunk(natural, n_text) == grids
    with pytest.raises(BadRecord, match="too long"):
        SampleRule(byte_tokenizer(), IMAGES, "qwen2", max_tokens=250).fit(encoded, natural)


def test_a_rule_goes_to_other_processes() -> None:
    rule = SampleRule(byte_tokenizer(), IMAGES, "qwen2", max_tokens=9)
    again = pickle.loads(pickle.dumps(rule))
    assert again.table_key(4) == rule.table_key(4)
    assert again.tokenizer.encode("a b<|im_end|>") == rule.tokenizer.encode("a b<|im_end|>")


def stage(**changes: Any) -> ConfigDict:
    config = stage3.get_config("llm=tiny")
    with config.unlocked():
        config.data.update(changes)
    return config


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"long": "shorten"}, "config.data.long: 'shorten' is not one of drop, truncate_text, shrink_image"),
        (
            {"long": "shrink_image", "image_mode": "square", "patch": 28},
            "shrink_image does not go with config.data.image_mode",
        ),
        ({"image_mode": "any"}, "config.data.image_mode: 'any' is not one of"),
        ({}, "config.data.tokenizer is empty"),
    ],
)
def test_a_stage_without_a_rule(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        SampleRule.of(stage(**changes))


def test_the_rule_of_a_stage(tmp_path: Any) -> None:
    byte_tokenizer().save(tmp_path)
    config = stage(tokenizer=str(tmp_path), template="qwen2", max_tokens=5000, row_tokens=256, image_first=True)
    rule = SampleRule.of(config)
    assert (rule.images, rule.template, rule.image_first) == (ImageRule.of(config.data), "qwen2", True)
    assert (rule.max_tokens, rule.too_long) == (256, "drop")
