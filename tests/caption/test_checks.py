"""Planted faults are found, good captions are not taken for bad: on several hundred of each, made by a seed."""

from typing import Any

import pytest

from benchmarks.caption_texts import REFUSALS, good_caption, leaking, refusing, repetitive, unfinished
from configs import caption
from eve_jax.caption.checks import Checker, Facts
from eve_jax.caption.config import CaptionConfig
from eve_jax.caption.prompts import fixed_text, parse_template
from eve_jax.caption.same import caption_number, numbers_above
from eve_jax.caption.words import repetition, words_of

CONFIG = CaptionConfig.of(caption.get_config("densefusion"))
PROMPT = fixed_text(parse_template(CONFIG.prompt.text, ""))
CHECKER = Checker(CONFIG.checks, PROMPT)
COUNT = 500


def rule(text: str, **facts: Any) -> str:
    """The rule that a caption breaks, "" for none."""
    fault = CHECKER.fault(text, Facts(**facts))
    return "" if fault is None else fault.rule


def share(rejected: list[str]) -> float:
    return sum(map(bool, rejected)) / len(rejected)


def test_planted_faults_are_found() -> None:
    """95% of repetitions and half sentences, every refusal and every leaked prompt."""
    assert share([rule(repetitive(seed)) for seed in range(COUNT)]) >= 0.95
    assert share([rule(unfinished(seed)) for seed in range(COUNT)]) >= 0.95
    assert share([rule(refusing(seed)) for seed in range(COUNT)]) == 1.0
    assert share([rule(leaking(seed, PROMPT)) for seed in range(COUNT)]) == 1.0


def test_good_captions_are_kept() -> None:
    """At most one of a hundred is lost."""
    assert share([rule(good_caption(seed)) for seed in range(2 * COUNT)]) <= 0.01


def test_every_refusal_is_called_one() -> None:
    assert {text: rule(text) for text in REFUSALS if rule(text) != "refusal"} == {}


@pytest.mark.parametrize(
    "text",
    [
        "A monument to World War I stands in a park, and no one is nearby. It is made of gray stone.",
        "In this image, we can see a dog that is not on a leash, running over a lawn toward a lake.",
        "A portrait of Charles I hangs on the wall, without a frame. Under it stands a wooden chest.",
        "A man who cannot be seen clearly sits behind the counter of a shop that sells watches.",
        'A sign says "I am sorry, we are closed. Please upload your menu" in red letters on a door.',
        'The poster reads "According to the OCR text [0.1, 0.2, 0.3, 0.4]" above a drawing of a robot.',
        "A 42\" screen hangs next to a 12' ladder, and a sign on the door reads “Dr. Miller”.",
        "I can see two cats on a sofa, one of them asleep, with a lamp and a plant behind them.",
        "一只猫坐在红色的沙发上\uff0c旁边有一盏灯。",
    ],
)
def test_what_looks_like_a_fault_and_is_none(text: str) -> None:
    assert rule(text) == ""


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", "empty"),
        (" … ", "empty"),
        ("A dog.", "length"),
        ("A word " * 500 + ".", "repetition"),
        ("A dog is at [0.12, 0.30, 0.55, 0.91], next to a tree and a red bench in a park.", "coordinates"),
        ("A dog is at (0.12, 0.30) next to a tree and a red bench in a park.", "coordinates"),
        ("A dog with x1=12, y1=40 stands next to a tree and a red bench in a park.", "coordinates"),
        ("A dog stands next to a tree and a red bench (its seat is", "unfinished"),
        ('A dog stands next to a tree and a sign that reads "Keep off the.', "unfinished"),
        ("The shelves hold the following things. 1. A red dog of wood. 2. A blue cat of clay. 3.", "unfinished"),
        ("A dog stands next to a tree, a red bench, and a statue of Dr.", "unfinished"),
        ("A dog stands next to a tree, a red bench, and the.", "unfinished"),
        ("A dog stands next to a tree and a red bench:", "unfinished"),
        ("Objects: a dog stands next to a tree and a red bench in the park.", "leak"),
    ],
)
def test_single_faults(text: str, name: str) -> None:
    assert rule(text) == name


def test_rules_can_be_turned_off() -> None:
    off = {"finished": False, "refusals": False, "leaks": False, "coordinates": False, "repetition": 0.0, "ocr": 0.0}
    config = caption.get_config()
    config.checks.update({**off, "min_words": 0})
    checker = Checker(CaptionConfig.of(config).checks, PROMPT)
    for make in (repetitive, unfinished, refusing):
        assert [fault for seed in range(50) if (fault := checker.fault(make(seed))) and fault.rule != "length"] == []
    assert checker.fault("[0.1, 0.2, 0.3, 0.4]") is None and checker.fault(PROMPT) is None


def test_grounding_in_words_that_were_read() -> None:
    text = 'A door under a green sign that says "EXIT" leads to the parking garage of a station.'
    assert rule(text, ocr=("exit", "parking", "level")) == ""
    assert rule(text, ocr=("level", "two", "east", "exit")) == "ocr"


def test_grounding_in_classes_that_were_detected() -> None:
    text = "Two women wait with their bikes at a crossing, next to several buses and a newspaper stand."
    assert rule(text, classes=("person", "bicycle", "bus")) == ""
    assert rule(text, classes=("person", "bicycle", "bus", "cat")) == ""
    assert rule(text, classes=("cat", "dog", "tv", "couch", "bus")) == "classes"


def test_facts_are_those_that_are_certain() -> None:
    experts: dict[str, Any] = {
        "ocr": [
            {"text": "EXIT to B2", "score": 0.95, "box": [0, 0, 1, 1]},
            {"text": "blurred", "score": 0.5, "box": [0, 0, 1, 1]},
        ],
        "boxes": [
            {"name": "Cup", "score": 0.7, "box": [0, 0, 1, 1]},
            {"name": "dog", "score": 0.3, "box": [0, 0, 1, 1]},
            {"name": "cup", "score": 0.65, "box": [0, 0, 1, 1]},
        ],
    }
    assert Facts.of(experts, CONFIG.checks) == Facts(ocr=("exit",), classes=("cup",))


def test_words() -> None:
    assert words_of("The Dog's 2 café-bars, 猫と犬!") == ["the", "dog's", "2", "café-bars", "猫", "と", "犬"]
    assert repetition("a b c d e") is None


def test_the_same_caption_of_many_images() -> None:
    texts = ["A dog in a park."] * 5 + ["a dog, in a PARK"] * 2 + ["A cat."] * 3
    counts = numbers_above(map(caption_number, texts), 6)
    assert counts == {caption_number("A dog in a park"): 7}
    assert numbers_above([], 1) == {}
