"""How a conversation is written, which token ends an answer, and whether a tokenizer has what a template needs."""

from dataclasses import dataclass, replace

from eve_jax.data.text.tokenizer import Tokenizer
from eve_jax.errors import Field, FieldError, UserError


@dataclass(frozen=True)
class Template:
    """How a conversation is written: the system sentence, then (human, human_end, gpt, answer, end) for every exchange.

    `answer_end` stands between an `end` and the next human turn. The tokenizer's bos token, where it has one, goes
    before everything. The targets are `answer_begin` + the answer + `end`. With `caption` there is no dialogue: the
    images, then the text of the single gpt turn, with `strip` without outer white space; `end` is then text like any
    other, since nothing is generated with such a template.
    """

    system_begin: str = ""
    system: str = ""  # unless a record has its own
    system_end: str = ""
    human: str = ""
    human_end: str = ""
    gpt: str = ""
    answer_begin: str = ""
    end: str = ""
    answer_end: str = ""
    caption: bool = False
    strip: bool = True

    def around(self, system: str) -> tuple[str, str]:
        """Return what stands around the system sentence; a header (`system_begin`) without a sentence is left out."""
        return ("", "") if self.system_begin and not system else (self.system_begin, self.system_end)


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
# Answers as different tokenizers cut them: before each of them and after it, the end must be the same single token.
_LAST_WORDS = ("hello", "", "a ", "a\n", "a\t ", "7", "<", "|", ">", "a</", "<|", "_", ".", "'", "é", "图", "😀")


def get_template(name: str) -> Template:
    """Return the template called `name`. Raises `UserError` for an unknown one."""
    if name not in TEMPLATES:
        raise FieldError(Field("data.template"), f": {name!r} is not one of {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def check_template(tokenizer: Tokenizer, name: str) -> None:
    """Raise `UserError` unless `tokenizer` ends every answer in the template `name` with the same single token.

    That must hold whatever an answer's last characters are. Captions need no such token. The message names the
    templates that fit the tokenizer.
    """
    problem = _end_problem(tokenizer, name)
    if problem:
        fitting = " or ".join(fitting_templates(tokenizer))
        remedy = ("set ", Field("data.template"), f"={fitting}, which fits this tokenizer, or ") if fitting else ()
        raise FieldError(
            f"{tokenizer.folder or 'the tokenizer'}: {problem}: ",
            *remedy,
            f"use a tokenizer that has {get_template(name).end!r} as a special token, with a number that the model was "
            "trained with (docs/data.md#ends-of-answers)",
        )


def fitting_templates(tokenizer: Tokenizer) -> list[str]:
    """Return the names of the dialogue templates whose end `tokenizer` has as a single token."""
    return [name for name, t in TEMPLATES.items() if not t.caption and not _end_problem(tokenizer, name)]


def end_id(tokenizer: Tokenizer, name: str) -> int:
    """Return the token that ends an answer in the template `name`. Raises `UserError` as `check_template` does.

    For captions, whose end may stand in a longer token, it is that of the end alone.
    """
    template = get_template(name)
    if not template.caption:
        check_template(tokenizer, name)
    ids = [id for id in tokenizer.encode(template.end) if tokenizer.decode([id], skip_special=False) == template.end]
    if len(ids) != 1:
        raise UserError(f"{tokenizer.folder or 'the tokenizer'}: has no token {template.end!r} of its own")
    return ids[0]


def stop_ids(tokenizer: Tokenizer, name: str) -> list[int]:
    """Return the tokens that an answer stops at: the template's end, then the tokenizer's other ends of texts."""
    stops = [end_id(tokenizer, name)]
    return stops + [id for id in special_ends(tokenizer).values() if id not in stops]


def special_ends(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the special tokens of `tokenizer` that end a text in one model or another, with their numbers.

    To Qwen2 `</s>` is text like any other (the end of struck-out text in HTML), so it is not among its own.
    """
    found = {token: tokenizer.find(token) for token in _END_OF_TEXT}
    return {token: id for token, id in found.items() if id is not None and not tokenizer.decode([id])}


def _end_problem(tokenizer: Tokenizer, name: str) -> str:
    """What keeps the tokenizer from ending answers in the template `name`, "" when nothing does."""
    template = get_template(name)
    if template.caption:
        return ""
    end = template.end
    id = tokenizer.find(end)
    if id is None:
        return f"has no token {end!r}, which the template {name} ends answers with"
    needed = f"; the template {name} ends answers with it"
    before = template.gpt + template.answer_begin
    for words in _LAST_WORDS:
        start = len(before + words)
        ids, offsets = tokenizer.encode_with_offsets(before + words + end + template.answer_end + template.human)
        spans = [span for n, span in zip(ids, offsets, strict=True) if n == id]
        if spans == [(start, start + len(end))]:
            continue
        if spans:
            return f"takes the white space next to {end!r} into this token (its flags lstrip, rstrip){needed}"
        alone = len(tokenizer.encode(end))
        if alone != 1:
            return f"has {end!r} as entry {id} of its vocabulary, but reads it as {alone} other tokens{needed}"
        return f"does not read {end!r} as a token of its own after {words!r}{needed}"
    return ""
