"""A corpus of bad image files and records, and what becomes of each: python -m benchmarks.bad_corpus [--to=DIR]

Writes records.jsonl and images/ with everything that was ever wrong with a data set: files that are cut, empty, bombs
or no images, unusual ones that a viewer shows all the same, lines that are no JSON, records that make no sense. Plans
a run over them, builds all its rows, and prints what became of every one; exits with 1 if anything is wrong.
"""

import io
import json
import random
import re
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags
from ml_collections import ConfigDict
from PIL import Image, ImageDraw
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from configs import demo
from eve_jax.data.rows.bad_records import BAD_RECORDS_FILE
from eve_jax.data.rows.pipeline import open_stage_data
from eve_jax.demo.language import save_tokenizer, train_tokenizer

PLANNING, TRAINING, USED = "planning", "training", ""
SIZE = (96, 64)  # of most images


class Case(NamedTuple):
    """A record of the corpus: its id, when it is found to be bad (USED: never), words of the reason; its line."""

    id: str
    found: str
    reason: str
    line: bytes


def picture(number: int = 0, size: tuple[int, int] = SIZE) -> Image.Image:
    """An image with something in every corner, another for each number."""
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    image = Image.fromarray(np.stack([x, y, np.full_like(x, 40 * number % 256)], -1).astype(np.uint8))
    ImageDraw.Draw(image).rectangle((0, 0, width // 3, height // 3), "white", "black")
    return image


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    """The bytes of an image file."""
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def _noise(size: tuple[int, int] = SIZE) -> Image.Image:
    """An image that no format makes small, so that half of its file is half of the image."""
    return Image.frombytes("RGB", size, random.Random(0).randbytes(size[0] * size[1] * 3))


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(width: int, height: int, *more: bytes, pixels: bytes = b"") -> bytes:
    """A PNG file by hand: header, `more` chunks, pixel data."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = _chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + body + _chunk(b"IEND", b"")


def odd_images() -> dict[str, bytes]:
    """Unusual files that a viewer shows: name -> bytes."""
    rgb = picture(1)
    rgba = rgb.copy()
    rgba.putalpha(Image.linear_gradient("L").resize(SIZE))
    palette = rgb.convert("P", palette=Image.Palette.ADAPTIVE)
    frames = {"save_all": True, "append_images": [picture(2), picture(3)]}
    deep = (np.asarray(rgb.convert("L")).astype(np.uint16) * 257).astype(np.uint16)
    turned = Image.Exif()
    turned[0x0112] = 6
    files = {
        "cmyk.jpg": encoded(rgb.convert("CMYK"), "JPEG"),
        "gray.jpg": encoded(rgb.convert("L"), "JPEG"),
        "progressive.jpg": encoded(rgb, "JPEG", progressive=True),
        "exif_turned.jpg": encoded(rgb, "JPEG", exif=turned),
        "exif_broken.jpg": encoded(rgb, "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff" + b"\xff" * 40),
        "deep16.png": encoded(Image.fromarray(deep), "PNG"),
        "deep16.tiff": encoded(Image.fromarray(deep), "TIFF"),
        "float.tiff": encoded(Image.fromarray((deep / 65535).astype(np.float32)), "TIFF"),
        "palette.png": encoded(palette, "PNG"),
        "palette_clear.png": encoded(palette, "PNG", transparency=bytes(range(256))),
        "palette.gif": encoded(palette, "GIF", transparency=0),
        "alpha.png": encoded(rgba, "PNG"),
        "grey_alpha.png": encoded(rgba.convert("LA"), "PNG"),
        "bits.png": encoded(rgb.convert("1"), "PNG"),
        "animated.gif": encoded(rgb, "GIF", **frames),
        "animated.png": encoded(rgb, "PNG", **frames),
        "animated.webp": encoded(rgb, "WEBP", **frames),
        "several.jpg": encoded(rgb, "MPO", **frames),
        "dot.png": encoded(picture(size=(1, 1)), "PNG"),
        "ribbon.png": encoded(picture(size=(900, 3)), "PNG"),
        "png_called.jpg": encoded(rgb, "PNG"),
    }
    return {f"odd/{name}": data for name, data in files.items()}


def broken_headers() -> dict[str, tuple[bytes | None, str]]:
    """Files that are seen to be bad by their beginning: name -> bytes (None: no file), words of the reason."""
    rgb = picture(4)
    bmp = encoded(rgb, "BMP")
    bomb = _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(80_000_000), 9))
    return {
        "missing.jpg": (None, "missing file"),
        "empty.jpg": (b"", "empty file"),
        "text.png": (b"just some words\n", "not an image"),
        "error_page.jpg": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "not an image"),
        "drawing.svg": (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "not an image"),
        "noise.jpg": (random.Random(1).randbytes(3000), "not an image"),
        "program.eps": (encoded(rgb, "EPS"), "a program that draws one"),
        "signature_only.png": (b"\x89PNG\r\n\x1a\n", "not an image|broken header"),
        "header_cut.png": (encoded(rgb, "PNG")[:20], "not an image|broken header|cannot be read"),
        "header_cut.jpg": (encoded(rgb, "JPEG")[:30], "not an image|broken header|cannot be read"),
        "header_cut.gif": (encoded(rgb, "GIF")[:9], "not an image|broken header|cannot be read"),
        "header_cut.webp": (encoded(rgb, "WEBP")[:24], "not an image|broken header|cannot be read"),
        "directory_cut.tiff": (encoded(rgb, "TIFF")[:8], "not an image|broken header|cannot be read"),
        "no_pixels.png": (_png(0, 0), "has no pixels|not an image|broken header"),
        "bomb.png": (_png(40_000, 40_000), "has more than 64,000,000 pixels"),
        "bomb_text.png": (_png(*SIZE, bomb), "broken header|not an image"),
        "bomb.bmp": (bmp[:18] + struct.pack("<ii", 60_000, 60_000) + bmp[26:], "has more than 64,000,000 pixels"),
        "phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "not an image"),
    }


def broken_bodies() -> dict[str, bytes]:
    """Files whose beginning is sound and whose pixels are not: name -> bytes."""
    noise = _noise()
    spoilt = bytearray(encoded(noise, "PNG"))
    spoilt[200:300] = bytes(100)
    return {
        "cut.jpg": _half(encoded(noise, "JPEG")),
        "cut.png": _half(encoded(noise, "PNG")),
        "cut.gif": _half(encoded(noise.convert("P"), "GIF")),
        "cut.bmp": _half(encoded(noise, "BMP")),
        "cut.tiff": _tiff_cut(noise),
        "spoilt.png": bytes(spoilt),
        "no_pixel_data.png": _png(*SIZE),
    }


def _tiff_cut(image: Image.Image) -> bytes:
    """A TIFF file whose directory, at its beginning, speaks of more pixels than follow."""
    data = encoded(image, "TIFF")
    return data[: len(data) - 9000]


def talk(question: str = "<image>\nWhat is it?", answer: str = "A gradient.") -> list[dict[str, Any]]:
    """A conversation of one exchange."""
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def broken_records(good: str) -> dict[str, tuple[Any, str]]:
    """Records that make no sense: id -> what differs from a good one of the image `good`, or the line; the reason."""
    return {
        "line_cut": (lambda line: line[:-20], "not valid JSON"),
        "line_no_json": (lambda line: b"id: line_no_json, image: x", "not valid JSON"),
        "line_deep": (lambda line: b'{"id": "line_deep", "x": ' + b"[" * 100_000, "not valid JSON"),
        "line_huge_number": (lambda line: line[:-1] + b', "n": ' + b"9" * 10_000 + b"}", "not valid JSON"),
        "line_number": (lambda line: b"12", "not an object but int"),
        "line_list": (lambda line: b"[" + line + b"]", "not an object but list"),
        "not_utf8": (lambda line: line.replace(b"gradient", b"gr\xe4dient"), "not valid UTF-8"),
        "utf16": (lambda line: line.decode().encode("utf-16-be"), "not valid JSON"),
        "half_a_surrogate": ({"conversations": talk(answer="\ud800")}, "not valid UTF-8"),
        "no_conversations": ({"conversations": None}, "no conversations"),
        "empty_conversations": ({"conversations": []}, "no conversations"),
        "conversations_text": ({"conversations": "What is it? A gradient."}, "conversations is not a list"),
        "turn_text": ({"conversations": ["What is it?"]}, "turn 1 is not an object"),
        "wrong_role": ({"conversations": [*talk(), {"from": "robot", "value": "?"}]}, "turn 3 is from 'robot'"),
        "no_role": ({"conversations": [{"value": "What?"}]}, "turn 1 has neither from nor role"),
        "no_value": ({"conversations": [{"from": "human"}]}, "the value of turn 1 is not a text"),
        "number_value": ({"conversations": [{"from": "human", "value": 3}]}, "the value of turn 1 is not a text"),
        "two_questions": ({"conversations": [*talk()[:1], *talk("And?")]}, "turns do not alternate"),
        "no_answer": ({"conversations": talk()[:1]}, "nothing to learn"),
        "empty_answer": ({"conversations": talk(answer="")}, "nothing to learn"),
        "answer_alone": ({"image": None, "conversations": talk()[1:]}, "no human turn"),
        "more_markers": ({"conversations": talk("<image><image>\nWhat?")}, "2 <image> markers for 1 image"),
        "fewer_markers": ({"image": [good, good]}, "1 <image> marker for 2 images"),
        "marker_alone": ({"image": None}, "1 <image> marker for 0 images"),
        "image_number": ({"image": 7}, "image is neither a path nor a list of paths"),
        "image_hole": ({"image": [good, None]}, "image is neither a path nor a list of paths"),
        "image_nul": ({"image": "a\0b.png"}, "an image path has a NUL character"),
        "image_folder": ({"image": "odd"}, "cannot be read"),
        "image_name_long": ({"image": "a" * 5000}, "cannot be read"),
        "too_long": ({"conversations": talk(answer="very " * 200)}, "too long"),
    }


def write_corpus(folder: Path, fixed: bool = False) -> list[Case]:
    """Writes records.jsonl and images/ below `folder` and returns the cases in the order of the lines.

    With `fixed` the records that are found while planning are not there, and in place of the files that break later
    there are sound ones of their size: what the others would be in a world without bad ones.
    """
    images = folder / "images"
    for name in ("good", "odd", "header", "body"):
        (images / name).mkdir(parents=True, exist_ok=True)
    cases = list(_cases(images, fixed))
    random.Random(0).shuffle(cases)
    cases = [case for case in cases if not (fixed and case.found == PLANNING)]
    (folder / "records.jsonl").write_bytes(b"\n".join(case.line for case in cases) + b"\n")
    save_tokenizer(train_tokenizer([turn["value"] for turn in talk()], [], 300), folder / "tokenizer")
    return cases


def _cases(images: Path, fixed: bool) -> Iterator[Case]:
    def case(id: str, found: str, reason: str, change: dict[str, Any] | Callable[[bytes], bytes]) -> Case:
        changes = {} if callable(change) else change
        record = {"id": id, "image": "good/0.png", "conversations": talk(), **changes}
        line = json.dumps({key: value for key, value in record.items() if value is not None}).encode()
        return Case(id, found, reason, change(line) if callable(change) else line)

    for number in range(16):
        (images / f"good/{number}.png").write_bytes(encoded(picture(number, (64 + 8 * number, 90)), "PNG"))
        yield case(f"good_{number}", USED, "", {"image": f"good/{number}.png"})
    yield case("good_text", USED, "", {"image": None, "conversations": talk("Well?")})
    for name, data in odd_images().items():
        (images / name).write_bytes(data)
        yield case(name, USED, "", {"image": name})
    for name, (content, reason) in broken_headers().items():
        if content is not None:
            (images / "header" / name).write_bytes(content)
        yield case(f"header/{name}", PLANNING, reason, {"image": f"header/{name}"})
    for name, data in broken_bodies().items():
        sound = encoded(picture(5), "PNG")
        (images / "body" / name).write_bytes(sound if fixed else data)
        found, reason = (USED, "") if fixed else (TRAINING, "cannot be decoded")
        yield case(f"body/{name}", found, reason, {"image": f"body/{name}"})
    for id, (change, reason) in broken_records("good/0.png").items():
        yield case(id, PLANNING, reason, change)


def corpus_config(folder: Path) -> ConfigDict:
    """A tiny stage that trains on the corpus in `folder`, once."""
    c = demo.get_config("tiny").stages.stage3
    c.data.update({"records": str(folder / "records.jsonl"), "images": str(folder / "images")})
    c.data.update({"tokenizer": str(folder / "tokenizer"), "max_tokens": 180, "row_tokens": 256, "epochs": 1})
    c.data.max_shapes = c.data.micro_batches = 1
    c.model.variant, c.train.steps, c.eval.records, c.eval.tasks, c.eval.every = "dense", 0, "", "", 0
    return c


def reported(folder: Path, cases: list[Case]) -> dict[str, list[tuple[str, str]]]:
    """(found, reason) of every line of `folder`/bad_records.jsonl, by the ids of the cases."""
    lines: dict[str, list[tuple[str, str]]] = {case.id: [] for case in cases}
    for text in (folder / BAD_RECORDS_FILE).read_text(encoding="utf-8").splitlines():
        entry = json.loads(text)
        number = int(entry["where"].rpartition(":")[2])
        lines[cases[number - 1].id].append((entry["found"], entry["reason"]))
    return lines


def wrong(cases: list[Case], lines: dict[str, list[tuple[str, str]]]) -> list[str]:
    """Ids of cases that were not reported as they should be: once with the right reason, or not at all."""
    return [
        case.id
        for case in cases
        if [found for found, _ in lines[case.id]] != [case.found] * bool(case.found)
        or not all(re.search(case.reason, reason) for _, reason in lines[case.id])
    ]


def main(folder: Path) -> int:
    """Writes the corpus, plans and builds all its rows, prints what became of each case; 1 if anything is wrong."""
    cases = write_corpus(folder)
    data = open_stage_data(corpus_config(folder), folder / "stage")
    for step in range(data.plan.steps):
        for micro_batch in data.plan.step(step):
            data.builder.build(micro_batch)
    mistakes = wrong(cases, lines := reported(folder / "stage", cases))
    table = Table("record", "found", "reason", title=f"{len(cases)} records in {folder}")
    for case in sorted(cases, key=lambda case: (case.found, case.id)):
        said = "; ".join(reason for _, reason in lines[case.id]) or "used, as a viewer shows it"
        table.add_row(case.id, case.found or "-", escape(f"WRONG: {said}" if case.id in mistakes else said))
    Console().print(table)
    print(json.dumps({"records": len(cases), "wrong": mistakes}))
    return 1 if mistakes else 0


if __name__ == "__main__":
    target = flags.DEFINE_string("to", "", "folder for the corpus; a temporary one by default")
    app.run(lambda _: main(Path(target.value or tempfile.mkdtemp(prefix="bad_corpus_"))))
