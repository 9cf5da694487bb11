"""The section `pretrain` of a recipe: sizes and steps of the demo's own vision encoder and vision tokenizer."""

from dataclasses import dataclass

from eve_jax.errors import Field, FieldError
from eve_jax.model.clip_config import EncoderConfig
from eve_jax.model.vq import VqConfig
from eve_jax.process.section import Section, setting


@dataclass(frozen=True, kw_only=True)
class Task(Section):
    """What both are trained with. images: that are drawn, of which each step takes `batch`; checked: further ones."""

    steps: int = setting(low=1)
    batch: int = setting(low=2)
    images: int = setting(low=2)
    checked: int = setting(low=2)
    lr: float = setting(low=0, between=True)

    def check(self) -> None:
        """Raise FieldError for a batch of more images than there are."""
        if self.batch > self.images:
            raise FieldError(Field(f"{self.PATH}batch"), f"={self.batch} is more than the {self.images} images")

    @property
    def seen(self) -> int:
        """Images that training sees, some of them several times."""
        return self.steps * self.batch


@dataclass(frozen=True, kw_only=True)
class EncoderTask(Task):
    """A vision encoder: sizes of CLIP's tower, of which a model looks at the last layer but one."""

    PATH = "pretrain.encoder."

    image_size: int = setting(low=1)
    patch_size: int = setting(low=2)
    hidden_size: int = setting(low=1)
    num_layers: int = setting(low=2)
    num_heads: int = setting(low=1)

    @property
    def sizes(self) -> EncoderConfig:
        """Return them as a model has them; the feed-forward is four times as wide as the rest."""
        wide = 4 * self.hidden_size
        return EncoderConfig(self.image_size, self.patch_size, self.hidden_size, wide, self.num_layers, self.num_heads)


@dataclass(frozen=True, kw_only=True)
class TokenizerTask(Task):
    """A vision tokenizer: sizes of a VQGAN's encoder."""

    PATH = "pretrain.tokenizer."

    image_size: int = setting(low=1)
    channels: int = setting(low=1)
    multipliers: tuple[int, ...] = setting(low=1)
    code_dim: int = setting(low=1)
    codes: int = setting(low=2)

    @property
    def sizes(self) -> VqConfig:
        """Return them as the encoder has them, with one residual block a level."""
        return VqConfig(
            self.image_size, self.channels, self.multipliers, 1, False, self.code_dim, self.code_dim, self.codes
        )


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(Section):
    """The section `pretrain`. codes: files of the demo's records that are needed with codes, data/captions.jsonl ..."""

    PATH = "pretrain."

    encoder: EncoderTask | None = None
    tokenizer: TokenizerTask | None = None
    codes: tuple[str, ...]

    def check(self) -> None:
        """Raise FieldError for codes without a tokenizer, and for sizes that no encoder or tokenizer has."""
        if self.codes and self.tokenizer is None:
            raise FieldError(Field("pretrain.codes"), " are of a tokenizer: give ", Field("pretrain.tokenizer"))
        for task in (self.encoder, self.tokenizer):
            if task is not None:
                _ = task.sizes  # which checks them
