"""Sizes of images in other members of the family: NEO's, SAIL's and Gemma's rules (docs/family.md#images)."""

import math

from eve_jax.data.record import BadRecord

NEO, SAIL, GEMMA = "neo", "sail", "gemma"  # names of the modes
HUNDRED = "hundred"  # the $100 model, whose images are of other modes
NEO_AREA = (65_536, 4_194_304)  # pixels, of pre-training and the class's defaults
SAIL_TOKENS = 4096
BUDGETS = (70, 140, 280, 560, 1120)  # tokens of an image that Gemma 4 Unified knows
BUDGET = 280  # its default
NEO_RATIO = 200  # of an image's sides, at most


def neo_size(width: float, height: float, factor: int, area: tuple[int, int]) -> tuple[int, int]:
    """Width and height, multiples of `factor`, the nearest ones whose area is in `area`, rounded to the even.

    Raises BadRecord for an image whose sides have a ratio above NEO_RATIO.
    """
    if max(width, height) / min(width, height) > NEO_RATIO:
        raise BadRecord(f"an image of {width:g} x {height:g} pixels: one side is more than {NEO_RATIO} times the other")
    least, most = area
    w, h = (max(factor, round(side / factor) * factor) for side in (width, height))
    if w * h > most:
        by = math.sqrt(height * width / most)
        w, h = (max(factor, math.floor(side / by / factor) * factor) for side in (width, height))
    elif w * h < least:
        by = math.sqrt(least / (height * width))
        w, h = (math.ceil(side * by / factor) * factor for side in (width, height))
    return w, h


def shared_area(area: tuple[int, int], images: int) -> tuple[int, int]:
    """The area of each of several `images` of a training record: together up to twice that of one."""
    least, most = area
    return (least, max(math.floor(2 * most / images), least)) if images > 1 else area


def sail_size(width: float, height: float, patch: int, tokens: int = SAIL_TOKENS) -> tuple[int, int]:
    """Width and height, multiples of `patch`, rounded up; smaller where there would be more than `tokens` patches."""
    long, short = max(width, height), min(width, height)
    larger = math.ceil(long / patch) * patch
    smaller = math.ceil(int(larger * short / long) / patch) * patch
    count = larger * smaller / patch**2
    if count > tokens:
        by = math.sqrt(count / tokens)
        larger, smaller = (max(int(side / by / patch), 1) * patch for side in (larger, smaller))
    return (larger, smaller) if width >= height else (smaller, larger)


def gemma_size(width: float, height: float, patch: int, tokens: int) -> tuple[int, int]:
    """Width and height, multiples of `patch`, the largest with the image's aspect ratio and at most `tokens` patches.

    Smaller images are made larger; one that is too long for a patch of its shorter side becomes shorter.
    """
    scale = math.sqrt(tokens * patch**2 / (height * width))
    w, h = (math.floor(scale * side / patch) * patch for side in (width, height))
    long, short = max(width, height), min(width, height)
    longest = min(math.floor(long / short), tokens) * patch
    return (longest if not h else w or patch, longest if not w else h or patch)
