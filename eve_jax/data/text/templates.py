"""How a conversation is written, which token ends an answer, and whether a tokenizer has what a template needs."""

from dataclasses import replace

from eve_jax.data.text.template import Template as Template
from eve_jax.data.text.tokenizer import Tokenizer
from eve_jax.errors import Field, FieldError, UserError

_DIALOGUE = Template(
    system="A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    system_end=" ",
    human="USER: ",
    human_end=" ",
    gpt="ASSISTANT:",
    answer_begin=" ",
)

_CHATML = Template(
    system_begin="<|im_start|>system\n",
    system_end="<|im_end|>\n",
    human="<|im_start|>user\n",
    human_end="<|im_end|>\n",
    gpt="<|im_start|>assistant\n",
    end="<|im_end|>",
    answer_end="\n",
    tokens=("<|im_start|>",),
)
_SMOLLM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
_LLAMA3 = Template(
    system_begin="<|start_header_id|>system<|end_header_id|>\n\n",
    system_end="<|eot_id|>",
    human="<|start_header_id|>user<|end_header_id|>\n\n",
    human_end="<|eot_id|>",
    gpt="<|start_header_id|>assistant<|end_header_id|>\n\n",
    end="<|eot_id|>",
    trim="all",
    tokens=("<|start_header_id|>", "<|end_header_id|>"),
)
_DATED = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
_MISTRAL = Template(
    system_end="\n\n",
    human=" [INST] ",
    human_end=" [/INST]",
    answer_begin=" ",
    end="</s>",
    inside=True,
)
# Those of models that answer: of each the name that its makers give it, as transformers renders it (docs/data.md).
_INSTRUCT = {
    "chatml": _CHATML,
    "qwen2_instruct": replace(_CHATML, system="You are a helpful assistant."),  # also Qwen2.5's base models
    "qwen2.5": replace(_CHATML, system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
    "qwen3": replace(_CHATML, thought="<think>\n\n</think>\n\n"),
    "smollm2": replace(_CHATML, system=_SMOLLM),
    "smollm3": replace(
        _CHATML,
        system_begin="<|im_start|>system\n## Metadata\n\nKnowledge Cutoff Date: June 2025\nToday Date: 08 July 2025\n"
        "Reasoning Mode: /no_think\n\n## Custom Instructions\n\n",
        system=f"{_SMOLLM}.",
        system_end="\n\n<|im_end|>\n",
        thought="<think>\n\n</think>\n",
        each_thought=True,
        day="2025-07-08",
    ),
    "llama3_instruct": _LLAMA3,
    "llama3.2_instruct": replace(
        _LLAMA3, system_begin=_LLAMA3.system_begin + _DATED, header_alone=True, day="2024-07-26"
    ),
    "gemma": Template(
        system_end="\n\n",
        human="<start_of_turn>user\n",
        human_end="<end_of_turn>\n",
        gpt="<start_of_turn>model\n",
        end="<end_of_turn>",
        answer_end="\n",
        inside=True,
        trim="all",
        tokens=("<start_of_turn>",),
    ),
    "mistral": _MISTRAL,
    "mistral_v0.3": replace(
        _MISTRAL, human="[INST] ", human_end="[/INST]", trim="answers", tokens=("[INST]", "[/INST]")
    ),
}

_NEO_TOKENS = (
    *("<IMG_CONTEXT>", "<img>", "</img>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"),
    *("<|action_start|>", "<|action_end|>", "<|plugin|>", "<|interpreter|>"),
)
# Those of other members of the family (docs/family.md).
_FAMILY = {
    "neo": replace(
        _CHATML,
        answer_end="",
        tokens=("<|im_start|>", "<img>", "</img>"),
        after="\n",
        image=("<img>", "</img>"),
        apart=True,
        adds=_NEO_TOKENS,
    ),
    "sail": replace(
        _MISTRAL,
        human="[INST] ",
        inside=True,
        tokens=("<vision>", "</vision>"),
        image=("<vision>", "</vision>"),
        images_first=True,
    ),
    "gemma4": Template(
        system_begin="<|turn>system\n",
        system_end="<turn|>\n",
        human="<|turn>user\n",
        human_end="<turn|>\n",
        gpt="<|turn>model\n",
        end="<turn|>",
        answer_end="\n",
        tokens=("<|turn>", "<|image>", "<image|>"),
        image=("<|image>", "<image|>"),
        apart=True,
    ),
    "hundred": replace(_INSTRUCT["qwen3"], learned=True),
}

TEMPLATES = {
    "plain": Template(end="\n", caption=True),
    "plain_v1": Template(end="\n", caption=True, strip=False),  # as EVEv1 has it
    "qwen2": replace(_DIALOGUE, end="<|im_end|>"),
    "llama3": replace(_DIALOGUE, end="<|end_of_text|>"),
    "v1": replace(_DIALOGUE, end="</s>"),
    **_INSTRUCT,
    **_FAMILY,
}
OWN = "own"  # in a config: the template of the folder of the base LLM, see `eve_jax.data.text.own_template`
# Tokens that end a text in one model or another; an answer stops at them whatever its template.
_END_OF_TEXT = ("<|im_end|>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<end_of_turn>", "<turn|>", "</s>")
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
    problem = _problem(tokenizer, name)
    if problem:
        fitting = " or ".join(fitting_templates(tokenizer))
        remedy = ("set ", Field("data.template"), f"={fitting}, which fits this tokenizer, or ") if fitting else ()
        needed = " and ".join(map(repr, (get_template(name).end, *get_template(name).tokens)))
        raise FieldError(
            f"{tokenizer.folder or 'the tokenizer'}: {problem}: ",
            *remedy,
            f"use a tokenizer that has {needed} as a special token, with a number that the model was "
            "trained with (docs/data.md#ends-of-answers)",
        )


def fitting_templates(tokenizer: Tokenizer) -> list[str]:
    """Return the names of the dialogue templates whose end and other tokens `tokenizer` has as single ones.

    One that only learns more of a form than another is not among them.
    """
    forms = [name for name, t in TEMPLATES.items() if not t.caption and not t.learned]
    return [name for name in forms if not _problem(tokenizer, name)]


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


def _problem(tokenizer: Tokenizer, name: str) -> str:
    """What keeps the tokenizer from writing the template `name`, "" when nothing does."""
    for token in get_template(name).tokens:
        if tokenizer.find(token) is None or len(tokenizer.encode(token)) != 1:
            return f"has no token {token!r}, which the template {name} begins turns with"
    return _end_problem(tokenizer, name)


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
        behind = template.after + template.answer_end + template.human
        ids, offsets = tokenizer.encode_with_offsets(before + words + end + behind)
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
