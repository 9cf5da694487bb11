"""Conversations as tokens and targets: prompts, label masks.

    turns -> pieces of text between images, and the character spans to learn (the answers)
          -> each piece tokenized once
          -> ids with IMAGE_ID per image, labels by the tokens' character offsets

The targets come from the construction of the text, so no answer can upset them, whatever it contains. Only human turns
place images (see `markers`); everywhere else `<image>` is text.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from eve_jax.data.markers import MARKER, escape_markers, split_markers
from eve_jax.data.record import BadRecord, Role, Turn, text_of
from eve_jax.data.text.templates import Template, end_id, get_template
from eve_jax.data.text.tokenizer import Tokenizer
from eve_jax.data.text.turns import NOTHING, check_roles, other_number
from eve_jax.data.text.written import IGNORE as IGNORE
from eve_jax.data.text.written import IMAGE_ID as IMAGE_ID
from eve_jax.data.text.written import Text, tokenized
from eve_jax.errors import UserError


class Encoded(NamedTuple):
    """ids int32 [n] with IMAGE_ID per image; labels int32 [n], IGNORE where nothing is learned, else equal to ids."""

    ids: np.ndarray
    labels: np.ndarray


class _Placed(NamedTuple):
    """A turn as the texts before, between and after its images."""

    role: Role
    pieces: list[str]


def encode_chat(
    turns: Sequence[Turn],
    tokenizer: Tokenizer,
    template: str,
    n_images: int,
    image_first: bool = False,
    special_text: bool = False,
) -> Encoded:
    """Return tokens and labels of a conversation with `n_images` images.

    An image stands where its `<image>` marker does in a human turn; without any marker the images go before the first
    human turn's text; `image_first` moves those of a turn to its front. What turns say is text, also where it reads
    like a special token, but with `special_text`. An empty answer and a last human turn are read, not learned. Raises
    `BadRecord` when markers and images differ in number, roles do not alternate, or nothing is left to learn.
    """
    text = _write(turns, get_template(template), n_images, _Style(image_first, special_text))
    ids, labels = tokenized(text, tokenizer, tokenizer.bos)
    if not (labels[1:] != IGNORE).any():  # a first token has nothing that could predict it
        raise BadRecord(NOTHING)
    return Encoded(ids, labels)


def prompt_ids(
    turns: Sequence[Turn],
    tokenizer: Tokenizer,
    template: str,
    n_images: int,
    image_first: bool = False,
    special_text: bool = False,
) -> np.ndarray:
    """Return int32 [n], the tokens of `encode_chat` up to where the next answer begins, without a last gpt turn.

    Other than in a record, `<image>` in a conversation without images is text. Raises `BadRecord` when markers and
    images differ in number or roles do not alternate, `UserError` for a prompt that would be empty.
    """
    if turns and turns[-1].role == "gpt":
        turns = turns[:-1]
    text = _write(turns, get_template(template), n_images, _Style(image_first, special_text, ask=True))
    ids, _ = tokenized(text, tokenizer, tokenizer.bos)
    if not len(ids):
        raise UserError(f"the template {template} makes an empty prompt of this: add an image")
    return ids


def continuation_ids(
    text: str,
    tokenizer: Tokenizer,
    template: str,
    n_images: int,
    image_first: bool = False,
    special_text: bool = False,
) -> np.ndarray:
    """Return int32 [n], the tokens that a further human turn `text` adds after the last answer's end token.

    The turn's `n_images` images stand where its markers do, without markers or with `image_first` before it; `<image>`
    in a turn without images is text. For a conversation so far `prompt + answer + [end_id]`, adding these tokens gives
    the `prompt_ids` of the longer one, but for a template that writes its last answer otherwise (`Template.thought`).
    Raises `BadRecord` when markers and images differ in number, `UserError` for a template without dialogue.
    """
    style = get_template(template)
    if style.caption:
        raise UserError(f"the template {template} has no dialogue that could be continued")
    (turn,) = _place_images([Turn("human", text_of(text, "the text of a human turn"))], n_images, ask=True)
    end = end_id(tokenizer, template)
    written = Text(special_text)
    # With the end token before it: what stands at the start of a text is tokenized differently by some tokenizers.
    written.add(style.end + style.after + style.answer_end + style.human)
    _add_question(written, turn, style, image_first)
    written.add(style.gpt + style.thought)
    ids, _ = tokenized(written, tokenizer, bos=None)
    if ids[0] != end:
        raise UserError(f"{tokenizer.folder or 'the tokenizer'}: merges {style.end!r} with what follows")
    return ids[1:]


class _Style(NamedTuple):
    """How a conversation is written next to its template; with `ask` it ends where an answer would begin."""

    image_first: bool
    special_text: bool
    ask: bool = False


def _write(turns: Sequence[Turn], template: Template, n_images: int, style: _Style) -> Text:
    for role, words in turns:
        text_of(words, f"the text of a {role} turn")
    said = len(turns)
    system, turns = _split_system(turns, template)
    if not template.caption:
        check_roles(turns, said)
    placed = _place_images(turns, n_images, style.ask)
    text = Text(style.special_text)
    if template.images_first:
        placed = _images_before(text, placed, template)
    if template.caption:
        _write_caption(text, placed, template, style.ask)
        return text
    _add_system(text, system, template, inside=False)
    for number, turn in enumerate(placed):
        if turn.role == "human":
            text.add((template.answer_end if number else "") + template.human)
            if not number:
                _add_system(text, system, template, inside=True)
            _add_question(text, turn, template, style.image_first)
            continue
        last = number == len(placed) - 1
        text.add(template.gpt + template.block(last))
        answer = template.bare(_without_thoughts(turn.pieces[0], template, style.ask), last)
        if answer:
            text.learn(template.answer_begin, answer, template.end + template.after, template.apart and not style.ask)
        else:
            text.add(template.end + template.after)
    if style.ask:
        text.add(template.gpt + template.thought)
    elif template.learned:
        text.learn_all()
    return text


def _images_before(text: Text, turns: Sequence[_Placed], template: Template) -> list[_Placed]:
    """Write all images, with the bos token behind them; return the turns without, nor the line ends behind an image."""
    left = []
    for turn in turns:
        for _ in turn.pieces[1:]:
            text.add(*template.image)
        left.append(turn._replace(pieces=["".join(turn.pieces).lstrip("\n")]) if len(turn.pieces) > 1 else turn)
    text.begin()
    return left


def _add_system(text: Text, system: str, template: Template, inside: bool) -> None:
    before, sentence, after = template.around(system, inside)
    text.add(before)
    (text.add if system == template.system else text.quote)(sentence)
    text.add(after)


def _add_question(text: Text, turn: _Placed, template: Template, image_first: bool) -> None:
    pieces = _images_to_front(turn.pieces) if image_first else list(turn.pieces)
    if template.trim == "all":
        pieces[0] = pieces[0].lstrip()
        pieces[-1] = pieces[-1].rstrip()
    text.quote(pieces[0])
    for piece in pieces[1:]:
        text.add(*template.image)
        text.quote(piece)
    text.add(template.human_end)


def _without_thoughts(answer: str, template: Template, ask: bool) -> str:
    """An answer for a template that has empty thoughts before it: a record's must have none, those given may."""
    thought = template.thought.split()[-1] if template.thought else ""
    if not thought or thought not in answer:
        return answer
    if not ask:
        raise BadRecord(f"an answer has thoughts ({thought}), for which the template has an empty block; use chatml")
    return answer if template.each_thought else answer.rpartition(thought)[2].lstrip("\n")


