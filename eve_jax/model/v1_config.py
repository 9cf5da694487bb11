"""Switches of EVEv1's own layers, by which the ablations of its paper differ (EVE paper, Table 4 and Fig. 6)."""

from dataclasses import dataclass, fields
from typing import Any

from eve_jax.errors import Field, FieldError
from eve_jax.model.clip_config import DEEPEST
from eve_jax.model.family_config import FamilyFields
from eve_jax.process.section import setting


@dataclass(frozen=True, kw_only=True)
class V1Fields(FamilyFields):
    """The fields of a model by which EVEv1 can be another than it is.

    window_pool: what the four patches of a window become: their mean and what it gets by attending over them (CA1), or
    the mean alone. image_token: what an image begins with: a learned token that attends over the image's windows (CA2),
    or that token as it is. align_every: layers between two whose hidden states the patch aligning layer looks at.
    align_target: the teacher's feature that is predicted at a place: that of its own patch, or of the next one in the
    image, row by row.
    """

    window_pool: str = setting("attention", ("attention", "mean"))
    image_token: str = setting("attention", ("attention", "learned"))
    align_every: int = setting(4, low=1, high=DEEPEST)
    align_target: str = setting("own", ("own", "next"))

    def check_v1(self) -> None:
        """Raise FieldError for switches of the patch embedding in a model with another one."""
        for name in OF_PATCHES:
            if self.patch_embed != "v1" and (value := getattr(self, name)) != V1_SWITCHES[name]:
                raise FieldError(Field(f"model.{name}"), f"={value} is of ", Field("model.patch_embed"), "=v1")


OF_PATCHES = ("window_pool", "image_token")  # those that decide which weights a patch embedding has
# The values of EVEv1, and of a model without its layers.
V1_SWITCHES: dict[str, Any] = {
    field.name: field.default for field in fields(V1Fields) if field.name in V1Fields.__annotations__
}
