"""Every knob of the demo's pictures and questions: how hard they are, and how many there are."""

from __future__ import annotations

from dataclasses import dataclass, replace

from eve_jax.errors import UserError

PATCH = 32  # pixels: side of a patch of the model, to which the grid of a picture is aligned


@dataclass(frozen=True)
class DemoSettings:
    """What `write_dataset` writes. Lengths are pixels, shares and weights are in [0, 1].

    The grid of a picture lies on multiples of half a cell; `jitter`, `object_size` and `odd_share` say how far what is
    on it strays from that, and so how hard it is to see.
    """

    # what there is to know
    kinds: int = 48  # kinds of thing, of at most 48
    words: int = 40  # words on signs, of at most 40
    colours: int = 10  # of signs, of at most 10
    held_pairs: tuple[int, ...] = (1, 5, 11)  # kinds this far apart in the list never meet in training

    # how a picture looks
    cell: int = 64  # side of a cell, one thing in each
    object_size: tuple[int, int] = (52, 60)  # longest side of a thing, smallest and largest
    size_step: int = 2  # sizes in between
    jitter: int = 3  # a thing strays this far from its place, along both axes
    sign_jitter: int = 0  # and a sign this far: words are much harder to learn than things when they move
    margin_share: float = 0.15  # chance of an extra half cell along an axis
    odd_share: float = 0.2  # share of pictures whose sides are no multiples of a patch
    odd_pixels: int = 6  # by how much, at most
    backgrounds: int = 6  # pale colours, of at most 8
    shade: int = 12  # how much the background darkens, at most, from top to bottom (levels of 255)
    letter_size: int = 42  # largest font size on signs; a word that is too long for its board is smaller
    jpeg_share: float = 0.15  # of pictures kept as JPEG (quality 95), the rest as PNG

    # what is asked
    max_count: int = 4  # things of the counted kind, from one
    max_others: int = 2  # things of another kind beside them, from none
    row_lengths: tuple[int, ...] = (2, 2, 3)  # things in a row or column, drawn from this list
    column_share: float = 0.4  # of rows that stand upright
    sign_with_thing: float = 0.3  # share of signs with a thing beside them
    describe_share: float = 0.35  # of conversations that begin with a description
    single: float = 0.08  # weights of the families of pictures
    row: float = 0.40
    group: float = 0.25
    mix: float = 0.07
    sign: float = 0.20

    # how much there is
    documents: int = 6000  # text-only, to pretrain the LLM
    chats: int = 16000  # text-only, to teach it to answer
    caption_pictures: int = 12000  # records of captions.jsonl
    question_pictures: int = 8000  # of the same pictures, records of questions.jsonl about one picture
    question_pairs: int = 1500  # records of questions.jsonl about two pictures
    sft_pictures: int = 4000  # pictures of their own, records of sft.jsonl about one picture
    sft_pairs: int = 800
    sft_texts: int = 400  # text-only records of sft.jsonl
    heldout_per_task: int = 100
    vocabulary: int = 1024  # tokens, special ones included

    def __post_init__(self) -> None:
        limits = {"kinds": (8, 48), "words": (4, 40), "colours": (3, 10), "backgrounds": (1, 8), "max_count": (2, 5)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise UserError(f"demo setting {name}={getattr(self, name)} is out of range: choose {low} to {high}")
        if self.max_count + self.max_others > 6:
            raise UserError("demo settings max_count + max_others exceed the 6 cells of a group: lower one of them")
        small, large = self.object_size
        if not 8 <= small <= large <= self.cell:
            raise UserError(f"demo setting object_size={self.object_size} must lie between 8 and cell={self.cell}")


FULL = DemoSettings()
TINY = replace(
    FULL,
    kinds=16,
    words=8,
    colours=5,
    held_pairs=(1,),
    margin_share=0.0,
    odd_share=0.1,
    row_lengths=(2,),
    documents=120,
    chats=120,
    caption_pictures=120,
    question_pictures=80,
    question_pairs=16,
    sft_pictures=60,
    sft_pairs=12,
    sft_texts=8,
    heldout_per_task=8,
    vocabulary=640,
)


def settings_of(size: str) -> DemoSettings:
    """The settings of a size by name (`full` or `tiny`); `UserError` for any other."""
    sizes = {"full": FULL, "tiny": TINY}
    if size not in sizes:
        raise UserError(f"unknown size {size!r} of the demo dataset: choose full or tiny")
    return sizes[size]
