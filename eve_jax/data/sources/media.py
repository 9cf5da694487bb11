"""What looks like an image, a video or audio in a field that is not read."""

import os
import re
from collections.abc import Collection
from typing import Any

from eve_jax.data.image_file import StoredImage
from eve_jax.data.record import is_empty

READ = {
    *("jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "gif", "bmp", "dib", "tif", "tiff"),
    *("ppm", "pgm", "pbm", "pnm", "tga", "jp2", "j2k", "jpx", "avif"),
}
IMAGE_SUFFIXES = READ | {"heic", "heif", "jxl", "svg", "ico", "dng"}
OTHER_SUFFIXES = {
    *("mp4", "m4v", "mov", "avi", "mkv", "webm", "wmv", "flv", "mpg", "mpeg"),
    *("mp3", "wav", "flac", "ogg", "opus", "m4a", "aac"),
}
OTHER_NAMES = {"video", "videos", "audio", "audios", "pixel_values_videos", "input_features", "frames"}
IMAGE_NAMES = {
    *("pixel_values", "picture", "pictures", "photo", "photos", "pic", "pics", "jpg", "jpeg", "png", "webp", "imgs"),
    *("image_base64", "image_b64", "image_bytes", "image_data", "image_file_path", "img_base64", "img_bytes"),
}
IMAGE_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP")
OTHER_STARTS = (b"ID3\x02", b"ID3\x03", b"ID3\x04", b"OggS", b"fLaC", b"\x1aE\xdf\xa3")
BASE64_STARTS = ("iVBORw0KGgo", "/9j/4", "R0lGOD", "UklGR")  # PNG, JPEG, GIF, WebP
MANY = 1024  # characters; a path is shorter, an encoded image longer


def suffix_of(text: str) -> str:
    """Return the file name suffix of a path or URL in lower case, without its dot; "" where there is none."""
    if "://" in text:
        text = re.split(r"[?#]", text, maxsplit=1)[0].partition("://")[2].partition("/")[2]
    return os.path.splitext(text.replace("\\", "/"))[1].lower().lstrip(".")


def is_url(text: str) -> bool:
    """Whether `text` is a URL of something elsewhere."""
    return re.match(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def basename(text: str) -> str:
    """Return the last part of a path or URL."""
    return text.replace("\\", "/").rpartition("/")[2]


def media_kind(name: str, value: Any, basenames: Collection[str] | None, has_images: bool) -> str:
    """Return "image" or "video or audio" for a field that looks like one by its name or value, else "".

    Not counted are other names of the images that the record has: paths with one of `basenames` as their last part, any
    path where `basenames` is None (the images are stored with the record), and URLs where `has_images`.
    """
    if isinstance(value, bool | int | float) or is_empty(value):
        return ""
    plain = name.lower().replace("-", "_")
    if plain in OTHER_NAMES:
        return "video or audio"
    kind = _kind(value, basenames, has_images)
    return kind or ("image" if plain in IMAGE_NAMES else "")


def _kind(value: Any, basenames: Collection[str] | None, has_images: bool) -> str:
    if isinstance(value, list | tuple):
        return next(filter(None, (_kind(item, basenames, has_images) for item in value[:4])), "")
    if isinstance(value, dict):
        if isinstance(value.get("bytes"), bytes | StoredImage):
            return "image"
        return next(filter(None, (_kind(value.get(key), basenames, has_images) for key in ("path", "url"))), "")
    if isinstance(value, StoredImage):
        return "image"
    if isinstance(value, bytes):
        return _kind_of_bytes(value)
    return _kind_of_text(value, basenames, has_images) if isinstance(value, str) else ""


def _kind_of_bytes(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return "image" if data[8:12] in (b"avif", b"heic", b"mif1", b"heix") else "video or audio"
    if data[:4] == b"RIFF":
        return "image" if data[8:12] == b"WEBP" else "video or audio"
    if data.startswith(IMAGE_STARTS) or (data[:2] == b"BM" and data[6:10] == bytes(4)):  # BMP; "BM25" is text
        return "image"
    return "video or audio" if data.startswith(OTHER_STARTS) else ""


def _kind_of_text(text: str, basenames: Collection[str] | None, has_images: bool) -> str:
    start = text[:11].lower()
    if start.startswith("data:image/") or (len(text) > MANY and text.startswith(BASE64_STARTS)):
        return "image"
    if start.startswith(("data:video/", "data:audio/")):
        return "video or audio"
    if len(text) > MANY or "\n" in text or text.count(" ") > 3:
        return ""
    suffix = suffix_of(text)
    if suffix not in IMAGE_SUFFIXES and suffix not in OTHER_SUFFIXES:
        return ""
    if has_images and (is_url(text) or basenames is None or basename(text) in basenames):
        return ""
    return "image" if suffix in IMAGE_SUFFIXES else "video or audio"
