"""Every knob of the demo's images and questions: how hard they are, and how many there are."""

from __future__ import annotations

from dataclasses import dataclass, replace

from eve_jax.errors import UserError
from eve_jax.process.checks import known_names
from eve_jax.process.section import Section, setting

PATCH = 32  # pixels: side of a patch of the model, to which the grid of an image is aligned


@dataclass(frozen=True)
class DemoSettings(Section):
    """What `write_dataset` writes. Lengths are pixels, shares and weights are in [0, 1].

    The grid of an image lies on multiples of half a cell; `jitter`, `object_size` and `odd_share` say how far what is
    on it strays from that, and so how hard it is to see.
    """

    PATH = "demo.settings."

    # what there is to know
    kinds: int = setting(48, low=8, high=48)  # kinds of thing, of at most 48
    words: int = setting(40, low=4, high=40)  # words on signs, of at most 40
    colors: int = setting(10, low=3, high=10)  # of signs, of at most 10
    held_pairs: tuple[int, ...] = setting((1, 5, 11), low=1)  # kinds this far apart in the list never meet in training

    # how an image looks
    cell: int = setting(64, low=1)  # side of a cell, one thing in each
    object_size: tuple[int, int] = setting((52, 60), low=1)  # longest side of a thing, smallest and largest
    size_step: int = setting(2, low=1)  # sizes in between
    jitter: int = setting(3, low=0)  # a thing strays this far from its place, along both axes
    sign_jitter: int = setting(
        0, low=0
    )  # and a sign this far: words are much harder to learn than things when they move
    margin_share: float = setting(0.15, low=0, high=1)  # chance of an extra half cell along an axis
    odd_share: float = setting(0.2, low=0, high=1)  # share of images whose sides are no multiples of a patch
    odd_pixels: int = setting(6, low=0)  # by how much, at most
    zoom: tuple[float, float] = setting((1.0, 1.0), low=0.1, high=8)  # smallest and largest scale of a whole image
    backgrounds: int = setting(6, low=1, high=8)  # pale colors, of at most 8
    shade: int = setting(
        12, low=0, high=255
    )  # how much the background darkens, at most, from top to bottom (levels of 255)
    letter_size: int = setting(
        42, low=1
    )  # largest font size on signs; a word that is too long for its board is smaller
    jpeg_share: float = setting(0.15, low=0, high=1)  # of images kept as JPEG (quality 95), the rest as PNG

    # what is asked
    max_count: int = setting(4, low=2, high=5)  # things of the counted kind, from one
    max_others: int = setting(2, low=0)  # things of another kind next to them, from none
    row_lengths: tuple[int, ...] = setting((2, 2, 3), low=1)  # things in a row or column, drawn from this list
    column_share: float = setting(0.4, low=0, high=1)  # of rows that stand upright
    sign_with_thing: float = setting(0.3, low=0, high=1)  # share of signs with a thing next to them
    describe_share: float = setting(0.35, low=0, high=1)  # of conversations that begin with a description
    single: float = setting(0.08, low=0, high=1)  # weights of the families of images
    row: float = setting(0.40, low=0, high=1)
    group: float = setting(0.25, low=0, high=1)
    mix: float = setting(0.07, low=0, high=1)
    sign: float = setting(0.20, low=0, high=1)

    # how much there is
    documents: int = setting(6000, low=0)  # text-only, to pretrain the LLM
    chats: int = setting(16000, low=0)  # text-only, to teach it to answer
    caption_images: int = setting(12000, low=0)  # records of captions.jsonl
    question_images: int = setting(8000, low=0)  # of the same images, records of questions.jsonl about one image
    question_pairs: int = setting(1500, low=0)  # records of questions.jsonl about two images
    sft_images: int = setting(4000, low=0)  # images of their own, records of sft.jsonl about one image
    sft_pairs: int = setting(800, low=0)
    sft_texts: int = setting(400, low=0)  # text-only records of sft.jsonl
    heldout_per_task: int = setting(100, low=1)
    vocabulary: int = setting(1024, low=1)  # tokens, special ones included

    def check(self) -> None:
        """Raise UserError for settings that do not go together."""
        if self.max_count + self.max_others > 6:
            raise UserError("demo settings max_count + max_others exceed the 6 cells of a group: lower one of them")
        if self.zoom[0] > self.zoom[1]:
            raise UserError(f"demo setting zoom={self.zoom}: the smallest scale comes first")
        small, large = self.object_size
        if not 8 <= small <= large <= self.cell:
            raise UserError(f"demo setting object_size={self.object_size} must lie between 8 and cell={self.cell}")


FULL = DemoSettings()
TINY = replace(
    FULL,
    kinds=16,
    words=8,
    colors=5,
    held_pairs=(1,),
    margin_share=0.0,
    odd_share=0.1,
    row_lengths=(2,),
    documents=120,
    chats=120,
    caption_images=120,
    question_images=80,
    question_pairs=16,
    sft_images=60,
    sft_pairs=12,
    sft_texts=8,
    heldout_per_task=8,
    vocabulary=640,
)


SIZES = {"full": FULL, "tiny": TINY}


def settings_of(size: str) -> DemoSettings:
    """Return the settings of a size by name. Raise UserError for an unknown one."""
    known_names([size], SIZES, "size of the demo dataset")
    return SIZES[size]
