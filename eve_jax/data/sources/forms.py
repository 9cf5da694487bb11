"""The forms that data sets write texts in: the fields that each form has, and the data sets that are written so."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eve_jax.process.checks import near_name

TALKS = ("conversations", "messages")
PAIRS = "texts"  # a list of {user, assistant}
QUERY = ("query", "response", "history")  # of a record; `system` goes with every form but captions
QUESTION = ("question", "answer", "answers", "multiple_choice_answer")
CAPTIONS = ("caption", "text", "txt")  # fields that stand for a single answer
FORMS: dict[str, tuple[str, ...]] = {
    **{field: (field,) for field in (*TALKS, PAIRS)},
    **{"query": QUERY, "question": QUESTION, "caption": CAPTIONS},
}
FORM_FIELDS = (*TALKS, PAIRS, *QUERY, *QUESTION, *CAPTIONS)
TEXT_FIELDS = (*TALKS, PAIRS, "query", "question", *CAPTIONS)  # a source has to have one of them
DATA_SETS = {
    "conversations": ("llava", "sharegpt", "onevision", "infinity"),
    "messages": ("openai", "trl"),
    "texts": ("finevision", "cauldron"),
    "query": ("swift",),
    "question": ("vqav2",),
    "caption": ("img2dataset",),
}
NAMES = {name: form for form, names in DATA_SETS.items() for name in (form, *names)}  # that a format may be named by
WRITTEN = {
    "conversations": "a list of {from, value}",
    "messages": "a list of {role, content}",
    "texts": "a list of {user, assistant}",
    "query": "a text, with response",
    "question": "a text, with answer, answers or multiple_choice_answer",
    "caption": "a text",
}
OTHER_NAMES = {  # keys that other trainers have for what a form holds
    **{"conversations": ("dialog", "dialogue", "turns", "chat", "items"), "query": ("instruction", "input", "prompt")},
    **{"caption": ("captions", "description", "title", "alt_text", "alt", "label"), "messages": ("chosen", "prompts")},
}
ASKED = ("instruction", "prompt", "problem", "text_input", "input", "user", "human")  # a question's, and
SAID = ("output", "completion", "solution", "text_output", "response", "assistant", "gpt")  # an answer's
PREFERENCES = ("chosen", "rejected")  # two answers, of which a preference is learned
_KEYS = {"conversations": ("from", "value"), "messages": ("role", "content"), "texts": ("user", "assistant")}


def split_format(name: str) -> tuple[str, str]:
    """Return the form that the prefix of a source's name asks for, "" for none, and the rest: `openai:a.jsonl`."""
    prefix, colon, rest = name.partition(":")
    form = NAMES.get(prefix.lower(), "") if colon else ""
    return (form, rest) if form else ("", name)


def of_form(given: Mapping[str, Any], form: str) -> Mapping[str, Any]:
    """Return the fields of a record without those of other forms than `form`; all of them for ""."""
    if not form:
        return given
    others = {field for fields in FORMS.values() for field in fields} - {*FORMS[form]}
    return {name: value for name, value in given.items() if name not in others}


def form_of(fields: Iterable[str]) -> str:
    """Return the form of a record of which `fields` were used, "" for none."""
    used = set(fields)
    return next((form for form, names in FORMS.items() if used & {*names}), "caption" if ".txt" in used else "")


def described(form: str) -> str:
    """Return a form with the data sets that are written in it."""
    return f"{form} ({WRITTEN[form]}; {', '.join(DATA_SETS[form])})"


def said_empty(names: Sequence[str]) -> str:
    """Return the end of a message that names empty fields; "" for none."""
    return f"; {' and '.join(map(repr, names))} {'is' if len(names) == 1 else 'are'} empty" if names else ""


def nearest(given: Mapping[str, Any]) -> str:
    """Return what to do about a record whose texts are in no known form, by its keys and what they hold."""
    if all(name in given for name in PREFERENCES):
        return (
            f"the nearest format is {described('query')}: pairs of preferences are not trained on; write the prompt as "
            "query and the chosen answer as response"
        )
    for name, value in given.items():
        inner = value[0] if isinstance(value, list) and value else None
        form = next((form for form, keys in _KEYS.items() if isinstance(inner, dict) and {*keys} <= inner.keys()), "")
        if form:
            return f"{name!r} is {WRITTEN[form]}: call it {form}"
    texts = {name.lower(): name for name, value in given.items() if isinstance(value, str)}
    asked, said = (next((texts[name] for name in names if name in texts), "") for names in (ASKED, SAID))
    if asked and said:
        return f"the nearest format is {described('query')}: call {asked!r} query and {said!r} response"
    for name in given:
        for form, others in OTHER_NAMES.items():
            if name.lower() in others:
                return f"the nearest format is {described(form)}; write {name!r} so"
    for name in given:
        if not name.lower().startswith(("image", "img")) and (near := near_name(name, FORMS)):
            return f"the nearest format is {described(near)}; write {name!r} so"
    return f"the nearest format is {described('conversations')}"
