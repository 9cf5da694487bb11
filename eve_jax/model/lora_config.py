"""Sizes of low-rank adapters (LoRA): which matrices have one, of what rank, on what base."""

from dataclasses import dataclass

from eve_jax.errors import Field, FieldError
from eve_jax.process.checks import hint, near_name, unexpected
from eve_jax.process.section import Section, setting

MOST_RANK = 1024
RANK = Field("lora.rank")
ON = {"text": "text", "vision": "vision", "patches": "patch_embed"}  # what `config.lora.on` names, and its group


def parse_on(text: str) -> tuple[str, ...]:
    """Return the kinds of matrices, keys of ON, that `text` lists with commas. Raise FieldError for unknown ones."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if names.count(name) > 1:
            raise FieldError(Field("lora.on"), f"={text!r} names {name} more than once")
        if name not in ON:
            raise FieldError(
                Field("lora.on"),
                f"={text!r}: unknown {name!r}; expected some of {', '.join(ON)}",
                hint(near_name(name, ON)),
            )
    return names


def check_base(text: str) -> None:
    """Raise FieldError for another base than one that is quantized to int8, or not ("")."""
    if text not in ("", "int8"):
        raise unexpected(Field("lora.base"), text, "int8, or nothing for model.frozen_dtype")


@dataclass(frozen=True)
class Lora(Section):
    """The adapters of a model; hashable.

    A matrix W [D, F] of the `groups` (`eve_jax.model.weight.groups`) becomes W + alpha / rank A B with A [D, rank] and
    B [rank, F]. dropout: share of the adapters' inputs that training leaves out. base: "int8" where the matrices of the
    layers that they adapt are quantized in training, "" where they are as `frozen_dtype` says. seed: of A and dropout.
    """

    PATH = "lora."

    rank: int = setting(low=1, high=MOST_RANK)
    alpha: float = setting(low=0, between=True)
    groups: tuple[str, ...] = ()
    dropout: float = setting(0.0, low=0, high=0.999)
    base: str = setting("", reads=check_base)
    seed: int = 0

    @property
    def scale(self) -> float:
        """What the product of A and B is multiplied with."""
        return self.alpha / self.rank


@dataclass(frozen=True, kw_only=True)
class LoraConfig(Section):
    """The section `lora` of a stage's config; rank 0: without adapters."""

    PATH = "lora."

    rank: int = setting(low=0, high=MOST_RANK)
    alpha: float = setting(low=0)
    on: str = setting(reads=parse_on)
    dropout: float = setting(low=0, high=0.999)
    base: str = setting(reads=check_base)

    def check(self) -> None:
        """Raise FieldError for a field that says how adapters are where there are none."""
        for name in () if self.rank else ("alpha", "on", "dropout", "base"):
            if value := getattr(self, name):
                raise FieldError(
                    Field(f"lora.{name}"), f"={value} is for adapters, and there are none: give their rank as ", RANK
                )

    def adapters(self, groups: tuple[str, ...], seed: int) -> Lora | None:
        """Return the adapters of the `groups`, None with rank 0; `alpha` 0 is twice the rank."""
        if not self.rank:
            return None
        return Lora(self.rank, self.alpha or 2.0 * self.rank, groups, self.dropout, self.base, seed % 2**31)
