"""What is understood of records before anything is made of them, and some of them as they would be trained."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eve_jax.data.field_counts import FieldCounts
from eve_jax.data.image.patches import image_size
from eve_jax.data.image_file import BadImage
from eve_jax.data.record import BadRecord, Record, UnreadMedia
from eve_jax.data.rows.bad_records import kind_of
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.sources.forms import described, form_of
from eve_jax.data.sources.records import Records, open_records
from eve_jax.data.text.encode import IGNORE, IMAGE_ID, Encoded, encode_chat
from eve_jax.data.text.tokenizer import Tokenizer
from eve_jax.data.view.document import visible
from eve_jax.errors import UserError, amount, clip
from eve_jax.process.places import shown

LOOKED = 200  # records of a source that are read, its first ones
SHOWN, REASONS = 3, 10  # samples, and kinds of reasons why records cannot be used, that are printed
MOST = 3000  # characters of a sample
LEARNED = "\u27e6{}\u27e7"  # around what is learned
DIALOGUE, CAPTION = "qwen2", "plain"  # templates that texts are shown in where no stage says which
NO_RULE = "text as a stage of its kind has it; --config=STAGE --config.data.tokenizer=FOLDER shows one of yours"


class _Characters(Tokenizer):
    """A tokenizer of single characters, for texts that are only shown."""

    def encode_with_offsets(self, text: str, *_: object) -> tuple[list[int], list[tuple[int, int]]]:
        return [*map(ord, text)], [(n, n + 1) for n in range(len(text))]

    def decode(self, ids: Iterable[int] | np.ndarray, skip_special: bool = True) -> str:
        return "".join(chr(int(id)) for id in ids)

    @property
    def vocab_size(self) -> int:
        return 0x110000

    def find(self, token: str) -> int | None:
        return ord(token) if len(token) == 1 else None

    def fingerprint(self) -> str:
        return "characters"

    def _write(self, folder: Path) -> None:
        raise NotImplementedError


class _Looked(NamedTuple):
    """The records of a source that were read, by the number of the record, with what was found in all of them.

    bad: those that cannot be used, a list for each kind of reason: first the kinds that training stops at.
    """

    usable: list[int]
    counts: FieldCounts
    forms: Counter[str]
    bad: list[list[str]]

    @property
    def n_bad(self) -> int:
        """How many records cannot be used."""
        return sum(map(len, self.bad))


def inspect(names: str, images_dir: str, rule: SampleRule | None = None) -> Iterator[str]:
    """Return lines for people about the records `names`: the format, the fields, what cannot be used, and samples.

    rule: of the stage that they are for; without one, texts are shown in a template of their own kind and images have
    the sizes of their files. Raises UserError as `open_records` does, and at the end
    for a source without a usable record.
    """
    return map(shown, _lines(open_records(names, images_dir), rule))


def _lines(records: Records, rule: SampleRule | None) -> Iterator[str]:
    useless = []
    for number, name in enumerate(records.names):
        source = records.source(number)
        looked = _look(source, rule)
        total = len(looked.usable) + looked.n_bad
        of_all = f", of which the first {total:,} were read" if total < len(source) else ""
        yield f"{name}: {amount(len(source), 'record')}{of_all}"
        for form, count in looked.forms.most_common():
            yield f"format: {described(form) if form else 'of its own'}" + (
                f", {amount(count, 'record')}" if len(looked.forms) > 1 else ""
            )
        yield looked.counts.line("understood")
        if looked.bad:
            yield f"cannot be used: {looked.n_bad:,} of {total:,}"
            yield from _reasons(looked.bad)
        if looked.usable:
            if rule is None:
                yield NO_RULE
            yield f"{LEARNED.format('between these')} is what is learned"
        places = np.linspace(0, len(looked.usable) - 1, min(SHOWN, len(looked.usable))).round().astype(int)
        for place in places:
            yield from ("", *_sample(source[looked.usable[int(place)]], rule))
        yield ""
        if not looked.usable:
            useless.append(name)
    if useless:
        raise UserError(f"{', '.join(useless)}: no record can be used, for the reasons above")


def _reasons(kinds: list[list[str]]) -> Iterator[str]:
    """Yield a line for each of the first kinds of bad records: how many, and the first of them with its reason."""
    for kind in kinds[:REASONS]:
        yield f"  {f'{len(kind):,} records, the first ' if len(kind) > 1 else ''}{kind[0]}"
    if rest := kinds[REASONS:]:
        more = f"{amount(len(rest), 'more reason')}, of {amount(sum(map(len, rest)), 'record')}"
        yield f"  and {more}; launch.prepare_data convert lists all that it drops in bad_records.jsonl"


def _look(source: Records, rule: SampleRule | None) -> _Looked:
    found = _Looked([], FieldCounts(), Counter(), [])
    stopping: dict[str, list[str]] = {}
    bad: dict[str, list[str]] = {}
    for read in source.read_each(range(min(len(source), LOOKED))):
        index = read.number
        try:
            record, fields = read.got()
            _sizes(record)
            _encoded(record, rule)
        except BadImage as e:
            bad.setdefault(kind_of(e.reason), []).append(f"{source.where(index)}: {e.path}: {e.reason}")
        except UnreadMedia as e:
            stopping.setdefault(kind_of(e.reason), []).append(f"{e}; training stops at it")
        except BadRecord as e:
            text = str(e) if e.where else f"{source.where(index)}: {e}"
            bad.setdefault(kind_of(e.reason), []).append(text)
        else:
            found.usable.append(index)
            found.counts.add(fields, bool(record.images))
            found.forms[form_of(fields.used)] += 1
    return found._replace(bad=[*_most_first(stopping), *_most_first(bad)])


def _most_first(kinds: dict[str, list[str]]) -> list[list[str]]:
    return sorted(kinds.values(), key=len, reverse=True)


def _sizes(record: Record) -> list[tuple[int, int]]:
    return [image_size(image) for image in record.images]


def _encoded(record: Record, rule: SampleRule | None) -> tuple[Encoded, Tokenizer, str]:
    """Return the sample that a record becomes, with the tokenizer and the template that it is written with."""
    if rule is not None:
        grids = [rule.images.grid(*size) for size in _sizes(record)]
        return rule.fit(rule.encode(record), grids)[0], rule.tokenizer, rule.template
    template = CAPTION if [turn.role for turn in record.turns] == ["gpt"] else DIALOGUE
    characters = _Characters()
    return encode_chat(record.turns, characters, template, len(record.images)), characters, template


def _sample(record: Record, rule: SampleRule | None) -> Iterator[str]:
    encoded, tokenizer, template = _encoded(record, rule)
    targets = int((encoded.labels != IGNORE).sum())
    unit = "tokens" if rule is not None else "characters"
    yield f"{record.where} (record {record.id}): template {template}, {targets:,} {unit} learned"
    sizes = _sizes(record)
    grids = [] if rule is None else rule.fit(rule.encode(record), [rule.images.grid(*size) for size in sizes])[1]
    for number, (width, height) in enumerate(sizes):
        about = ""
        if rule is not None:
            (h, w), patch = grids[number], rule.images.patch
            about = f", seen as {w * patch} x {h * patch}: {h * w:,} patches of {patch}"
        yield f"  image {number + 1}: {record.images[number]}: {width} x {height} pixels{about}"
    for line in clip(visible(_text(encoded, tokenizer)), MOST).split("\n"):
        yield f"  | {line}"


def _text(encoded: Encoded, tokenizer: Tokenizer) -> str:
    """Return a sample as text: what is learned between LEARNED, an image as `<image>`."""
    kinds = np.where(encoded.ids == IMAGE_ID, 2, encoded.labels != IGNORE)
    text = ""
    for run in np.split(np.arange(len(kinds)), np.flatnonzero(np.diff(kinds)) + 1):
        own: Sequence[int] = encoded.ids[run].tolist()
        if kinds[run[0]] == 2:
            text += "<image>" * len(own)
            continue
        decoded = tokenizer.decode(own, skip_special=False)
        text += LEARNED.format(decoded) if kinds[run[0]] else decoded
    return text
