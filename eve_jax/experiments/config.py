"""The section `experiment` of a recipe: arms, seeds and points, what they are scored on, and what the paper reports."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from eve_jax.data.image.rule import FITS
from eve_jax.errors import Field, FieldError
from eve_jax.process.paths import split_names
from eve_jax.process.section import Section, setting
from eve_jax.sharding import parse_mesh

NO_DATA = "DATA/"  # before records whose folder is an argument that was not given
CHARTS = ("curves", "bars", "scatter")


class Point(NamedTuple):
    """A model that is scored.

    step: of the run `trained` that it comes from; 0 for its end. trained: stage of which it is a point, "" where the
    experiment has no curve. scored: the stage that is fine-tuned from there and scored.
    """

    arm: str
    seed: int
    step: int
    trained: str
    scored: str


def stage_name(arm: str, seed: int, kind: str, step: int = 0) -> str:
    """Return the name of a stage of an arm and a seed; step: of the point that it starts from, 0 for the end."""
    return f"{arm}_{seed}_{kind}" + (f"_{step}" if step else "")


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig(Section):
    """The section `experiment` of a recipe; stages have the names of `stage_name`.

    Attributes:
        title: what is compared, in a line.
        arms: names, in the order of the report.
        labels: arm -> what it is called in reports, with the paper's name.
        seeds: runs of every arm, from seed 0.
        curve: kind of the stage whose checkpoints are points; "" where an arm has none of its own.
        steps: of that stage, at which there are points before its end.
        scored: kind of the stage that is scored; that of the curve itself where nothing is fine-tuned.
        tasks: what is asked: benchmarks and files of questions, with commas; the accuracy is the mean over the tasks.
        data, protocol: of the benchmarks, as in `config.eval`.
        images: folder of the images of questions of one's own, and of `answers`.
        answers: records whose correct answers' mean loss is measured (as `launch.score` does); "" = none.
        texts: files of text whose loss is measured, with commas; "" = none.
        before: stage whose text loss is stated next to the arms'; "" = none.
        weights: stage, or checkpoint, that the weights of each arm at its end are compared with, of seed 0; "" = none.
        fit: of the images of questions, as in `config.eval`; "" = as the stage was trained.
        rows: questions that are answered at a time.
        max_new_tokens: longest answer; 0 = the task's own.
        mesh: devices that answer, as in `config.mesh`; "" = one.
        chart: how the points are drawn: a line an arm over the samples seen, bars, or accuracy against text loss.
        paper: arm -> what the paper reports for it.
        deviations: how the experiment is not the paper's, a sentence each.
        sizes: kind of stage -> width and height in pixels of a sample's image (0: none), its text tokens and, of
            these, targets. The cost follows from them; nothing that is trained does.
    """

    PATH = "experiment."

    title: str
    arms: tuple[str, ...]
    labels: dict[str, str]
    seeds: int = setting(low=1, high=100)
    curve: str
    steps: tuple[int, ...] = setting(low=1)
    scored: str
    tasks: str
    data: str
    protocol: str
    images: str
    answers: str
    texts: str
    before: str
    weights: str
    fit: str = setting(choices=("", *FITS))
    rows: int = setting(low=1)
    max_new_tokens: int = setting(low=0)
    mesh: str = setting(reads=parse_mesh)
    chart: str = setting(choices=CHARTS)
    paper: dict[str, str]
    deviations: tuple[str, ...]
    sizes: dict[str, tuple[int, ...]] = setting(low=0)

    def check(self) -> None:
        """Raise FieldError for arms and steps that are named twice, and for what nothing is measured of."""
        for name in ("arms", "steps"):
            values = getattr(self, name)
            if len({*values}) < len(values):
                raise FieldError(Field(f"experiment.{name}"), f"={values}: name each once")
        if not self.arms or {*self.labels} != {*self.arms}:
            raise FieldError(Field("experiment.labels"), " is to name every one of ", Field("experiment.arms"))
        if self.steps and not self.curve:
            raise FieldError(Field("experiment.steps"), " are of a stage: name its kind as ", Field("experiment.curve"))
        if self.steps and self.curve == self.scored:
            raise FieldError(
                Field("experiment.steps"),
                f"={self.steps}: a point before the end is fine-tuned by a stage of its own: name its kind as ",
                Field("experiment.scored"),
            )
        if not self.tasks:
            raise FieldError(Field("experiment.tasks"), " is empty: name what the arms are asked")
        if wrong := [kind for kind, size in self.sizes.items() if len(size) != 4]:
            raise FieldError(
                Field(f"experiment.sizes.{wrong[0]}"), ": expected width, height, text tokens and targets of a sample"
            )
        for kind, (width, height, text, _) in self.sizes.items():
            if not text or bool(width) != bool(height):
                raise FieldError(
                    Field(f"experiment.sizes.{kind}"),
                    f": {width} x {height} pixels with {text} text tokens is no sample; 0 x 0 is one without an image",
                )

    def check_start(self, stage: str, init: str, first: bool) -> None:
        """Raise FieldError where the stage would train from weights that nobody named.

        With `init` empty a stage starts where the one before it ended: that of an arm with what another arm has
        learned. first: the first one of all, which would begin with random weights.
        """
        if not init and (first or self.kind(stage) != stage):
            raise FieldError(
                Field("init"),
                " is empty: name what the stage starts from, such as the folder of the LLM as an argument of the "
                "config, llm=FOLDER",
            )

    def check_records(self, records: str) -> None:
        """Raise FieldError where `records` of a stage are in the folder that stands for one that was not given."""
        lost = [name for name in split_names(records) if name.startswith(NO_DATA) and not Path(name).exists()]
        if lost:
            raise FieldError(
                f"{lost[0].removeprefix(NO_DATA)} is in no folder: name that of the records as an argument of the "
                "config, data=FOLDER, or set ",
                Field("data.records"),
            )

    def check_stages(self, order: Collection[str]) -> None:
        """Raise FieldError unless all stages that are scored are among those of the recipe."""
        for name in [*(point.scored for point in self.points), *self.trained, *([self.before] if self.before else [])]:
            if name not in order:
                raise FieldError(Field("order"), f" has no stage {name!r}, which ", Field("experiment"), " asks for")

    @property
    def points(self) -> list[Point]:
        """Return all points: of each seed all arms, of each arm its steps."""
        found = []
        for seed in range(self.seeds):
            for arm in self.arms:
                trained = stage_name(arm, seed, self.curve) if self.curve else ""
                for step in (*sorted(self.steps), 0):
                    name = stage_name(arm, seed, self.scored, step) if self.scored != self.curve else trained
                    found.append(Point(arm, seed, step, trained, name))
        return found

    @property
    def trained(self) -> list[str]:
        """Return the stages of which the points are, each once."""
        return list(dict.fromkeys(point.trained for point in self.points if point.trained))

    def kind(self, stage: str) -> str:
        """Return the kind of a stage: its name without arm, seed and step; that of a shared stage is its name."""
        for arm in self.arms:
            for seed in range(self.seeds):
                if stage.startswith(before := f"{arm}_{seed}_"):
                    kind, _, step = stage.removeprefix(before).rpartition("_")
                    return kind if step.isdecimal() and kind else stage.removeprefix(before)
        return stage
