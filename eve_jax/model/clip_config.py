"""Sizes of CLIP's vision tower: EVEv1's teacher, or the encoder of a model with one."""

from dataclasses import dataclass

from eve_jax.errors import Field, FieldError
from eve_jax.process.section import Section, setting

LARGEST, DEEPEST = 1 << 24, 4096  # of any size, of layers: more is damage
CLIP_ACTIVATIONS = ("quick_gelu", "gelu")


def refuse_ratio(sizes: Section, whole: str, part: str) -> None:
    """Raise FieldError: the size `whole` of `sizes` is not a multiple of the size `part`."""
    all_of, one = getattr(sizes, whole), getattr(sizes, part)
    raise FieldError(Field(sizes.PATH + whole), f"={all_of} is not a multiple of ", Field(sizes.PATH + part), f"={one}")


@dataclass(frozen=True)
class ClipConfig(Section):
    """Sizes of a CLIP vision tower, by default ViT-L/14-336's, the teacher of EVEv1."""

    PATH = "model.teacher."

    image_size: int = setting(336, low=1, high=LARGEST)
    patch_size: int = setting(14, low=1, high=LARGEST)
    hidden_size: int = setting(1024, low=1, high=LARGEST)
    intermediate_size: int = setting(4096, low=1, high=LARGEST)
    num_layers: int = setting(24, low=1, high=DEEPEST)
    num_heads: int = setting(16, low=1, high=LARGEST)
    layer_norm_eps: float = setting(1e-5, low=0, between=True)
    hidden_act: str = setting("quick_gelu", CLIP_ACTIVATIONS)

    def check(self) -> None:
        """Raise FieldError for sizes that do not fit each other."""
        for whole, part in (("image_size", "patch_size"), ("hidden_size", "num_heads")):
            if getattr(self, whole) % getattr(self, part):
                refuse_ratio(self, whole, part)

    @property
    def cells(self) -> int:
        """Patches along a side of its image."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class EncoderConfig(ClipConfig):
    """Sizes of the vision encoder of `patch_embed` clip, by default ViT-L/14-336's."""

    PATH = "model.encoder."

    patch_size: int = setting(14, low=2, high=LARGEST, multiple=2)
