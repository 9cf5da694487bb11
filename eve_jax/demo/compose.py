"""What is in the images: contents for training, drawn freely, and for held-out questions, drawn evenly."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from eve_jax.demo.assets import Kind
from eve_jax.demo.questions import (
    BIG_CATEGORIES,
    TASKS,
    TEMPLATES,
    WHICH_ANSWERS,
    Question,
    ask_color,
    ask_content,
    ask_count,
    ask_kind,
    ask_position,
    ask_read,
    ask_which,
    which_answer,
)
from eve_jax.demo.scenes import Scene, SceneMaker, place_names
from eve_jax.demo.settings import DemoSettings
from eve_jax.demo.split import Deck, Split

Pair = tuple[Scene, Scene]
Asked = tuple[tuple[Scene, ...], Question]  # one or two images and a question about them


class TrainingComposer:
    """Scenes and pairs of scenes without any held-out composition; the same `rng` state gives the same ones."""

    def __init__(self, settings: DemoSettings, rng: Random) -> None:
        self.settings, self.rng = settings, rng
        self.split = Split(settings)
        self.make = SceneMaker(settings, rng)

    def kinds(self, n: int, apart: bool = False) -> list[Kind]:
        """`n` different kinds that may meet in training; `apart`: of different categories."""
        while True:
            chosen = self.rng.sample(self.split.kinds, n)
            if not self.split.any_held(chosen) and not (apart and len({k.category for k in chosen}) < n):
                return chosen

    def scene(self) -> Scene:
        """An image of a family drawn by the settings' weights."""
        s, rng = self.settings, self.rng
        families: dict[Callable[[], Scene], float] = {
            self._single: s.single,
            self._row: s.row,
            self._group: s.group,
            self._mix: s.mix,
            self._sign: s.sign,
        }
        return rng.choices(list(families), list(families.values()))[0]()

    def pair(self) -> tuple[Pair, list[Question]]:
        """Two images and two questions about them, the answers of each kind of question equally frequent."""
        make, rng = self.make, self.rng
        if rng.random() < 0.5:
            kinds = self.kinds(2)
            asked = [ask_content(kind, image, rng) for image, kind in enumerate(kinds)]
            rng.shuffle(asked)
            return (make.single(kinds[0]), make.single(kinds[1])), asked
        kind, *others = self.kinds(5)
        answers = list(WHICH_ANSWERS)
        rng.shuffle(answers)
        if rng.random() < 0.5:  # one in four questions is then about a kind in both images
            answers.remove("both")
            answers[0] = "both"
        else:
            answers.remove("both")
        scenes = which_pair(make, kind, others, "both" if "both" in answers else "neither")
        first, second = (next(k for k in scene.counts if k is not kind) for scene in scenes)
        about = {"first": first, "second": second, "both": kind, "neither": kind}
        if "both" in answers:
            about["neither"] = others[0]
        asked = [ask_which(about[answer], answer, rng) for answer in answers[:2]]
        rng.shuffle(asked)
        return scenes, asked

    def _single(self) -> Scene:
        return self.make.single(*self.kinds(1))

    def _row(self) -> Scene:
        layout = "column" if self.rng.random() < self.settings.column_share else "row"
        return self.make.row(self.kinds(self.rng.choice(self.settings.row_lengths)), layout)

    def _group(self) -> Scene:
        counted, other = self.kinds(2)
        n, others = self.rng.randint(1, self.settings.max_count), self.rng.randint(0, self.settings.max_others)
        return self.make.group({counted: n, other: others})

    def _mix(self) -> Scene:
        return self.make.mix(self.kinds(self.rng.choice((2, 3)), apart=True))

    def _sign(self) -> Scene:
        word = self.rng.choice(self.split.words)
        color = self.rng.choice([c for c in self.split.colors if c != self.split.held_color(word)])
        kind = self.kinds(1)[0] if self.rng.random() < self.settings.sign_with_thing else None
        return self.make.sign(word, color, kind)


def which_pair(make: SceneMaker, asked: Kind, others: list[Kind], answer: str) -> Pair:
    """Two rows of two things each, `asked` in the images that `answer` (one of WHICH_ANSWERS) says.

    The first two of `others` (4) may stand in the first image, the last two in the second.
    """
    shown = {"first": (True, False), "second": (False, True), "both": (True, True), "neither": (False, False)}[answer]
    scenes = []
    for image, here in enumerate(shown):
        x, y = others[2 * image : 2 * image + 2]
        kinds = [asked if here else x, y]
        make.rng.shuffle(kinds)
        scenes.append(make.row(kinds, "row"))
    return scenes[0], scenes[1]


