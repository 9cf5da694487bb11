"""The section `eval` of a stage's config: what is measured while it trains."""

from dataclasses import dataclass

from eve_jax.batch import MOST_ROWS
from eve_jax.data.image.rule import FITS
from eve_jax.errors import Field, FieldError
from eve_jax.process.checks import unexpected
from eve_jax.process.section import Section, setting

PROTOCOLS = ("eve", "lmms", "lmms_static", "lmms_ocr")  # that require no judge
PREFIX = "eval/"  # of the names of what is measured
LOSS = "loss"


@dataclass(frozen=True, kw_only=True)
class EvalConfig(Section):
    """The section `eval` of a stage's config."""

    PATH = "eval."

    records: str
    images: str
    tasks: str
    data: str
    protocol: str = setting(choices=PROTOCOLS)
    every: int = setting(low=0)
    at_start: bool
    limit: int = setting(low=0)
    rows: int = setting(low=1, high=MOST_ROWS)
    fit: str = setting(choices=FITS)
    max_new_tokens: int = setting(low=0)
    ema: bool

    def check(self) -> None:
        """Raise FieldError when something is said of evaluations, and nothing at all is named."""
        for name, given in (("every", self.every), ("at_start", self.at_start), ("ema", self.ema)):
            if given and not self.is_set:
                raise FieldError(
                    Field(f"eval.{name}"),
                    f"={given}, but there is nothing to evaluate: name held-out records as ",
                    Field("eval.records"),
                    " or tasks as ",
                    Field("eval.tasks"),
                )

    @property
    def is_set(self) -> bool:
        """Whether anything is evaluated."""
        return bool(self.records.strip(", ") or self.tasks.strip(", "))


def check_best_by(name: str) -> None:
    """Raise FieldError unless `name` can be that of a metric by which checkpoints are kept."""
    if name != LOSS and not (name.startswith(PREFIX) and name.removeprefix(PREFIX).strip()):
        raise unexpected(Field("train.best_by"), name, "loss, eval/loss, eval/loss/SOURCE or eval/TASK")


def check_best(keep_best: int, best_by: str, save_every: int, every: int) -> None:
    """Raise FieldError when checkpoints are kept by a metric that they would not have, or by none at all."""
    if best_by != LOSS and not keep_best:
        raise FieldError(
            Field("train.best_by"), f"={best_by} keeps no checkpoint: say how many as ", Field("train.keep_best")
        )
    if keep_best and best_by != LOSS and (not every or save_every % every):
        raise FieldError(
            Field("train.keep_best"),
            f"={keep_best} by {best_by} requires an evaluation at every checkpoint: make ",
            Field("train.save_every"),
            f"={save_every} a multiple of ",
            Field("eval.every"),
            f"={every}",
        )


def smaller_is_better(name: str) -> bool:
    """Whether the metric `name` is a loss; every other one is a score."""
    return name == LOSS or name.startswith((f"{PREFIX}loss", f"{PREFIX}text_loss."))
