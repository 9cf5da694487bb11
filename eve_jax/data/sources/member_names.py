"""Which image members of a tar's record the names in its JSON mean, and so in which order they stand.

Names are compared without folders, with the whole name of a member (`page.0.png`) or with what is behind its key
(`0.png`), and where none fits without their endings.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from eve_jax.data.record import BadRecord
from eve_jax.data.sources.image_refs import file_name, is_stored, reference
from eve_jax.data.sources.same_images import Images, all_same
from eve_jax.errors import shorten

Owner = Callable[[str], str]  # the key of another record in the tar that an image name belongs to, "" for none


def member_order(members: Sequence[Any], field: Images, owner: Owner) -> list[int] | None:
    """Return which of `members` each value of `field` means; None where that tells nothing.

    A single image may have any name that is no other record's, as data sets keep the names that their images had
    before. Raises `BadRecord` naming a name that belongs to another record, or, of several, one that is no member.
    """
    if any(map(is_stored, field.values)):
        if not all_same(Images("", list(members)), field):
            raise BadRecord(
                f"the files stored with the record and {field.field} are different images; keep one of them"
            )
        return None
    texts = [text for text in map(reference, field.values) if isinstance(text, str)]
    for text in texts:
        if other := owner(text):
            raise BadRecord(f"{field.field} names {_quoted(text)}, an image of the record {_quoted(other)}", image=text)
    if len(texts) != len(members) or field.is_elsewhere():
        return None
    names = [file_name(member) for member in members]
    found = [_place(text, names) for text in map(file_name, texts)]
    if sorted(found) == list(range(len(names))):
        return found
    if len(names) == 1:
        return None
    wrong = next((text for text, at in zip(texts, found, strict=True) if at < 0 or found.count(at) > 1))
    raise BadRecord(
        f"{field.field} names {_quoted(wrong)}, which is not one of its images ({shorten(', '.join(names), 200)}), or "
        "not of one alone; name each once, or remove the field to have them in the order of the tar",
        image=wrong,
    )


def different_from_members(field: str) -> BadRecord:
    """Return the error for a field that holds other images than those stored with the record."""
    return BadRecord(f"the files stored with the record and {field} are different images; keep one of them")


def _place(text: str, names: Sequence[str]) -> int:
    """Return the only one of `names` that `text` means, -1 for none or several."""
    for one, others in ((text, names), (_stem(text), [_stem(name) for name in names])):
        found = [number for number, name in enumerate(others) if one and f".{name}".endswith(f".{one}")]
        if found:
            return found[0] if len(found) == 1 else -1
    return -1


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _quoted(text: str) -> str:
    return shorten(repr(text), 200)


def stems(name: str) -> Iterator[str]:
    """Yield a path without its ending, then without each further part behind a dot: the keys that it may have."""
    folder, slash, base = name.rpartition("/")
    while "." in base:
        base = base.rpartition(".")[0]
        yield folder + slash + base
