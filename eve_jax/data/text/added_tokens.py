"""Tokens that tokenizer_config.json, special_tokens_map.json and added_tokens.json add to a tokenizer next to them.

the files next to a tokenizer -> `read_added`: each token with its flags, and its number where a file gives one
                             -> `number_added`: each once, with a number that agrees with the tokenizer
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken

from eve_jax.errors import UserError
from eve_jax.process.files import read_json

CONFIG_FILE = "tokenizer_config.json"
ADDED_FILE = "added_tokens.json"
MAP_FILE = "special_tokens_map.json"
DECODER = "added_tokens_decoder"
# The fields that name special tokens, in the order in which transformers adds those that have no number yet.
_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTS = ("additional_special_tokens", "extra_special_tokens")
_FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")
_REMEDY = "keep the number that the model was trained with"


class Added(NamedTuple):
    """A token that `place` (a file or a field of one) adds.

    id: its number, None where no file gives one. flags: those of `tokenizers.AddedToken` that the place decides.
    defaults: flags for a token of which the tokenizer's own file says none.
    """

    content: str
    id: int | None
    flags: dict[str, bool]
    defaults: dict[str, bool]
    place: str

    def token(self, own: AddedToken | None = None) -> AddedToken:
        """Return the token with its flags; `own` is how the tokenizer's own file has it."""
        base = {} if own is None else {flag: getattr(own, flag) for flag in _FLAGS}
        return AddedToken(self.content, **({"special": True} | self.defaults | base | self.flags))

    def _joined(self, earlier: "Added | None") -> "Added":
        """Return the token with what an `earlier` place says of it, too, whose flags stand."""
        if earlier is None:
            return self
        flags, defaults = earlier.flags | self.flags, self.defaults | earlier.defaults
        return earlier._replace(flags=flags, defaults=defaults)


def read_settings(folder: Path | None, name: str) -> dict[str, Any]:
    """Return the JSON object in the file `name` of `folder`, {} without one. Raises `UserError` for anything else."""
    path = folder / name if folder else None
    return read_json(path) if path and path.is_file() else {}


def read_added(folder: Path | None) -> list[Added]:
    """Return the tokens that the files in `folder` add: those with numbers first, then those that are only named.

    Raises `UserError` naming the file and the field that is not as Hugging Face writes it.
    """
    if folder is None:
        return []
    config = read_settings(folder, CONFIG_FILE)
    added = list(_of_decoder(config.get(DECODER), f"{folder / CONFIG_FILE}: {DECODER}"))
    place = str(folder / ADDED_FILE)
    for content, id in read_settings(folder, ADDED_FILE).items():
        added.append(Added(_text(content, place), _number(id, f"{place}: {content!r}"), {}, {}, place))
    added += _named(config, str(folder / CONFIG_FILE))
    added += _named(read_settings(folder, MAP_FILE), str(folder / MAP_FILE))
    return added


def number_added(
    added: Sequence[Added],
    find: Callable[[str], int | None],
    written: Callable[[int], str | None],
    size: int,
    owner: Path,
) -> dict[int, Added]:
    """Return each token of `added` once by its number, in ascending order.

    `find` and `written` are the tokenizer's number of a token and token of a number, `size` is its number of tokens,
    `owner` its file. A token without a number gets the next free one, as in transformers. Raises `UserError` when
    the files contradict the tokenizer or each other, or when numbers are left out.
    """
    numbered = [one for one in added if one.id is not None]
    unnumbered = [one for one in added if one.id is None]
    found: dict[str, Added] = {}
    contents: dict[int, Added] = {}
    for one in numbered:
        assert one.id is not None
        where, number = owner.name, find(one.content)
        if one.content in found:
            where, number = found[one.content].place, found[one.content].id
        if number is not None and number != one.id:
            raise UserError(f"{one.place}: {one.content!r} is token {one.id} here, {number} in {where}; {_REMEDY}")
        where, other = owner.name, written(one.id) if one.id < size else None
        if one.id in contents:
            where, other = contents[one.id].place, contents[one.id].content
        if other is not None and other != one.content:
            raise UserError(f"{one.place}: token {one.id} is {one.content!r} here, {other!r} in {where}; {_REMEDY}")
        found[one.content] = contents[one.id] = one._joined(found.get(one.content))
    for id, one in sorted(contents.items()):
        if id > size:
            raise UserError(
                f"{one.place}: {one.content!r} is token {id}, but there is no token {size}; a token is missing, or the "
                f"file belongs to another tokenizer than {owner.name}"
            )
        size = max(size, id + 1)
    for one in unnumbered:
        number = found[one.content].id if one.content in found else find(one.content)
        if number is None:
            number, size = size, size + 1
        found[one.content] = contents[number] = one._joined(found.get(one.content))._replace(id=number)
    return dict(sorted(contents.items()))


def _of_decoder(decoder: object, place: str) -> Iterator[Added]:
    """The tokens of the field `added_tokens_decoder`: {"number": {"content": text, flags}}."""
    if decoder is None:
        return
    if not isinstance(decoder, dict):
        raise UserError(f"{place} is not an object but {type(decoder).__name__}")
    for key, entry in decoder.items():
        content, flags = _entry(entry, f"{place}: {key}")
        yield Added(content, _number(key, f"{place}: {content!r}"), flags, {}, place)


def _named(fields: dict[str, Any], file: str) -> Iterator[Added]:
    """The tokens that a file names by what they are for: `eos_token`, `additional_special_tokens` and the like."""
    for field in _ROLES:
        if fields.get(field) is not None:
            content, flags = _entry(fields[field], f"{file}: {field}")
            yield Added(content, None, {"special": True}, flags, f"{file}: {field}")
    for field in _LISTS:
        several = fields.get(field) or []
        if isinstance(several, dict):  # {name: token}, as newer files have it
            several = list(several.values())
        if not isinstance(several, list):
            raise UserError(f"{file}: {field} is not a list but {type(several).__name__}")
        for one in several:
            content, flags = _entry(one, f"{file}: {field}")
            yield Added(content, None, {"special": True}, flags, f"{file}: {field}")


def _entry(entry: object, place: str) -> tuple[str, dict[str, bool]]:
    """The text and the flags of a token that is written as a text, or as an object with flags."""
    if isinstance(entry, str):
        return _text(entry, place), {}
    if not isinstance(entry, dict):
        raise UserError(f"{place} is neither a text nor an object with a content but {type(entry).__name__}")
    flags = {flag: entry[flag] for flag in _FLAGS if entry.get(flag) is not None}
    for flag, value in flags.items():
        if value not in (0, 1):
            raise UserError(f"{place}: {flag} is {value!r}, not true or false")
    return _text(entry.get("content"), place), {flag: bool(value) for flag, value in flags.items()}


def _text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{place}: the content of a token is not a text but {type(value).__name__}")
    if not value:
        raise UserError(f"{place}: a token without any text")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise UserError(f"{place}: the token {value!r} is not valid Unicode")
    return value


def _number(value: object, place: str) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UserError(f"{place} has the number {value!r}; expected a whole number from 0")
    return value
