"""Conversations as tokens and targets: templates, prompts, label masks.

    turns -> one text with <image> markers and the character spans to learn (the answers)
          -> the chunks between the markers, tokenised once each
          -> ids with IMAGE_ID per image, labels by the tokens' character offsets

The targets come from the construction of the text, so no answer can upset them, whatever it contains.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from eve_jax.data.records import BadRecord, Turn
from eve_jax.data.tokenizer import Tokenizer
from eve_jax.errors import UserError

IMAGE_ID = -200  # stands for one image in ids
IGNORE = -100  # label of a token that is not learnt
MARKER = "<image>"


@dataclass(frozen=True)
class Template:
    """How a conversation is written: system, (human, human_end, gpt, answer, end) for every exchange.

    The tokenizer's bos token, where it has one, goes before everything. Learnt are `answer_begin` + the answer +
    `end`. With `caption` there is no dialogue: the images, then the text of the single gpt turn, with `strip` without
    outer white space.
    """

    system: str = ""
    system_end: str = ""
    human: str = ""
    human_end: str = ""
    gpt: str = ""
    answer_begin: str = ""
    end: str = ""
    caption: bool = False
    strip: bool = True


_DIALOGUE = Template(
    system="A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    system_end=" ",
    human="USER: ",
    human_end=" ",
    gpt="ASSISTANT:",
    answer_begin=" ",
)

TEMPLATES = {
    "plain": Template(end="\n", caption=True),
    "plain_v1": Template(end="\n", caption=True, strip=False),  # as EVEv1 has it
    "qwen2": replace(_DIALOGUE, end="<|im_end|>"),
    "llama3": replace(_DIALOGUE, end="<|end_of_text|>"),
    "v1": replace(_DIALOGUE, end="</s>"),
}
# Tokens that end a text in one model or another; an answer stops at them whatever its template.
_END_OF_TEXT = ("<|im_end|>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "</s>")


class Encoded(NamedTuple):
    """ids int32 [n] with IMAGE_ID per image; labels int32 [n], IGNORE where nothing is learnt, else equal to ids."""

    ids: np.ndarray
    labels: np.ndarray


def get_template(name: str) -> Template:
    """The template called `name`. Raises `UserError` for an unknown one."""
    if name not in TEMPLATES:
        raise UserError(f"config.data.template: {name!r} is not one of {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def encode_chat(
    turns: Sequence[Turn], tokenizer: Tokenizer, template: str, n_images: int, image_first: bool = False
) -> Encoded:
    """Tokens and labels of a conversation with `n_images` images.

    An image stands where its `<image>` marker does; without any marker the images go before the first human turn's
    text; `image_first` moves those of a turn to its front. An empty answer and a last human turn are read, not learnt.
    Raises `BadRecord` when markers and images differ in number, roles do not alternate, or nothing is left to learn.
    """
    text, spans = _write(turns, get_template(template), n_images, image_first)
    ids, labels = _tokenise(text, spans, tokenizer, tokenizer.bos)
    if not (labels[1:] != IGNORE).any():  # a first token has nothing that could predict it
        raise BadRecord("nothing to learn: every answer is empty or missing")
    return Encoded(ids, labels)


def prompt_ids(
    turns: Sequence[Turn], tokenizer: Tokenizer, template: str, n_images: int, image_first: bool = False
) -> np.ndarray:
    """int32 [n] tokens of `encode_chat` up to where the next answer begins; a last gpt turn is left out."""
    if turns and turns[-1].role == "gpt":
        turns = turns[:-1]
    text, _ = _write(turns, get_template(template), n_images, image_first, ask=True)
    ids, _ = _tokenise(text, [], tokenizer, tokenizer.bos)
    if not len(ids):
        raise UserError(f"the template {template} makes an empty prompt of this: add an image")
    return ids


def continuation_ids(
    text: str, tokenizer: Tokenizer, template: str, n_images: int, image_first: bool = False
) -> np.ndarray:
    """int32 [n] tokens that a further human turn `text` adds: after the last answer's end token, up to the next answer.

    The turn's `n_images` images stand where its markers do, without markers or with `image_first` before it. For a
    conversation so far `prompt + answer + [end_id]`, adding these tokens gives the `prompt_ids` of the longer one.
    Raises `BadRecord` when markers and images differ in number, `UserError` for a template without dialogue.
    """
    style = get_template(template)
    if style.caption:
        raise UserError(f"the template {template} has no dialogue that could go on")
    (turn,) = _place_images([Turn("human", text)], n_images)
    end = end_id(tokenizer, template)
    # With the end token before it: what stands at the start of a text is tokenised differently by some tokenizers.
    asked = _images_to_front(turn.text) if image_first else turn.text
    text = style.end + style.human + asked + style.human_end + style.gpt
    ids, _ = _tokenise(text, [], tokenizer, bos=None)
    if ids[0] != end:
        raise UserError(f"{tokenizer.folder or 'the tokenizer'}: merges {style.end!r} with what follows")
    return ids[1:]


def end_id(tokenizer: Tokenizer, template: str) -> int:
    """The token that ends an answer. Raises `UserError` when the tokenizer has none for this template."""
    end = get_template(template).end
    ids = [id for id in tokenizer.encode(end) if tokenizer.decode([id], skip_special=False) == end]
    if len(ids) != 1:
        owner = tokenizer.folder or "the tokenizer"
        raise UserError(f"{owner}: has no token {end!r}, which the template {template} ends answers with")
    return ids[0]


def stop_ids(tokenizer: Tokenizer, template: str) -> list[int]:
    """The tokens that an answer stops at: the template's end, then the other ends of text that the tokenizer has."""
    stops = [end_id(tokenizer, template)]
    for token in _END_OF_TEXT:
        id = tokenizer.find(token)
        # To Qwen2 `</s>` is text like any other (the end of struck-out text in HTML): special tokens alone will do.
        if id is not None and id not in stops and not tokenizer.decode([id]):
            stops.append(id)
    return stops


