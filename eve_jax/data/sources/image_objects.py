"""An object that stands for an image: the keys that say where the image is, and the others, which are not read.

Some of the others ask for another image than that of the file; they are refused, as the edit is not made.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from eve_jax.data.record import BadRecord, is_empty
from eve_jax.data.sources.media import basename, suffix_of

KEYS = ("image", "image_url", "path", "url")  # of the image, next to `bytes`
EDITS = {  # words of keys that ask for an edit
    *("crop", "cropped", "cropping", "bbox", "bboxes", "box", "boxes", "region", "regions", "roi", "polygon", "rle"),
    *("mask", "masked", "masks", "segmentation", "rotate", "rotated", "rotation", "angle", "flip", "flipped", "hflip"),
    *(
        "vflip",
        "mirror",
        "mirrored",
        "transpose",
        "resize",
        "resized",
        "transform",
        "transforms",
        "augment",
        "augmented",
    ),
    *("augmentation", "augmentations", "pad", "padding", "zoom", "invert", "inverted", "grayscale", "brightness"),
    *("contrast", "saturation", "hue", "gamma", "blur", "sharpen", "warp", "shear", "edit", "edits", "orientation"),
    *("rot", "degrees", "clip", "clipped", "scale", "scaled"),
}
FACTORS = {"zoom", "scale", "brightness", "contrast", "saturation", "gamma", "orientation"}  # where 1 is no edit either
# Words of fields of a record or turn that ask for an edit of its images; others of EDITS are about what is seen there.
WHOLE_EDITS = {
    *("crop", "cropping", "rotate", "rotation", "rot", "flip", "hflip", "vflip", "mirror", "transpose", "resize"),
    *("transform", "transforms", "augment", "augmentation", "augmentations", "warp", "shear"),
}
SIDES = {"left", "right", "top", "bottom", "center", "horizontal", "vertical", "both", "true", "yes", "lr", "ud"}
ACROSS = re.compile(r"x(_?(\d|min|max))?|left|right")  # keys of a part of an image, which is not cut out
DOWN = re.compile(r"y(_?(\d|min|max))?|top|bottom")
FRAMES = {
    "frame",
    "frame_index",
    "page",
    "page_index",
    "layer",
}  # of a file that has several, the first of which is read
OF_FRAMES = {"tif", "tiff", "gif", "webp", "apng", "png", "avif"}
NAMES = {"id", "ids", "name", "names", "label", "labels", "count"}  # words of keys that are about something


def unread_keys(value: Any) -> Iterator[str]:
    """Yield the keys of the object `value` that are not read and hold something; none for anything but an object.

    A key of an object inside it is yielded behind its place, as in `image_url[].detail`.
    """
    for key in value if isinstance(value, dict) else ():
        if key in KEYS:
            yield from (f"{key}[].{name}" for name in unread_keys(value[key]))
        elif key not in ("bytes", "type") and not is_empty(value[key]):
            yield key


def check_object(value: Any, field: str) -> None:
    """Raise `BadRecord` for an object that asks for an edit of its image, which is not made, or that names two images.

    The URL that a file is from, and the path of stored bytes, may stand next to it.
    """
    if not isinstance(value, dict):
        return
    _check_one(value, field)
    _check_part(value, field)
    for key, asked in value.items():
        if key in KEYS:
            check_object(asked, field)
        elif _is_edit(key, asked) or _is_frame(key, asked, value):
            raise BadRecord(f"{field} has {key}, which is not read; apply it to the image file, or remove it")


def check_edits(given: Mapping[str, Any], name: str) -> None:
    """Raise `BadRecord` for a record or turn, called `name`, with a field that asks for an edit of its images."""
    for key, asked in given.items():
        words = _words(key)
        if words & WHOLE_EDITS and not words & NAMES and _asks(asked):
            raise BadRecord(f"{name} has {key}, which is not read; apply it to the image file, or remove it")


def _asks(value: Any) -> bool:
    """Whether a value says what is to be done: not the crop that is a plant."""
    if isinstance(value, list | dict):
        return any(map(_asks, value.values() if isinstance(value, dict) else value))
    if isinstance(value, str):
        return bool(re.search(r"\d", value)) or bool(_words(value) & SIDES)
    return not is_empty(value) and value != 0


def _check_part(value: dict[str, Any], field: str) -> None:
    """Raise `BadRecord` for an object with the edges of a part of its image."""
    keys = [key for key in value if not is_empty(value[key])]
    across, down = ([key for key in keys if one.fullmatch(key.lower())] for one in (ACROSS, DOWN))
    sides = [value[key] for key in keys if key in (*across, *down) or key.lower() in ("w", "h", "width", "height")]
    if across and down and any(side != 0 for side in sides):
        names = " and ".join((across[0], down[0]))
        raise BadRecord(
            f"{field} has {names} of a part of it, which is not cut out; cut the image file, or remove them"
        )


def _check_one(value: dict[str, Any], field: str) -> None:
    if not is_empty(value.get("bytes")):
        return
    files = {key: text for key in KEYS if (text := _path(value.get(key))) and "://" not in text and text[:5] != "data:"}
    if len({basename(text) for text in files.values()}) > 1:
        raise BadRecord(f"{field} names different images under {' and '.join(files)}; keep one of them")


def _path(value: Any) -> str:
    """Return the path or URI that the value of one of KEYS comes to, "" where it is none."""
    if isinstance(value, dict):
        return next((found for key in KEYS if (found := _path(value.get(key)))), "")
    return value if isinstance(value, str) else ""


def _is_edit(key: str, asked: Any) -> bool:
    words = _words(key)
    if not words & EDITS or words & NAMES or is_empty(asked):
        return False
    if isinstance(asked, str) and asked.lower() in ("none", "no", "false"):
        return False
    return (asked is True or asked not in (0, 1)) if words & FACTORS else asked != 0


def _words(key: str) -> set[str]:
    return set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower()))


def _is_frame(key: str, asked: Any, value: Any) -> bool:
    """Whether another frame than the first of the image file is asked for."""
    if key.lower() not in FRAMES or asked == 0 or not isinstance(asked, int):
        return False
    texts = [value[name] for name in KEYS if isinstance(value.get(name), str)]
    return any(suffix_of(text) in OF_FRAMES for text in texts)
