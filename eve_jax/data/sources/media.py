"""What looks like an image, a video or audio in a field that is not read."""

import os
import re
from collections.abc import Callable, Iterator
from itertools import islice
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
# Images, scans and shapes in formats that other programs read: such a file is missed where a record has no image.
SCANS = {
    *("exr", "hdr", "pfm", "dds", "sgi", "pcx", "xcf", "psd", "psb", "fits", "fts", "eps", "wmf", "emf", "rgbe"),
    *("cr2", "cr3", "crw", "nef", "nrw", "arw", "sr2", "raf", "orf", "rw2", "pef", "srw", "3fr", "dcr", "kdc", "x3f"),
    *("dcm", "dicom", "nii", "mha", "mhd", "nrrd", "nhdr", "mgz", "mgh", "svs", "ndpi", "mrxs", "czi"),
    *("nd2", "vsi", "jls", "ply", "stl", "obj", "off", "glb", "gltf", "fbx", "3ds", "dae", "usdz", "las", "laz", "pcd"),
}
SCAN = "a scan, a raw photo or a 3D shape"  # kind of a file with one of those suffixes
DOUBTFUL = {
    "pdf",
    "npy",
    "npz",
    "djvu",
    "h5",
    "hdf5",
    "mat",
    "pt",
    "zip",
}  # which may hold what an image was made from, or anything else
OTHER_NAMES = {"video", "videos", "audio", "audios", "pixel_values_videos", "input_features"}
IMAGE_NAMES = {
    *("pixel_values", "picture", "pictures", "photo", "photos", "pic", "pics", "jpg", "jpeg", "png", "webp", "imgs"),
    *("image_base64", "image_b64", "image_bytes", "image_data", "image_file_path", "img_base64", "img_bytes"),
    "frames",
}
IMAGE_WORDS = {"image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "pic", "pics", "screenshot"}
FILLERS = {  # that may stand next to those in a name, with any numbers
    *(
        "list",
        "lists",
        "file",
        "files",
        "path",
        "paths",
        "name",
        "names",
        "url",
        "urls",
        "uri",
        "data",
        "bytes",
        "base",
    ),
    *("left", "right", "front", "back", "before", "after", "first", "second", "third", "input", "query", "target"),
    *("main", "raw", "original", "orig", "reference", "ref", "high", "low", "b", "a", "c", "d", "local", "rel", "abs"),
}
HOLDERS = {"media", "file", "files", "path", "paths", "attachment", "attachments"}  # of names of files, spaces in them
NAMES_OF_FILES = {"file_name", "filename"}
ABOUT = {  # fields that say where the images of a record come from, or something about them
    *("source", "sources", "data_source", "origin", "note", "notes", "comment", "comments", "description", "title"),
    *("remark", "remarks", "credit", "attribution", "license", "author"),
    *NAMES_OF_FILES,
}
DEPTH, NODES = 6, 256  # how deep, and at how many values of a field, is looked for media
IMAGE_STARTS = (
    *(b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    *(b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51", b"\0\0\0\x0cJXL", b"\0\0\1\0\1\0"),  # JPEG 2000, JPEG XL, ICO
)
BINARY_PNM = re.compile(rb"P[4-6]\s+\d+\s+\d+\s")
FTYP_IMAGES = (b"avif", b"avis", b"heic", b"heix", b"heim", b"hevc", b"mif1", b"msf1")
HEAD = 16  # first bytes of a file that `kind_of_bytes` needs
OTHER_STARTS = (b"ID3\x02", b"ID3\x03", b"ID3\x04", b"OggS", b"fLaC", b"\x1aE\xdf\xa3")
BASE64_STARTS = ("iVBORw0KGgo", "/9j/4", "R0lGOD", "UklGR")  # PNG, JPEG, GIF, WebP
MANY = 1024  # characters; a path is shorter, an encoded image longer


def suffix_of(text: str) -> str:
    """Return the file name suffix of a path or URL in lower case, without its dot; "" where there is none."""
    if "://" in text:
        text = re.split(r"[?#]", text, maxsplit=1)[0].partition("://")[2].partition("/")[2]
    stem, suffix = os.path.splitext(text.replace("\\", "/"))
    if suffix.lower() in (".gz", ".zst"):  # a file that is packed for itself, as scan.nii.gz
        suffix = os.path.splitext(stem)[1] or suffix
    return suffix.lower().lstrip(".")


def is_url(text: str) -> bool:
    """Whether `text` is a URL of something elsewhere."""
    return re.match(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def basename(text: str) -> str:
    """Return the last part of a path or URL."""
    return text.replace("\\", "/").rpartition("/")[2]


def media_kind(name: str, value: Any, is_known: Callable[[str], bool], has_images: bool) -> str:
    """Return "image", "video or audio" or SCAN for a field that looks like one by its name or value, else "".

    What is nested in the value counts, too, with the names that it has there. Not counted are other names of the images
    that the record has: paths that `is_known` says are such, URLs where `has_images`, and SCANS there.
    """
    if isinstance(value, bool | int | float) or is_empty(value):
        return ""
    if _plain(name) in OTHER_NAMES:
        return "video or audio"
    for key, inner in islice(_nodes(name, value, DEPTH), NODES):
        if kind := _kind(key, inner, is_known, has_images):
            return kind
        if not has_images and isinstance(inner, str) and is_image_name(key) and _is_word(inner):
            return "image"
    if _plain(name) not in IMAGE_NAMES:
        return ""
    own = [inner for _, inner in islice(_nodes(name, value, DEPTH), NODES) if isinstance(inner, str)]
    return "" if has_images and own and all(map(is_known, own)) else "image"


def is_image_name(name: str) -> bool:
    """Whether a field's name says that it holds images: `img_list`, `left_image`, `imagePath0`, not `image_id`."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
    found = {word.lower() for word in words}
    return bool(found & IMAGE_WORDS) and found <= IMAGE_WORDS | FILLERS


def _is_word(text: str) -> bool:
    """Whether a text may be the name of a file: one word, and none that says whether there is one."""
    return " " not in text.strip() and text.strip().lower() not in ("yes", "no", "true", "false", "none", "null", "n/a")


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def _nodes(name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """Yield `value` and what is nested in it, down to `depth` levels, each with the name that it has there."""
    yield name, value
    if depth and isinstance(value, list | tuple):
        for item in value:
            yield from _nodes(name, item, depth - 1)
    elif depth and isinstance(value, dict):
        for key, item in value.items():
            yield from _nodes(name if key in ("path", "url", "bytes", "") else str(key), item, depth - 1)


def _kind(name: str, value: Any, is_known: Callable[[str], bool], has_images: bool) -> str:
    if isinstance(value, StoredImage):
        return "image"
    data = as_bytes(value[:HEAD] if isinstance(value, bytes | list) else None)
    if data is not None:
        return kind_of_bytes(data)
    return _kind_of_text(name, value, is_known, has_images) if isinstance(value, str) else ""


def as_bytes(value: Any) -> bytes | None:
    """Return the bytes that `value` is, as bytes or as a list of numbers from 0 to 255; None for anything else."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, list) or len(value) < len(IMAGE_STARTS[0]) or type(value[0]) is not int:
        return None
    return bytes(value) if all(type(item) is int and 0 <= item < 256 for item in value) else None


def kind_of_bytes(data: bytes) -> str:
    """Return "image" or "video or audio" for a file that begins with `data` (HEAD bytes), "" for any other."""
    if data[4:8] == b"ftyp":
        return "image" if data[8:12] in FTYP_IMAGES else "video or audio"
    if data[:4] == b"RIFF":
        return "image" if data[8:12] == b"WEBP" else "video or audio"
    if data.startswith(IMAGE_STARTS) or BINARY_PNM.match(data):
        return "image"
    if data[:2] == b"BM" and data[6:10] == bytes(4):  # BMP; "BM25" is text
        return "image"
    return "video or audio" if data.startswith(OTHER_STARTS) else ""


def _kind_of_text(name: str, text: str, is_known: Callable[[str], bool], has_images: bool) -> str:
    start = text[:11].lower()
    if start.startswith("data:image/") or (len(text) > MANY and text.startswith(BASE64_STARTS)):
        return "image"
    if start.startswith(("data:video/", "data:audio/")):
        return "video or audio"
    if len(text) > MANY or "\n" in text or text.count(" ") > 3:
        return ""
    if " " in text.strip() and not (is_image_name(name) or _plain(name) in HOLDERS):  # "see 0.png"
        return ""
    suffix = suffix_of(text)
    if suffix in SCANS:
        return "" if has_images or _plain(name) in ABOUT - NAMES_OF_FILES else SCAN
    if suffix not in IMAGE_SUFFIXES and suffix not in OTHER_SUFFIXES:
        return ""
    if has_images and (is_url(text) or _plain(name) in ABOUT or is_known(text)):
        return ""
    return "image" if suffix in IMAGE_SUFFIXES else "video or audio"