def _write(
    turns: Sequence[Turn], template: Template, n_images: int, image_first: bool, ask: bool = False
) -> tuple[str, list[tuple[int, int]]]:
    """The text with markers and the character spans to learn; with `ask` it ends where an answer would begin."""
    system, turns = _split_system(turns, template)
    turns = _place_images(turns, n_images)
    if template.caption:
        return _write_caption(turns, template, ask)
    _check_roles(turns)
    text = system + template.system_end
    spans = []
    for turn in turns:
        if turn.role == "human":
            text += template.human + (_images_to_front(turn.text) if image_first else turn.text) + template.human_end
            continue
        text += template.gpt
        start = len(text)
        text += (template.answer_begin + turn.text if turn.text else "") + template.end
        if turn.text:
            spans.append((start, len(text)))
    return text + template.gpt if ask else text, spans


def _write_caption(turns: Sequence[Turn], template: Template, ask: bool) -> tuple[str, list[tuple[int, int]]]:
    if [turn.role for turn in turns] != ["human", "gpt"][: 1 if ask else 2]:
        raise BadRecord("a caption is one gpt turn, after one human turn at most; this is a longer conversation")
    images = MARKER * turns[0].text.count(MARKER)
    caption = "" if ask else turns[1].text
    if template.strip:
        caption = caption.strip()
    if not caption.strip():
        return images, []
    text = images + caption + template.end
    return text, [(len(images), len(text))]


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


def _place_images(turns: list[Turn], n_images: int) -> list[Turn]:
    markers = sum(turn.text.count(MARKER) for turn in turns)
    if markers == 0 and n_images and turns:
        return [Turn("human", (MARKER + "\n") * n_images + turns[0].text), *turns[1:]]
    if markers != n_images:
        raise BadRecord(f"{markers} <image> markers for {n_images} images")
    return turns


def _images_to_front(text: str) -> str:
    """The text with its markers on lines of their own before it, stripped as upstream does."""
    count = text.count(MARKER)
    return ((MARKER + "\n") * count + text.replace(MARKER, "").strip()).strip() if count else text


def _check_roles(turns: Sequence[Turn]) -> None:
    if not turns:
        raise BadRecord("no human turn")
    for number, turn in enumerate(turns):
        if turn.role != ("human", "gpt")[number % 2]:
            raise BadRecord("turns do not alternate between human and gpt")


def _tokenise(
    text: str, spans: Sequence[tuple[int, int]], tokenizer: Tokenizer, bos: int | None
) -> tuple[np.ndarray, np.ndarray]:
    ids: list[int] = [] if bos is None else [bos]
    starts: list[int] = [0] * len(ids)  # first character of each token in `text`
    position = 0
    for number, chunk in enumerate(text.split(MARKER)):
        if number:
            ids.append(IMAGE_ID)
            starts.append(position - len(MARKER))
        chunk_ids, offsets = tokenizer.encode_with_offsets(chunk)
        ids += chunk_ids
        starts += [position + start for start, _ in offsets]
        position += len(chunk) + len(MARKER)
    tokens = np.array(ids, np.int32)
    edges = np.array(spans, np.int64).reshape(-1)
    inside = np.searchsorted(edges, np.array(starts, np.int64), side="right") % 2 == 1
    return tokens, np.where(inside & (tokens != IMAGE_ID), tokens, np.int32(IGNORE)).astype(np.int32)