def render(turns: Sequence[Turn], template: str, ask: bool = False) -> str:
    """Return the text of a conversation without images, which begins after the bos token.

    With `ask` it ends where an answer would begin. Raises `BadRecord` as `encode_chat` does.
    """
    return _write(turns, get_template(template), 0, _Style(False, False, ask)).pieces[0]


def _write_caption(text: Text, turns: Sequence[_Placed], template: Template, ask: bool) -> None:
    if [turn.role for turn in turns] != ["human", "gpt"][: 1 if ask else 2]:
        raise BadRecord("a caption is one gpt turn, after one human turn at most; this is a longer conversation")
    text.add(*[""] * len(turns[0].pieces))
    caption = "" if ask else turns[1].pieces[0]
    if template.strip:
        caption = caption.strip()
    if caption.strip():
        text.learn("", caption, template.end)


def _split_system(turns: Sequence[Turn], template: Template) -> tuple[str, list[Turn]]:
    """The system sentence (a leading system turn replaces the template's) and the turns from a first human one."""
    rest = list(turns)
    system = template.system
    if rest and rest[0].role == "system":
        system = rest.pop(0).text
    if template.caption:
        return system, rest if rest and rest[0].role == "human" else [Turn("human", ""), *rest]
    while rest and rest[0].role == "gpt":
        rest.pop(0)
    return system, rest


def _place_images(turns: Sequence[Turn], n_images: int, ask: bool) -> list[_Placed]:
    """The turns with their images in place. Raises `BadRecord` when markers and images differ in number."""
    placed = [_Placed(t.role, split_markers(t.text) if t.role == "human" else [t.text]) for t in turns]
    markers = sum(len(turn.pieces) - 1 for turn in placed)
    if markers == 0 and n_images and placed:
        first = placed[0]
        front = [""] + ["\n"] * (n_images - 1) + ["\n" + first.pieces[0]]
        return [first._replace(pieces=front), *placed[1:]]
    if ask and not n_images:
        return [turn._replace(pieces=[MARKER.join(turn.pieces)]) for turn in placed]
    if markers != n_images:
        raise other_number(markers, n_images)
    return placed


def as_turn(text: str, n_images: int) -> Turn:
    """Return a human turn for any conversation, with its `n_images` images where `continuation_ids` has them."""
    pieces = split_markers(text)
    if not n_images:
        return Turn("human", escape_markers(MARKER.join(pieces)))
    return Turn("human", text if len(pieces) > 1 else f"{MARKER}\n" * n_images + text)


def _images_to_front(pieces: Sequence[str]) -> list[str]:
    """The turn with its images on lines of their own before the text, stripped as the original does."""
    if len(pieces) == 1:
        return list(pieces)
    text = "".join(pieces).strip()
    return [""] + ["\n"] * (len(pieces) - 2) + ["\n" + text if text else ""]
