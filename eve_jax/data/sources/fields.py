"""How the fields of a record are read: the same for JSON, Parquet, tar files and TensorFlow Datasets.

    {"id": "42", "image": "a.jpg" | ["a.jpg", "b.jpg"] | absent,
     "conversations": [{"from": "human", "value": "<image>\\nWhat is it?"}, {"from": "gpt", "value": "A bus."}]}

is how LLaVA writes a record; the other forms of texts are in `dialogue`, those of an image in `image_refs`, and the
names of image fields below. What is not read is reported as such, and refused where it looks like an image.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from eve_jax.data.image_file import ImageFile, StoredImage
from eve_jax.data.record import BadRecord, Fields, Record, UnknownForm, UnreadMedia, is_empty, text_of
from eve_jax.data.sources.dialogue import Dialogue, Part, dialogue_of
from eve_jax.data.sources.doubts import doubts_of
from eve_jax.data.sources.forms import (
    FORM_FIELDS,
    FORMS,
    TEXT_FIELDS,
    described,
    form_of,
    nearest,
    of_form,
    said_empty,
)
from eve_jax.data.sources.image_objects import check_edits, check_object, unread_keys
from eve_jax.data.sources.image_refs import file_name, image_values, reference, to_image
from eve_jax.data.sources.kept_fields import kept_fields
from eve_jax.data.sources.learned import check_record
from eve_jax.data.sources.media import IMAGE_SUFFIXES, SCAN, media_kind, suffix_of
from eve_jax.data.sources.member_names import Owner, different_from_members, member_order
from eve_jax.data.sources.other_markers import check_places, unplaced, with_places
from eve_jax.data.sources.same_images import Images, all_same, are_names, is_name
from eve_jax.errors import amount, shorten

IMAGE_FIELDS = ("image", "images", "image_path", "image_paths", "img", "img_path", "jpg", "jpeg", "png", "webp")
NAME_FIELDS = ("file_name", "file_names", "filename", "image_name", "image_file", "image_file_name")
URL_FIELDS = ("image_url", "url")
_TEXTS = (*FORM_FIELDS, "system")
_OTHERS = (*NAME_FIELDS, *URL_FIELDS)
KNOWN = frozenset((*IMAGE_FIELDS, *NAME_FIELDS, *URL_FIELDS, *_TEXTS, "id"))
REMEDIES = {
    "image": "call it image or images, or remove it",
    SCAN: "convert it to an image that is read, call that image, or remove it",
}


class Place(NamedTuple):
    """Where a record stands: for messages, its id where it has none of its own, and where its image files are.

    images_dir: the folder that image paths start from; None for a source whose images are stored in it.
    records_dir: the folder of the records file, in which the files of `file_name` and the like are looked for, too.
    owner: of a source whose images are stored under names, see `eve_jax.data.sources.member_names`.
    form: of FORMS, that alone is read; "" for any. texts: whether a record without texts is refused.
    """

    where: str
    id: str
    images_dir: str | None = None
    records_dir: str | None = None
    owner: Owner | None = None
    form: str = ""
    texts: bool = True

    def folders(self, field: str) -> list[str] | None:
        """The folders that image paths in `field` may start from."""
        if self.images_dir is None:
            return None
        if field not in NAME_FIELDS or self.records_dir is None:
            return [self.images_dir]
        return [self.images_dir, self.records_dir] if self.images_dir else [self.records_dir, self.images_dir]


class _Found(NamedTuple):
    """The images of a record before they are opened, and the fields that they were taken from."""

    images: Images
    used: tuple[str, ...] = ()


def read_record(raw: object, place: Place, stored: Sequence[StoredImage] = ()) -> tuple[Record, Fields]:
    """Return the record that the JSON value `raw` describes, and which of its fields were used.

    `stored` are images that the source keeps with the record outside of `raw`. Raises `BadRecord`, which names what is
    wrong; `UnreadMedia` for an image, a video or audio in a field that is not read.
    """
    id = place.id
    try:
        if not isinstance(raw, dict):
            shown = f" ({shorten(raw, 100)!r})" if isinstance(raw, str) else ""
            raise BadRecord(f"not an object but {type(raw).__name__}{shown}")
        if raw.get("id") is not None:
            id = text_of(str(raw["id"]), "id")
        given = {name: value for name, value in raw.items() if not is_empty(value)}
        _check_downloaded(given)
        found = _find_images(given, stored, place)
        dialogue = _dialogue(raw, given, found, place)
        values = _placed(found.images, dialogue.parts, place)
        if others := {name: value for name, value in raw.items() if name not in KNOWN}:
            check_record(others, dialogue.turns)
            if values:
                check_edits({name: value for name, value in others.items() if name in given}, "the record")
        check_places(dialogue.turns, given)
        turns, order = with_places(dialogue.turns, [file_name(value) for value in values])
        images = _open([values[number] for number in order], found.images.field, place)
        fields = _fields(given, found, dialogue)
        if fields.unused:
            _refuse_media(given, fields.unused, found.images._replace(values=values))
        doubts = doubts_of(given, fields.unused, turns, unplaced(dialogue.turns, turns) if images else None)
        record = Record(id, images, turns, place.where, kept_fields(given))
        doubts = (*dialogue.fields.doubts, *doubts)
        return record, fields._replace(doubts=doubts) if doubts else fields
    except BadRecord as e:
        raise type(e)(e.reason, place.where, id, e.image) from None
    except RecursionError:
        raise BadRecord("a field is nested too deeply", place.where, id) from None


def _dialogue(raw: dict[str, Any], given: dict[str, Any], found: _Found, place: Place) -> Dialogue:
    form = place.form
    if not place.texts and given.keys().isdisjoint(TEXT_FIELDS):
        return Dialogue((), (), Fields())
    empty = [name for name in raw if name in FORM_FIELDS and name not in given]
    if form and given.keys().isdisjoint(FORMS[form]):
        if own := [name for name in empty if name in FORMS[form]]:
            raise BadRecord(f"is in the format {described(form)}{said_empty(own)}")
        names, known = ", ".join(map(repr, given)), form_of(given)
        remedy = f"those of {described(known)}: name it {known}, or name no format" if known else nearest(given)
        raise UnknownForm(
            f"is not in the format {described(form)}, by which its source is named, but has the fields {names}; "
            f"{remedy}"
        )
    try:
        return dialogue_of(of_form(given, form))
    except BadRecord as e:
        _refuse_media(given, [name for name in given if name not in KNOWN], found.images)
        unknown = isinstance(e, UnknownForm)
        if not unknown:
            empty = [name for name in empty if name == "response" and form_of(given) == "query"]
        kind = type(e) if not unknown or raw.keys().isdisjoint(TEXT_FIELDS) else BadRecord  # of a known form, but empty
        raise kind(f"{e.reason}{said_empty(empty)}", image=e.image) from None


def _check_downloaded(given: Mapping[str, Any]) -> None:
    """Raise `BadRecord` for what img2dataset writes of an image that it did not get."""
    status = given.get("status")
    if isinstance(status, str) and status.startswith("failed_to_") and "url" in given:
        raise BadRecord(f"img2dataset has no image of it ({status})")


def _find_images(given: Mapping[str, Any], stored: Sequence[StoredImage], place: Place) -> _Found:
    """Return the images that the fields name, of several fields with the same ones those of the first."""
    primary, others = (
        [Images(field, image_values(given[field]), place.folders(field)) for field in fields if field in given]
        for fields in (IMAGE_FIELDS, _OTHERS)
    )
    names = [one for one in others if _may_be_images(*one[:2])]
    for one in primary:
        if any(map(is_empty, one.values)):
            raise BadRecord(f"{one.field} is neither a path nor a list of paths")
    if stored:
        return _of_members(list(stored), primary, names, place)
    if primary:
        chosen = next((one for one in primary if one.are_stored()), primary[0])
    elif names:
        chosen = next((one for one in names if not one.is_elsewhere()), names[0])
    else:
        return _Found(Images("", []))
    different = [one for one in primary if not all_same(chosen, one)]
    different += [one for one in names if not are_names(chosen, one)]
    if different:
        raise BadRecord(f"{chosen.field} and {different[0].field} are different images; keep one of them")
    return _Found(chosen, tuple(one.field for one in primary) or (chosen.field,))


def _of_members(stored: list[Any], primary: list[Images], names: list[Images], place: Place) -> _Found:
    """Return the images that a source keeps with the record, in the order in which the fields name them."""
    different = next((one.field for one in primary if len(one.values) != len(stored)), None)
    if different is not None:
        raise different_from_members(different)
    found: Images | None = None
    order: list[int] | None = None
    for one in (*primary, *names):
        own = member_order(stored, one, place.owner or _nobody)
        if own is None:
            continue
        if found is not None and own != order:
            raise BadRecord(f"{found.field} and {one.field} name its images in different orders; keep one of them")
        found, order = found or one, order or own
    values = stored if order is None else [stored[number] for number in order]
    if len(values) == 1:  # then the name that markers in its texts have for it is that of its fields, if any
        shown = next((name for one in (*primary, *names) for name in map(file_name, one.values)), "")
        values = [replace(values[0], file_name=shown)]
    return _Found(Images("", values), tuple(one.field for one in primary))


def _nobody(name: str) -> str:
    return ""


def _may_be_images(field: str, values: list[Any]) -> bool:
    """Whether a field that may hold the name or the URL of anything holds those of images."""
    for value in values:
        text = reference(value)
        if not isinstance(text, str):
            if text is None:
                return False
            continue
        suffix = suffix_of(text)
        likely = suffix in IMAGE_SUFFIXES or text[:11].lower().startswith("data:image/")
        if field == "url" and not likely:  # of a web page, say
            return False
        if field in NAME_FIELDS and suffix and not suffix.isdigit() and not likely:
            return False
    return True


def _placed(found: Images, parts: Sequence[Part], place: Place) -> list[Any]:
    """Return the images in the order of the texts' image parts, where the texts have such parts."""
    if not parts:
        return found.values
    own = Images("an image part", [part.value for part in parts if part.value is not None], place.folders(""))
    if len(own.values) == len(parts):
        wrong = next((one.number for n, one in enumerate(parts) if one.number not in (None, n)), None)
        if wrong is not None:
            raise BadRecord(
                f"an image part of its texts has an image and the index {wrong} of another; keep one of them"
            )
        return _as_parts(found, own, place) if found.values else own.values
    if own.values:
        raise BadRecord("some image parts of its texts hold an image and others do not")
    if len(parts) != len(found.values):
        raise BadRecord(f"{amount(len(parts), 'image part')} in its texts for {amount(len(found.values), 'image')}")
    order = [number if part.number is None else part.number for number, part in enumerate(parts)]
    if sorted(order) != list(range(len(order))):
        raise BadRecord(f"the image parts of its texts have the indices {order}")
    return [found.values[number] for number in order]


