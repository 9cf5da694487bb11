"""Questions: right, balanced, in several phrasings, and about compositions that training never shows."""

from collections import Counter, defaultdict
from random import Random

import pytest

from eve_jax.demo.assets import all_kinds
from eve_jax.demo.compose import Asked, HeldoutComposer, TrainingComposer, which_pair
from eve_jax.demo.questions import (
    NUMBERS,
    TASKS,
    TEMPLATES,
    WHICH_ANSWERS,
    Question,
    caption,
    questions_about,
    which_answer,
)
from eve_jax.demo.scenes import Scene, SceneMaker
from eve_jax.demo.settings import FULL, TINY, DemoSettings
from eve_jax.demo.split import Deck, Split

KIND = {k.name: k for k in all_kinds()}
PLURAL = {k.plural: k for k in all_kinds()}


@pytest.fixture(scope="module")
def heldout() -> list[Asked]:
    return HeldoutComposer(FULL, Random("heldout")).questions()


def _expected(scenes: tuple[Scene, ...], question: Question) -> str:
    """The answer worked out from the scene and the wording alone."""
    words = question.text.rstrip("?.").split()
    scene = scenes[0]
    if question.task == "count":
        plural = next(word for word in words if word in PLURAL)
        return NUMBERS[scene.counts[PLURAL[plural]]]
    if question.task == "position":
        return scene.places[next(word for word in words if word in scene.places)].name
    if question.task == "kind":
        (kind,) = (k for k in scene.counts if k.category in words)
        return kind.name
    if question.task == "two_images":
        if "first" in words or "second" in words:
            (kind,) = scenes[words.index("image") > 0 and "second" in words].counts
            return kind.name
        return which_answer(KIND[words[-1] if words[-1] in KIND else words[-3]], scenes)
    assert scene.sign is not None
    return scene.sign.color if question.task == "color" else scene.sign.word


def test_heldout_answers_are_right(heldout: list[Asked]) -> None:
    for scenes, question in heldout:
        assert question.answer == _expected(scenes, question), question
        assert 1 <= len(question.answer.split()) <= 3


def test_training_answers_are_right() -> None:
    composer = TrainingComposer(FULL, Random(1))
    for _ in range(500):
        scene = composer.scene()
        for question in questions_about(scene, composer.rng, FULL.max_count):
            assert question.answer == _expected((scene,), question), question
        scenes, asked = composer.pair()
        assert len(asked) == 2
        for question in asked:
            assert question.answer == _expected(scenes, question), question


def test_heldout_covers_tasks_kinds_and_words(heldout: list[Asked]) -> None:
    tasks = Counter(question.task for _, question in heldout)
    assert set(tasks) == set(TASKS) and len(heldout) >= 500 and min(tasks.values()) >= 80
    kinds = {kind for scenes, _ in heldout for scene in scenes for kind in scene.counts}
    words = {scene.sign.word for scenes, _ in heldout for scene in scenes if scene.sign is not None}
    assert len(kinds) >= 30 and len(words) >= 30


def test_blind_guesses_are_rarely_right(heldout: list[Asked]) -> None:
    """The best that can be done from the wording: for each template, always its commonest answer."""
    answers: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for _, question in heldout:
        key = question.text if question.task == "kind" else question.template
        answers[question.task][key][question.answer] += 1
    for task, templates in answers.items():
        guessed = sum(max(counter.values()) for counter in templates.values())
        assert guessed / sum(sum(counter.values()) for counter in templates.values()) <= 0.30, task


def test_training_answers_are_balanced() -> None:
    composer = TrainingComposer(FULL, Random(2))
    which = Counter(q.answer for _ in range(3000) for q in composer.pair()[1] if q.answer in WHICH_ANSWERS)
    assert all(0.21 < n / which.total() < 0.29 for n in which.values()), which
    asked = [q for _ in range(3000) for q in questions_about(composer.scene(), composer.rng, FULL.max_count)]
    counts = Counter(q.answer for q in asked if q.task == "count")
    assert max(counts.values()) / counts.total() < 0.40, counts
    assert {q.template for q in asked} == {t for key, ts in TEMPLATES.items() for t in ts} - {
        *TEMPLATES["content"],
        *TEMPLATES["which"],
    }


@pytest.mark.parametrize("settings", [FULL, TINY], ids=["full", "tiny"])
def test_compositions_are_held_out(settings: DemoSettings) -> None:
    split = Split(settings)
    composer = TrainingComposer(settings, Random(4))
    shown = [composer.scene() for _ in range(1500)]
    pairs = [composer.pair()[0] for _ in range(500)]
    assert not any(split.held([scene]) for scene in shown)
    assert not any(split.held(pair) for pair in pairs)
    assert {kind for scene in shown for kind in scene.counts} == set(split.kinds)
    assert {scene.sign.word for scene in shown if scene.sign is not None} == set(split.words)
    assert all(split.held(scenes) for scenes, _ in HeldoutComposer(settings, Random(5)).questions())


def test_every_kind_has_held_out_partners() -> None:
    split = Split(FULL)
    for kind in split.kinds:
        partners = split.partners(kind)
        assert len(partners) == 6
        assert any(other.category != kind.category for other in partners)
        assert all(split.held_pair(other, kind) for other in partners)
    assert Counter(map(split.held_color, split.words)) == dict.fromkeys(split.colors, 4)


def test_captions_name_all_there_is() -> None:
    composer = TrainingComposer(FULL, Random(6))
    for _ in range(500):
        scene = composer.scene()
        text = caption(scene, composer.rng)
        assert text[0].isupper() and text.endswith(".")
        words = text.rstrip(".").replace(",", "").replace("A ", "a ").lower().split()
        for kind, n in scene.counts.items():
            assert (kind.name if n == 1 else kind.plural) in words, text
            if scene.layout == "group":
                assert NUMBERS[n] in words, text
        assert all(place in words for place in scene.places), text
        if scene.sign is not None:
            assert scene.sign.color in words and scene.sign.word in text.rstrip(".").replace(",", "").split()


@pytest.mark.parametrize("answer", WHICH_ANSWERS)
def test_which_pair(answer: str) -> None:
    asked, *others = all_kinds()[:5]
    scenes = which_pair(SceneMaker(FULL, Random(7)), asked, others, answer)
    assert which_answer(asked, scenes) == answer
    assert all(len(scene.items) == 2 for scene in scenes)


def test_a_deck_deals_evenly() -> None:
    deck = Deck("abc", Random(8))
    assert Counter(deck.deal() for _ in range(30)) == {"a": 10, "b": 10, "c": 10}
