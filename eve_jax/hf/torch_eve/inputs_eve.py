"""Sizes of images and token ids of prompts, in plain Python; travels with an exported checkpoint.

The rules are those of docs/model.md#image-rules and docs/data.md#templates of eve_jax. Serving plugins share this file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

MARKER = "<image>"  # the place of an image in a text; `\<image>` is the tag itself
IMAGE_ID = -200  # stands for one image in ids
PATCH = 32  # side of a patch of EVEv2 in pixels
SIZES = {"anyratio_ld": 800, "anyratio_hd": 1600, "anyratio_maxl": 800, "anyresolution": 1600}  # default max_size
_ESCAPED = re.compile(rf"(\\*){MARKER}")


def largest_side(rule: Mapping[str, Any]) -> int:
    """Side of the largest image area in pixels; `rule` as in `resized`."""
    mode = rule.get("image_mode") or "anyratio_ld"
    if mode not in SIZES:
        raise ValueError(f"config.json: eve_jax.image_mode is {mode!r}: expected one of {', '.join(SIZES)}")
    return rule.get("max_size") or SIZES[mode]


def resized(width: int, height: int, rule: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height in pixels, multiples of 32, that EVEv2 sees of an image.

    `rule` is the section `eve_jax` of config.json: image_mode, max_size (pixels), max_aspect (0: none) and
    inference_fit, `fill` (scaled to the full area, also up) or `shrink` (never enlarged).
    """
    size, mode = largest_side(rule), rule.get("image_mode")
    w, h = _squeezed(float(width), float(height), rule.get("max_aspect") or 0.0)
    longest = mode == "anyratio_maxl"
    scale = max(w, h) / size if longest else math.sqrt(w * h) / size
    if (rule.get("inference_fit") or "fill") == "fill" and mode != "anyresolution":
        sides = [math.ceil(side / scale / PATCH) for side in (w, h)]
    else:
        sides = [round(side / max(scale, 1.0) / PATCH) for side in (w, h)]
    limit = size // PATCH if longest else max(sides)
    return max(min(sides[0], limit), 1) * PATCH, max(min(sides[1], limit), 1) * PATCH


def _squeezed(width: float, height: float, max_aspect: float) -> tuple[float, float]:
    ratio = max(width, height) / min(width, height)
    if not max_aspect or ratio <= max_aspect:
        return width, height
    change = math.sqrt(ratio / max_aspect)
    return (width / change, height * change) if width > height else (width * change, height / change)


def split_markers(text: str) -> list[str]:
    """The texts before, between and after the images of `text`, unescaped: one more than there are images."""
    pieces, end = [""], 0
    for found in _ESCAPED.finditer(text):
        slashes = len(found[1])
        pieces[-1] += text[end : found.start()] + "\\" * (slashes // 2)
        if slashes % 2:
            pieces[-1] += MARKER
        else:
            pieces.append("")
        end = found.end()
    pieces[-1] += text[end:]
    return pieces


def text_ids(text: str, n_images: int, encode: Callable[[str], Sequence[int]]) -> list[int]:
    """Token ids of a conversation that chat_template.jinja wrote, with IMAGE_ID for each of its `n_images` images.

    `encode` gives the ids of a text without special tokens around it. The texts between images are encoded apart, as in
    training. Without images, markers are text. Raises ValueError when places and images differ in number.
    """
    pieces = split_markers(text) if n_images else [text]
    if len(pieces) != n_images + 1:
        raise ValueError(f"{len(pieces) - 1} {MARKER} in the conversation for {n_images} images")
    ids = list(encode(pieces[0]))
    for piece in pieces[1:]:
        ids += [IMAGE_ID, *encode(piece)]
    return ids


def image_tokens(height: int, width: int) -> int:
    """Tokens of an image of `height` x `width` pixels: a class token, and a split token after each row of patches."""
    return 1 + (height // PATCH) * (width // PATCH + 1)