class HeldoutComposer:
    """Held-out questions: each is about a composition never seen in training, answers are dealt evenly."""

    def __init__(self, settings: DemoSettings, rng: Random) -> None:
        self.settings, self.rng = settings, rng
        self.split = Split(settings)
        self.make = SceneMaker(settings, rng)
        big = [k for k in self.split.kinds if k.category in BIG_CATEGORIES and self._strangers(k)]
        lengths = sorted(set(settings.row_lengths))
        self._kind = Deck(self.split.kinds, rng)
        self._big = Deck(big, rng)
        self._word = Deck(self.split.words, rng)
        self._wording = Deck(range(6), rng)  # a multiple of the number of any question's phrasings
        self._place = Deck(
            [(layout, n, p) for layout in ("row", "column") for n in lengths for p in place_names(layout, n)], rng
        )
        counts = range(1, settings.max_count + 1)
        self._count = Deck([(n, w) for n in counts for w in range(len(TEMPLATES["count"]))], rng)
        self._which = Deck([(answer, w) for answer in WHICH_ANSWERS for w in range(len(TEMPLATES["which"]))], rng)
        self._content = Deck([(p, w) for p in range(2) for w in range(len(TEMPLATES["content"]))], rng)
        self._half = Deck([False, True], rng)

    def questions(self) -> list[Asked]:
        """`heldout_per_task` questions of every task, tasks in turns."""
        makers = [getattr(self, f"_{task}_question") for task in TASKS]
        return [make() for _ in range(self.settings.heldout_per_task) for make in makers]

    def _strangers(self, kind: Kind) -> list[Kind]:
        """Held-out partners of another category."""
        return [other for other in self.split.partners(kind) if other.category != kind.category]

    def _position_question(self) -> Asked:
        layout, length, place = self._place.deal()
        kind = self._kind.deal()
        kinds = [self.rng.choice(self.split.partners(kind))]
        if length == 3:
            kinds.append(self.rng.choice([k for k in self.split.kinds if k not in (kind, *kinds)]))
            self.rng.shuffle(kinds)
        kinds.insert(place_names(layout, length).index(place), kind)
        return (self.make.row(kinds, layout),), ask_position(place, kind, self.rng, self._wording.deal())

    def _count_question(self) -> Asked:
        count, wording = self._count.deal()
        kind = self._kind.deal()
        other = self.rng.choice(self.split.partners(kind))
        scene = self.make.group({kind: count, other: self.rng.randint(1, max(1, self.settings.max_others))})
        return (scene,), ask_count(kind, count, self.rng, wording)

    def _kind_question(self) -> Asked:
        kind = self._big.deal()
        scene = self.make.mix([kind, self.rng.choice(self._strangers(kind))])
        return (scene,), ask_kind(kind, self.rng, self._wording.deal())

    def _sign(self) -> Scene:
        word = self._word.deal()
        kind = self._kind.deal() if self.rng.random() < self.settings.sign_with_thing else None
        return self.make.sign(word, self.split.held_color(word), kind)

    def _color_question(self) -> Asked:
        scene = self._sign()
        assert scene.sign is not None
        return (scene,), ask_color(scene.sign, self.rng, self._wording.deal())

    def _read_question(self) -> Asked:
        scene = self._sign()
        assert scene.sign is not None
        return (scene,), ask_read(scene.sign, self.rng, self._wording.deal())

    def _two_images_question(self) -> Asked:
        if self._half.deal():
            image, wording = self._content.deal()
            kind = self._kind.deal()
            kinds = [self.rng.choice(self.split.partners(kind))]
            kinds.insert(image, kind)
            scenes = (self.make.single(kinds[0]), self.make.single(kinds[1]))
            return scenes, ask_content(kind, image, self.rng, wording)
        answer, wording = self._which.deal()
        asked = self._kind.deal()
        others: list[Kind] = []
        for _ in range(2):  # per image: who may take the asked kind's place, and its held-out neighbor
            taken = (asked, *others)
            neighbour = self.rng.choice([k for k in self.split.partners(asked) if k not in others])
            stand_in = self.rng.choice([k for k in self.split.partners(neighbour) if k not in (*taken, neighbour)])
            others += [stand_in, neighbour]
        scenes = which_pair(self.make, asked, others, answer)
        assert which_answer(asked, scenes) == answer
        return scenes, ask_which(asked, answer, self.rng, wording)
