"""Captions by this project's own server: with a model behind it, and when it is full."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eve_jax.caption.write import caption_records
from eve_jax.data.sources.records import open_records
from tests.caption.scenes import config_of, write_images
from tests.weights import folders

pytest.importorskip("uvicorn")
pytestmark = pytest.mark.slow

END = 256  # <|im_end|> of the tokenizer of bytes
TOKENS = 12
# The weights of the tests never learned to end: the end is made certain after so many tokens.
BODY = '{"logit_bias": {"%d": 100}, "min_tokens": %d}' % (END, TOKENS)  # noqa: UP031
SHORT: dict[str, Any] = {
    "prompt__text": "What is it?",
    "endpoint__model": "eve",
    "endpoint__max_tokens": 100,
}  # a token is a byte
ANYTHING = {
    "min_words": 0,
    "finished": False,
    "refusals": False,
    "leaks": False,
    "coordinates": False,
    "repetition": 0.0,
    "same": 0,
}


@contextlib.contextmanager
def command(folder: Path) -> Iterator[str]:
    """`launch.serve` of the golden model, and its address."""
    from tests.serve.test_real import start

    process, url = start(folder, "--slots=4", "--context=1024", "--served_model_name=eve", "--api_key=k1")
    try:
        yield f"{url}/v1"
    finally:
        process.kill()
        process.wait()


def test_a_model_behind_launch_serve(tmp_path: Path) -> None:
    records = write_images(tmp_path / "in", 20)
    changes: dict[str, Any] = {f"checks__{name}": value for name, value in ANYTHING.items()}
    with command(folders.write_hf(tmp_path / "eve", *folders.golden())) as url:
        for name in ("one", "two"):
            config = config_of(url, endpoint__body=BODY, **SHORT, **changes)
            funnel = caption_records(config, records, str(tmp_path / "in"), tmp_path / name, "k1")
            rules = {rule for stage in funnel["rejected"].values() for rule in stage}
            rejected = (tmp_path / name / "rejected.jsonl").read_text()
            assert rules <= {"empty"} and funnel["kept"] >= 15, rejected
    found = open_records(str(tmp_path / "one"))
    assert all(record.turns[0].text for record in found)


def test_a_server_that_is_full_is_asked_less(tmp_path: Path) -> None:
    """It has room for three requests, refuses the others with Retry-After, and none is lost."""
    from eve_jax import EVE
    from eve_jax.serve.settings import ServeSettings
    from tests.serve.scripted import Scripted, serving

    records = write_images(tmp_path / "in", 12)
    eve = EVE.from_pretrained(folders.write_hf(tmp_path / "eve", *folders.golden()), fit="shrink")
    scripted = Scripted(eve, "A red bus stands on a square, and a dog waits next to it.")
    scripted.most, scripted.pace = 3, 0.001
    with serving(eve, scripted, ServeSettings(quiet=True), context=1024) as address:
        config = config_of(f"{address.url}/v1", checks__same=0, **SHORT)
        funnel = caption_records(config, records, str(tmp_path / "in"), tmp_path / "out")
    rejected = (tmp_path / "out" / "rejected.jsonl").read_text()
    assert funnel == {"in": 12, "kept": 12, "rejected": {}, "again": 0}, rejected
    assert len(scripted.requests) == 12
