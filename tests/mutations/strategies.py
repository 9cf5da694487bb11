"""What the tests of mutated files share: valid records, what came of a file, and how many examples are tried.

The default run always tries the same examples. The marker `slow` tries many more, from the seed in the environment
variable EVE_TEST_SEED, or from a new one, which is printed.
"""

import contextlib
import functools
import io
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import HealthCheck, note, seed, settings
from PIL import Image

from eve_jax.data.image.rule import ImageRule
from eve_jax.data.image_file import image_bytes
from eve_jax.data.plan.lengths import Dropped
from eve_jax.data.record import BadRecord, Turn
from eve_jax.data.samples.measure import measure
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.sources.records import open_records
from eve_jax.data.text.encode import encode_chat
from eve_jax.errors import UserError, warn
from tests.data.synthetic import byte_tokenizer

RULE = ImageRule("anyratio_ld", max_size=96)
TOKENIZER = byte_tokenizer()
TEMPLATE, MAX_TOKENS = "qwen2", 4000
_SHARED: Any = {
    "deadline": None,
    "print_blob": True,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
}
QUICK = settings(max_examples=80, derandomize=True, **_SHARED)
_LONG = settings(max_examples=int(os.environ.get("EVE_TEST_EXAMPLES", 3000)), **_SHARED)


def many(test: Any) -> Any:
    """Decorate a test with `given`: thousands of examples, from a seed that is printed with an example that fails."""
    number = int(os.environ.get("EVE_TEST_SEED", random.randrange(1 << 32)))
    inner = test.hypothesis.inner_test

    @functools.wraps(inner)
    def noted(*args: Any, **kwargs: Any) -> None:
        note(f"EVE_TEST_SEED={number}")
        inner(*args, **kwargs)

    test.hypothesis.inner_test = noted
    return seed(number)(_LONG(test))


class Sample(NamedTuple):
    """A valid record: its turns, and its images as names of files in the folder of images."""

    id: str
    images: tuple[str, ...]
    turns: tuple[Turn, ...]

    def fields(self) -> dict[str, Any]:
        """Return the record as LLaVA writes it."""
        turns = [{"from": turn.role, "value": turn.text} for turn in self.turns]
        images: dict[str, Any] = {}
        if self.images:
            images = {"image": self.images[0] if len(self.images) == 1 else list(self.images)}
        return {"id": self.id, **images, "conversations": turns}


def dialogue(*texts: str) -> tuple[Turn, ...]:
    """Return the turns of a dialogue that a human begins."""
    return tuple(Turn(("human", "gpt")[number % 2], text) for number, text in enumerate(texts))


SAMPLES = (
    Sample("s0", (), dialogue("Who?", "Nobody.")),
    Sample("s1", ("1.png",), dialogue("What is it?", "A {dot}, [red]: \u00e9\u56fe\U0001f600.")),
    Sample("s2", ("2.png", "3.png"), dialogue("<image>Left\n<image>right?", 'A \\ and "b".', "And?", "No <image>.")),
    Sample("s3", (), (Turn("system", "Be brief."), *dialogue("Why?", "So."))),
    Sample("s4", ("4.png",), dialogue("<image>\nNo. \\<image>?", "1, 2.")),
)


def write_images(folder: Path) -> Path:
    """Write the images of SAMPLES, all of different sizes, to `folder`/images and return that folder."""
    images = folder / "images"
    images.mkdir()
    for number in range(1, 5):
        pixels = np.random.default_rng(number).integers(0, 256, (32 * number, 96 - 16 * number, 3), np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    return images


class Meaning(NamedTuple):
    """What is trained on: the tokens of a conversation, and the content of each of its images."""

    ids: tuple[int, ...]
    images: tuple[bytes, ...]


def meaning(turns: Sequence[Turn], images: Sequence[bytes]) -> Meaning | None:
    """Return what the turns mean; None for those that cannot be trained on."""
    try:
        return Meaning(tuple(encode_chat(turns, TOKENIZER, TEMPLATE, len(images)).ids.tolist()), tuple(images))
    except BadRecord:
        return None


class Outcome(NamedTuple):
    """What came of a file: its usable records by number, the others, warnings, and why it was refused, if it was."""

    usable: dict[int, Meaning]
    dropped: list[Dropped]
    warnings: str
    refused: str = ""

    @property
    def silent(self) -> bool:
        """Whether nothing was said about the file."""
        return not (self.dropped or self.warnings or self.refused)


def outcome(name: str | Path, images_dir: str | Path = "") -> Outcome:
    """Open and measure the records in `name`. Whatever is said about them is one line; any exception is a fault.

    What is measured of a usable record, its text tokens and grids, is compared with what it holds.
    """
    warn.cache_clear()
    said = io.StringIO()
    usable: dict[int, Meaning] = {}
    with contextlib.redirect_stderr(said):
        try:
            records = open_records(str(name), images_dir)
        except UserError as e:
            return Outcome({}, [], said.getvalue(), one_line(str(e)))
        try:
            table = measure(records, SampleRule(TOKENIZER, RULE, TEMPLATE, max_tokens=MAX_TOKENS))
            for entry in map(table.entry, range(len(table))):
                record = records[entry.record]
                found = meaning(record.turns, [image_bytes(image) for image in record.images])
                assert found is not None
                assert entry.text == len(found.ids) - len(found.images)
                assert entry.grids == [_grid(image) for image in found.images]
                usable[entry.record] = found
        except UserError as e:
            return Outcome({}, [], said.getvalue(), one_line(str(e)))
        finally:
            _close(records)
    for lost in table.dropped:
        one_line(lost.reason)
        one_line(lost.where)
        assert lost.where.startswith(str(name))
    assert len(usable) + len(table.dropped) == len(records)
    return Outcome(usable, table.dropped, said.getvalue())


@functools.cache
def _grid(image: bytes) -> tuple[int, int]:
    return RULE.grid(*Image.open(io.BytesIO(image)).size)


def _close(records: Any) -> None:
    """Close the files of `records`, which the package leaves open for its threads, before there are thousands."""
    for source in records._sources:
        if isinstance(getattr(source, "_file", None), int):
            os.close(source._file)


def one_line(text: str) -> str:
    """Return `text`, a message; fail unless it is one line that can be printed."""
    assert text
    assert len(text.splitlines()) == 1
    assert len(text) < 2000
    text.encode()
    return text


def strict_json(data: bytes) -> Any:
    """Return the JSON value in `data`. Raises ValueError, also for an object with two values of one name."""

    def checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found and repr(found[name]) != repr(value):
                raise ValueError(name)
            found[name] = value
        return found

    try:
        return json.loads(
            data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape"), object_pairs_hook=checked
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