def _as_parts(found: Images, own: Images, place: Place) -> list[Any]:
    """Return the record's images in the order of the images `own` of its texts' parts."""
    if not found.field and len(found.values) == len(own.values):
        order = member_order(found.values, own, place.owner or _nobody)
        return found.values if order is None else [found.values[number] for number in order]
    if not all_same(found, own):
        raise BadRecord(f"{found.field or 'the record'} and the image parts of its texts are different images")
    return found.values


def _open(values: Sequence[Any], field: str, place: Place) -> tuple[ImageFile, ...]:
    folders, field = place.folders(field), field or "an image part"
    return tuple(to_image(value, f"{place.where}[{number}]", folders, field) for number, value in enumerate(values, 1))


def _fields(given: Mapping[str, Any], found: _Found, dialogue: Dialogue) -> Fields:
    used = (*found.used, *dialogue.fields.used, *(("id",) if "id" in given else ()))
    rest = (field for field in given if field not in used)
    objects = [f"{field}[].{key}" for field in found.used for key in _of_objects(given[field], field)]
    return Fields(used, tuple(dict.fromkeys((*rest, *objects, *dialogue.fields.unused))))


def _of_objects(value: Any, field: str) -> Iterator[str]:
    """Yield the keys that are not read of the images in a field that are objects. Raises `BadRecord` for edits."""
    for one in image_values(value):
        check_object(one, field)
        yield from unread_keys(one)


def _refuse_media(given: Mapping[str, Any], unused: Iterable[str], images: Images) -> None:
    """Raise `UnreadMedia` for an unused field of a record with these images that looks like media."""
    values = images.values
    for name in unused:
        misspelt = name.lower() in IMAGE_FIELDS and name not in KNOWN
        for value in [given[name]] if name in given else _values_at(given, name):
            key = name if name in given else name.rpartition("[].")[2]
            kind = media_kind(key, value, partial(is_name, images), bool(values)) or ("image" if misspelt else "")
            if kind:
                remedy = REMEDIES.get(kind, "remove it")
                what = "looks like an image, but is" if kind == "image" else f"holds {kind}, which is"
                raise UnreadMedia(f"the field {name!r} {what} not read; {remedy} (see docs/data.md)")


def _values_at(holder: Any, path: str) -> Iterator[Any]:
    """Yield what is at `path`, as `messages[].content[].key`, in an object that holds lists of objects or objects."""
    first, _, rest = path.partition("[].")
    value = holder.get(first) if isinstance(holder, dict) else None
    if not rest:
        yield value
        return
    for item in value if isinstance(value, list) else [value]:
        yield from _values_at(item, rest)
