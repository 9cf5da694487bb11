"""Which size an image gets before it is cut into patches (EVEv2 paper, section 3.2; docs/model.md#image-rules)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from eve_jax.data.image.codes import CODE_BYTES, Coder
from eve_jax.data.image.size_rules import (
    BUDGET,
    BUDGETS,
    GEMMA,
    NEO,
    NEO_AREA,
    SAIL,
    gemma_size,
    neo_size,
    sail_size,
    shared_area,
)
from eve_jax.errors import Argument, Field, FieldError
from eve_jax.process.checks import number, unexpected, whole

PATCH = 32  # side of an image patch of EVEv2 in pixels
PATCH_BYTES = PATCH * PATCH * 3
SQUARE = "square"  # the mode of EVEv1
PAD = "pad"  # the mode of models with a vision encoder (LLaVA-1.5)
CODES = "codes"  # the mode of models that read codes of a vision tokenizer
CANVASES = (PAD, CODES)  # squares that an image is put on, all of whose patches are tokens
# Own max_size of each mode; NEO, SAIL and GEMMA do not look at it.
MODES = {"anyratio_ld": 800, "anyratio_hd": 1600, "anyratio_maxl": 800, "anyresolution": 1600, SQUARE: 672}
MODES |= {NEO: 2048, SAIL: 2048, GEMMA: 768, PAD: 336, CODES: 256}
FITS = ("shrink", "fill")
# Of a config, by arguments that have other names.
FIELDS = {"data.mode": "data.image_mode", "data.tokens": "data.image_tokens"}
MAX_PIXELS = 64_000_000  # of an image file: 0.2 GB of RGB, 8,000 x 8,000
PILLOW_PIXELS = 178_956_970  # Pillow's own limit for an error: half a GiB of RGB
LARGEST = 16_384  # of a side of the largest image area in pixels: 0.8 GB of RGB


@dataclass(frozen=True)
class ImageRule:
    """Which size an image gets before it is cut into patches (docs/model.md#image-rules).

    mode: `anyratio_ld`, `anyratio_hd`: area at most about max_size^2; `anyratio_maxl`: longest edge at most
    max_size; `anyresolution`: native size, capped like anyratio (whatever `fit`); `square` (EVEv1): the longer side
    becomes max_size, the shorter as many of the teacher's patches, rounded up (whatever `fit` and max_aspect);
    `pad` (LLaVA-1.5): a square of max_size with the image in the middle of the mean color, all its patches are tokens;
    `codes`: the same square, whose patches are codes of the vision tokenizer with the digest `vocabulary`. coder: makes
    the codes of images that are none yet, None where all are (`eve_jax.data.image.codes`). `neo`: an area within
    `area`, `sail`: up to 4,096 patches, and `gemma`: as many as `tokens` allow (whatever `fit` and max_size).
    fit: `shrink` never enlarges and rounds sides half to even; `fill` scales up, too, and rounds up.
    max_size: pixels, at most LARGEST, 0 = the mode's own (MODES). max_aspect: a longer image is squeezed to this ratio
    of its sides at the same area, 0 = never. patch: side of a patch in pixels.
    teacher: side of the image and of a patch that EVEv1's teacher sees, in pixels; matters in mode `square` alone.
    max_pixels: of an image file; larger ones are not decoded. draft: JPEG files of training are decoded to a half, a
    quarter or an eighth where that leaves enough pixels, which is faster and not exact (docs/data.md#faster-images).
    area: the smallest and largest of mode `neo` in pixels, (0, 0) = the mode's own. tokens: of an image in mode
    `gemma`, one of BUDGETS, 0 = BUDGET.
    """

    mode: str = "anyratio_hd"
    fit: str = "shrink"
    max_size: int = 0
    max_aspect: float = 8.0
    patch: int = PATCH
    teacher: tuple[int, int] = (336, 14)
    max_pixels: int = field(default=MAX_PIXELS, repr=False)  # no part of what an image becomes
    draft: bool = field(default=False, repr=False)  # no part of its size
    area: tuple[int, int] = field(default=(0, 0), repr=False)  # keys of the modes before it stay as they were
    tokens: int = field(default=0, repr=False)
    vocabulary: str = field(default="", repr=False)
    coder: Coder | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        data: Mapping[str, Any],
        fit: str | None = None,
        max_size: int | None = None,
        max_aspect: float | None = None,
    ) -> Self:
        """Return the rule of a `config.data`, with another `fit`, `max_size` or `max_aspect` where they are given.

        Raises `UserError` that names the field of the config; of the class itself, the argument.
        """
        fit = data.get("fit", "shrink") if fit is None else fit
        size = data["max_size"] if max_size is None else max_size
        aspect = data["max_aspect"] if max_aspect is None else max_aspect
        teacher = tuple(data.get("teacher", cls.teacher))
        try:
            most = data.get("max_pixels", MAX_PIXELS)
            draft, area = data.get("draft", False), tuple(data.get("area", cls.area))
            sizes = (data.get("patch", PATCH), teacher, most, draft, area, data.get("image_tokens", 0))
            return cls(data["image_mode"], fit, size, aspect, *sizes)
        except FieldError as error:
            parts = (Field(FIELDS.get(part, part)) if isinstance(part, Field) else part for part in error.parts)
            raise FieldError(*parts) from None

    def __post_init__(self) -> None:
        for name, value, known in (("mode", self.mode, MODES), ("fit", self.fit, FITS)):
            if value not in known:
                raise FieldError(Argument(f"data.{name}"), f": {value!r} is not one of {', '.join(known)}")
        patch, max_size, max_aspect = (Argument(f"data.{name}") for name in ("patch", "max_size", "max_aspect"))
        whole(patch, self.patch, f"an even number of pixels, at most {LARGEST}", 2, LARGEST)
        sizes = f"0 or a number of pixels, at least {self.patch} and at most {LARGEST}"
        whole(max_size, self.max_size, sizes, 0, LARGEST)
        number(max_aspect, self.max_aspect, "0 or a number of at least 1", 0)
        most = f"a number of pixels, at most {PILLOW_PIXELS:,}"
        whole(Argument("data.max_pixels"), self.max_pixels, most, 1, PILLOW_PIXELS)
        if self.area != (0, 0) and (self.mode != NEO or not 1 <= self.area[0] <= self.area[1] <= LARGEST**2):
            wanted = f"the smallest and the largest area in pixels, for image_mode={NEO} alone, or (0, 0)"
            raise unexpected(Argument("data.area"), self.area, wanted)
        if self.tokens and (self.mode != GEMMA or self.tokens not in BUDGETS):
            wanted = f"{', '.join(map(str, BUDGETS))} for image_mode={GEMMA} alone, or 0"
            raise unexpected(Argument("data.tokens"), self.tokens, wanted)
        if self.patch % 2:
            raise unexpected(patch, self.patch, "an even number of pixels")
        if self.max_size != 0 and self.max_size < self.patch:
            raise unexpected(max_size, self.max_size, sizes)
        if self.max_aspect != 0 and self.max_aspect < 1:
            raise unexpected(max_aspect, self.max_aspect, "0 or a number of at least 1")
        if self.mode == SQUARE and (min(self.teacher) < 1 or self.teacher[0] % self.teacher[1]):
            raise FieldError(
                Argument("data.teacher"),
                f": images of {self.teacher[0]} pixels are not a multiple of patches of {self.teacher[1]} pixels",
            )
        if self.mode == SQUARE and self.size % (self.teacher_cells * self.patch):
            raise FieldError(
                max_size,
                f": {self.size} pixels are not a multiple of the {self.teacher_cells} patches along a side of the "
                "teacher's image times ",
                patch,
                f"={self.patch}",
            )

        if self.mode in CANVASES and self.size % self.patch:
            raise FieldError(max_size, f": {self.size} pixels are not a multiple of ", patch, f"={self.patch}")

    @property
    def size(self) -> int:
        """Side of the largest image area in pixels."""
        if self.mode == NEO and any(self.area):
            return math.isqrt(self.area[1])
        if self.mode == GEMMA:
            return math.isqrt(self.budget) * self.patch
        return self.max_size or MODES[self.mode]

    @property
    def budget(self) -> int:
        """Tokens of an image, at most, in mode `gemma`."""
        return self.tokens or BUDGET

    @property
    def patch_bytes(self) -> int:
        """Bytes of a patch: of RGB pixels, or of a code."""
        return CODE_BYTES if self.mode == CODES else self.patch**2 * 3

    @property
    def teacher_cells(self) -> int:
        """Patches along a side of the teacher's image."""
        return self.teacher[0] // self.teacher[1]

    @property
    def pool(self) -> int:
        """Patches along a side of one of the teacher's patches, in mode `square`."""
        return self.size // self.teacher_cells // self.patch

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height in pixels, multiples of `patch`, of an image of `width` x `height` pixels."""
        if self.mode in CANVASES:
            return self.size, self.size
        if self.mode == SQUARE:
            cells = teacher_grid(width, height, *self.teacher)
            return cells[1] * self.pool * self.patch, cells[0] * self.pool * self.patch
        w, h = self._squeezed(float(width), float(height))
        if self.mode == NEO:
            return neo_size(w, h, self.patch, self.area if any(self.area) else NEO_AREA)
        if self.mode == SAIL:
            return sail_size(w, h, self.patch)
        if self.mode == GEMMA:
            return gemma_size(w, h, self.patch, self.budget)
        size = self.size
        longest = self.mode == "anyratio_maxl"
        scale = max(w, h) / size if longest else math.sqrt(w * h) / size
        if self.fit == "fill" and self.mode != "anyresolution":
            sides = [math.ceil(side / scale / self.patch) for side in (w, h)]
        else:
            sides = [round(side / max(scale, 1.0) / self.patch) for side in (w, h)]
        limit = size // self.patch if longest else max(sides)
        return _clip(sides[0], limit) * self.patch, _clip(sides[1], limit) * self.patch

    def among(self, images: int) -> Self:
        """The rule for each of the `images` of a training record, which NEO makes smaller where there are several."""
        if self.mode != NEO or images < 2:
            return self
        return replace(self, area=shared_area(self.area if any(self.area) else NEO_AREA, images))

    @property
    def filter(self) -> str:
        """Of Pillow, by which images are resized: bicubic, SAIL's bilinear."""
        return "BILINEAR" if self.mode == SAIL else "BICUBIC"

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns (h, w) of patches of an image of `width` x `height` pixels."""
        w, h = self.resized(width, height)
        return h // self.patch, w // self.patch

    def _squeezed(self, width: float, height: float) -> tuple[float, float]:
        ratio = max(width, height) / min(width, height)
        if not self.max_aspect or ratio <= self.max_aspect:
            return width, height
        change = math.sqrt(ratio / self.max_aspect)
        return (width / change, height * change) if width > height else (width * change, height / change)


def _clip(side: int, limit: int) -> int:
    return max(min(side, limit), 1)


def teacher_grid(width: int, height: int, side: int, patch: int) -> tuple[int, int]:
    """Rows and columns of the teacher's patches that hold an image whose longer side becomes `side` pixels (EVEv1)."""
    short = math.ceil(side * min(width, height) / max(width, height) / patch)
    return (short, side // patch) if height < width else (side // patch, short)
