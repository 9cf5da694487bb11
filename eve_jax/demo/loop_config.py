"""The section `loop` of a recipe: web-like images, captioned by one stage of the recipe for those after it."""

from dataclasses import dataclass

from eve_jax.caption.config import CaptionConfig
from eve_jax.curate.config import CurateConfig
from eve_jax.errors import Field, FieldError
from eve_jax.process.section import Section, setting

RAW, CAPTIONED, RECAPTIONED = "raw", "captioned", "recaptioned"
SETS = {  # of captions: what the paper calls it
    RAW: "web captions",
    CAPTIONED: "captions of the model alone",
    RECAPTIONED: "captions of the model with experts",
}


@dataclass(frozen=True, kw_only=True)
class LoopConfig(Section):
    """The section `loop` of a recipe.

    Attributes:
        captioner: the stage that learns to caption with what experts found; when it is trained, the web is captioned.
        web: web-like images, before curation.
        taught: further ones, with right captions, from which the captioner learns.
        bad: share of the web's images that are blank, too small, too long or broken.
        unseen: images of held-out compositions whose right captions are predicted while students train.
        sets: of captions that students are trained on.
        seeds: students of each set.
        stages: of each student, in order; their names are SET_SEED_STAGE.
        slots: captions that are written at a time.
        context: tokens of a prompt with its answer, at most.
        curate: how the web is curated, and which experts look at it.
        caption: how captions are asked for and checked; the captioner learns from prompts of the same form.
    """

    PATH = "loop."

    captioner: str
    web: int = setting(low=1)
    taught: int = setting(low=1)
    bad: float = setting(low=0, high=0.5)
    unseen: int = setting(low=1)
    sets: tuple[str, ...] = setting(choices=SETS)
    seeds: int = setting(low=2, high=100)
    stages: tuple[str, str]
    slots: int = setting(low=1, high=1024)
    context: int = setting(low=32)
    curate: CurateConfig
    caption: CaptionConfig

    def check(self) -> None:
        """Raise FieldError for a set of captions that is named twice, and for a prompt that no expert's word enters."""
        if len({*self.sets}) < len(self.sets) or not self.sets:
            raise FieldError(Field("loop.sets"), f"={self.sets}: name each set once")
        if "{" not in self.caption.prompt.text:
            raise FieldError(Field("loop.caption.prompt.text"), " has no variable such as {block}: what experts say")

    def runs(self, captions: str, stage: str) -> list[str]:
        """Return the names of one of `stages` of the students of a set, a seed each."""
        return [f"{captions}_{seed}_{stage}" for seed in range(self.seeds)]
