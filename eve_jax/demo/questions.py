"""Captions of scenes and questions about them, each in several phrasings. Answers are one to three words.

No answer can be guessed from the wording: what is asked for is drawn evenly by whoever composes the scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from eve_jax.demo.assets import Kind, a
from eve_jax.demo.scenes import Scene, Sign

NUMBERS = ("none", "one", "two", "three", "four", "five", "six")
ORDINALS = ("first", "second")
WHICH_ANSWERS = ("first", "second", "both", "neither")
BIG_CATEGORIES = ("animal", "food", "vehicle", "tool")  # worth asking "what animal is it?"
TASKS = ("position", "count", "kind", "color", "read", "two_images")
TEMPLATES: dict[str, tuple[str, ...]] = {
    "position": ("What is {where}?", "What can you see {where}?", "Name the thing {where}."),
    "count": ("How many {plural} are there?", "How many {plural} can you see?", "Count the {plural}."),
    "kind": ("What {category} is it?", "Which {category} is in the image?", "Name the {category}."),
    "color": ("What color is the sign?", "Which color does the sign have?", "Name the color of the sign."),
    "read": ("What does the sign read?", "Which word is on the sign?", "Read the sign."),
    "content": ("What is in the {ordinal} image?", "Name the thing in the {ordinal} image."),
    "which": ("Which image shows {thing}?", "In which image is {thing}?"),
}
DESCRIBE = ("Describe the image.", "What is in the image?", "What does the image show?")
_WHERE = {
    "left": "on the left",
    "right": "on the right",
    "middle": "in the middle",
    "top": "at the top",
    "bottom": "at the bottom",
}


@dataclass(frozen=True)
class Question:
    """A question, its answer, its task (one of TASKS) and the template of its wording."""

    task: str
    template: str
    text: str
    answer: str


def _ask(key: str, answer: str, rng: Random, wording: int | None, **fields: str) -> Question:
    templates = TEMPLATES[key]
    template = rng.choice(templates) if wording is None else templates[wording % len(templates)]
    task = "two_images" if key in ("content", "which") else key
    return Question(task, template, template.format(**fields), answer)


def ask_position(place: str, kind: Kind, rng: Random, wording: int | None = None) -> Question:
    """What is at a place of a row or column. `wording` picks the phrasing, None draws one (as in all of these)."""
    return _ask("position", kind.name, rng, wording, where=_WHERE[place])


def ask_count(kind: Kind, count: int, rng: Random, wording: int | None = None) -> Question:
    """How many things of a kind there are."""
    return _ask("count", NUMBERS[count], rng, wording, plural=kind.plural)


def ask_kind(kind: Kind, rng: Random, wording: int | None = None) -> Question:
    """Which animal (food, vehicle, tool) is in the image."""
    return _ask("kind", kind.name, rng, wording, category=kind.category)


def ask_color(sign: Sign, rng: Random, wording: int | None = None) -> Question:
    """Which color the sign has."""
    return _ask("color", sign.color, rng, wording)


def ask_read(sign: Sign, rng: Random, wording: int | None = None) -> Question:
    """Which word is on the sign."""
    return _ask("read", sign.word, rng, wording)


def ask_content(kind: Kind, image: int, rng: Random, wording: int | None = None) -> Question:
    """What is in the first (0) or second (1) of two images of one thing each."""
    return _ask("content", kind.name, rng, wording, ordinal=ORDINALS[image])


def ask_which(kind: Kind, answer: str, rng: Random, wording: int | None = None) -> Question:
    """Which of two images shows a kind; the answer is one of WHICH_ANSWERS."""
    return _ask("which", answer, rng, wording, thing=a(kind.name))


def questions_about(scene: Scene, rng: Random, max_count: int) -> list[Question]:
    """Every question that can be asked about one image, in random order (what is counted: `max_count` or fewer)."""
    asked = [ask_position(place, kind, rng) for place, kind in scene.places.items()]
    if scene.layout == "group":
        counted = [(kind, n) for kind, n in scene.counts.items() if n <= max_count]
        asked += [ask_count(kind, n, rng) for kind, n in counted]
    elif scene.layout != "sign":
        categories = [item.kind.category for item in scene.items]
        asked += [
            ask_kind(item.kind, rng)
            for item in scene.items
            if item.kind.category in BIG_CATEGORIES and categories.count(item.kind.category) == 1
        ]
    if scene.sign is not None:
        asked += [ask_color(scene.sign, rng), ask_read(scene.sign, rng)]
        asked += [ask_kind(item.kind, rng) for item in scene.items if item.kind.category in BIG_CATEGORIES]
    rng.shuffle(asked)
    return asked


def which_answer(kind: Kind, scenes: Sequence[Scene]) -> str:
    """The answer to `ask_which` for two images."""
    first, second = (kind in scene.counts for scene in scenes)
    return WHICH_ANSWERS[{(True, False): 0, (False, True): 1, (True, True): 2, (False, False): 3}[first, second]]


def caption(scene: Scene, rng: Random) -> str:
    """One sentence that names all there is, and where or how many."""
    if scene.sign is not None:
        return _caption_sign(scene, scene.sign, rng)
    if scene.places:
        parts = [f"{a(kind.name)} {_WHERE[place]}" for place, kind in scene.places.items()]
        if rng.random() < 0.2:
            parts.reverse()
    elif scene.layout == "group":
        parts = [f"{NUMBERS[n]} {kind.name if n == 1 else kind.plural}" for kind, n in scene.counts.items()]
        rng.shuffle(parts)
    else:
        parts = [a(item.kind.name) for item in scene.items]
    text = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    style = rng.randrange(4)
    if style == 0:
        return f"The image shows {text}."
    if style == 1:
        verb = "are" if scene.layout == "group" and not parts[0].startswith("one ") else "is"
        return f"There {verb} {text}."
    return f"{text[0].upper()}{text[1:]}."


def _caption_sign(scene: Scene, sign: Sign, rng: Random) -> str:
    text = rng.choice(("{A} sign that reads {word}", "{A} sign with the word {word}", "The {color} sign reads {word}"))
    article = a(sign.color)
    text = text.format(A=article[0].upper() + article[1:], color=sign.color, word=sign.word)
    if scene.items:
        text += f", and {a(scene.items[0].kind.name)}"
    return text + "."
