"""The section `optim` of a stage's config: update rule, schedule, what counts in the loss, moments and average."""

import math
from dataclasses import dataclass

from eve_jax.errors import Field, FieldError
from eve_jax.model.weight import trainable_groups
from eve_jax.process.checks import hint, near_name
from eve_jax.process.section import Section, setting

ADAMW, MUON = RULES = ("adamw", "muon")
COSINE, CONSTANT, WSD = SCHEDULES = ("cosine", "constant", "wsd")
EXPONENTIAL = "exponential"
SHAPES = ("linear", "cosine", "sqrt", EXPONENTIAL)  # of the decay of WSD
MOMENTS = ("float32", "bfloat16", "int8")
TOKEN, SAMPLE, SQRT = LOSS_WEIGHTS = ("token", "sample", "sqrt")
DECAY, SHAPE, MOMENTUM = 0.2, "linear", 0.95  # where these fields are unset
# Fields that version 0.1.0 does not have, with what stands for its way.
LATER_OPTIM = {
    "rule": ADAMW,
    "momentum": None,
    "moments": "float32",
    "ema": 0.0,
    "schedule": COSINE,
    "min_lr": 0.0,
    "warmup_steps": 0,
    "decay": None,
    "decay_shape": None,
    "loss_weights": TOKEN,
}


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Section):
    """The section `optim` of a stage's config."""

    PATH = "optim."

    rule: str = setting(choices=RULES)
    lr: float = setting(low=0)
    min_lr: float = setting(low=0)
    schedule: str = setting(choices=SCHEDULES)
    warmup: float = setting(low=0, high=1)
    warmup_steps: int = setting(low=0)
    decay: float | None = setting(low=0, high=1)
    decay_shape: str | None = setting(choices=SHAPES)
    b1: float = setting(low=0, high=1, between=True)
    b2: float = setting(low=0, high=1, between=True)
    eps: float = setting(low=1e-30)  # smaller ones are 0 in float32, and 0/0 is no update
    momentum: float | None = setting(low=0, high=1, between=True)
    moments: str = setting(choices=MOMENTS)
    weight_decay: float = setting(low=0)
    clip: float = setting(low=0)
    ema: float = setting(low=0, high=0.99999)
    loss_weights: str = setting(choices=LOSS_WEIGHTS)
    groups: dict[str, float | None] = setting(low=0)

    def check(self) -> None:
        """Raise FieldError for a group that no stage can train, and for fields that do not go together."""
        known = trainable_groups()
        for name in self.groups:
            if name not in known:
                near = hint(near_name(name, known))
                raise FieldError(
                    "there is no field ", Field(f"optim.groups.{name}"), f": expected one of {', '.join(known)}", near
                )
        if self.momentum is not None and self.rule != MUON:
            raise _without("momentum", self.momentum, "rule", MUON, self.rule)
        self._check_schedule()

    def _check_schedule(self) -> None:
        warmup, lowest = Field("optim.warmup"), Field("optim.min_lr")
        if self.warmup and self.warmup_steps:
            steps = Field("optim.warmup_steps")
            raise FieldError(
                warmup, f"={self.warmup} and ", steps, f"={self.warmup_steps} are both set: set one of them to 0"
            )
        for name, value in (("decay", self.decay), ("decay_shape", self.decay_shape)):
            if value is not None and self.schedule != WSD:
                raise _without(name, value, "schedule", WSD, self.schedule)
        if self.min_lr > self.lr:
            raise FieldError(lowest, f"={self.min_lr} is above the peak, ", Field("optim.lr"), f"={self.lr}")
        if self.min_lr and self.schedule == CONSTANT:
            raise _without("min_lr", self.min_lr, "schedule", f"{COSINE} or {WSD}", self.schedule)
        if self.decay_shape == EXPONENTIAL and not self.min_lr:
            raise FieldError(
                Field("optim.decay_shape"), f"={EXPONENTIAL} never reaches 0: give the rate that it ends at as ", lowest
            )
        share = DECAY if self.decay is None else self.decay
        if self.schedule == WSD and self.warmup + share > 1:
            raise FieldError(
                warmup, f"={self.warmup} and ", Field("optim.decay"), f"={share} are together more than all steps"
            )

    def check_steps(self, steps: int) -> None:
        """Raise FieldError when the warm-up, given in steps, leaves no room in a run of `steps` steps."""
        share = DECAY if self.decay is None else self.decay
        rest = steps - (math.ceil(share * steps) if self.schedule == WSD else 0)
        if self.warmup_steps > rest:
            decay = f", of which {steps - rest:,} are the decay's" if rest < steps else ""
            raise FieldError(Field("optim.warmup_steps"), f"={self.warmup_steps}: the run has {steps:,} steps{decay}")


def _without(name: str, value: object, other: str, needed: str, found: str) -> FieldError:
    """Return the error about a field that another one makes meaningless."""
    return FieldError(
        Field(f"optim.{name}"), f"={value} goes with ", Field(f"optim.{other}"), f"={needed} alone, not with {found}"
    )
