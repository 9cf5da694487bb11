"""Web-like images of the demo's things: captions as the web has them, files that are of no use, and the truth aside.

WEB/images/            PNG and JPEG
WEB/records.jsonl      what a crawler would know: {"id", "image", "conversations": the caption that the web has}
WEB/truth.jsonl        {"id", "caption"}: a right and complete caption of every image that is one
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from eve_jax.demo.assets import BACKGROUNDS, a
from eve_jax.demo.compose import HeldoutComposer, TrainingComposer
from eve_jax.demo.dataset import Album, Record, record_of, text_record
from eve_jax.demo.questions import caption
from eve_jax.demo.scenes import Scene, draw
from eve_jax.demo.settings import DemoSettings
from eve_jax.demo.vocabulary import Vocabulary
from eve_jax.errors import UserError
from eve_jax.process.files import folder_in_place_of, read_json, write_json

RECORDS, TRUTH, IMAGES, MARKER = "records.jsonl", "truth.jsonl", "images", "finished.json"
VERSION = 1
FILES = ("IMG_{n}.jpg", "DSC0{n}.JPG", "image{n}.png", "{thing}_{n}.jpg", "photo-{n}-large.webp")
SPAM = (
    "Click here to see more",
    "Buy now, best price",
    "untitled",
    "Image may be subject to copyright",
    "Follow us for more every day",
    "Download in HD",
)
TAGS = ("love", "cute", "photooftheday", "instagood", "art", "happy", "nofilter")


# Shares of the web's captions by what they are.
NOISE = {
    "dense": 0.10,  # complete and right
    "short": 0.25,  # one of the things
    "wrong": 0.15,  # complete, with one name, number or word in place of another of its sort
    "other": 0.15,  # what is said of another image
    "file": 0.12,  # a file name
    "tags": 0.13,  # hashtags, half of them with a thing that is there
    "spam": 0.10,  # words that stand next to any image
}


def write_web(folder: Path, settings: DemoSettings, name: str, count: int, bad: float, seed: int = 0) -> Path:
    """Write `count` web-like images of scenes such as train the demo, and return `folder`.

    name: of the set; others, and other seeds, have other scenes. bad: share of the images that are blank, a thumbnail,
    a banner or cut off. The same arguments give the same bytes; what is there is kept, and made anew when they differ.
    Raises UserError where `folder` holds something else.
    """
    made_of = {"version": VERSION, "noise": NOISE, "name": name, "count": count, "bad": bad, "seed": seed}
    keep(folder, made_of | {"settings": asdict(settings)}, lambda made: _write(made, settings, name, count, bad, seed))
    return folder


def keep(folder: Path, made_of: dict[str, Any], write: Callable[[Path], None]) -> None:
    """Have `write` make `folder`, unless it was made of the same before. Raises UserError for one of something else."""
    if (folder / MARKER).is_file() and read_json(folder / MARKER) == json.loads(json.dumps(made_of)):
        return
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise UserError(f"{folder} holds something else than images for this demo: choose another --workdir")
    with folder_in_place_of(folder) as made:
        write(made)
        write_json(made / MARKER, made_of)
        shutil.rmtree(folder, ignore_errors=True)


def _write(folder: Path, settings: DemoSettings, name: str, count: int, bad: float, seed: int) -> None:
    composer = TrainingComposer(settings, Random(f"{seed} {name} scenes"))
    rng = Random(f"{seed} {name} web")
    scenes = [composer.scene() for _ in range(count)]
    truths = [caption(scene, composer.rng) for scene in scenes]
    web = WebCaptions(settings, scenes, truths, rng)
    album = Album(settings.jpeg_share, rng)
    paths = [album.add(scene, name) for scene in scenes]
    album.draw_all(folder / IMAGES)
    records: list[Record] = []
    truth: list[Record] = []
    for number, (path, right) in enumerate(zip(paths, truths, strict=True)):
        identity = f"{name}-{number:05d}"
        records.append({**text_record(identity, web.caption(number)), "image": path})
        if rng.random() < bad:
            _spoil(folder / IMAGES / path, rng)
        else:
            truth.append({"id": identity, "caption": right})
    _write_lines(folder / RECORDS, records)
    _write_lines(folder / TRUTH, truth)


class WebCaptions:
    """What the web says about the images of `scenes`, whose right captions are `truths`."""

    def __init__(self, settings: DemoSettings, scenes: Sequence[Scene], truths: Sequence[str], rng: Random) -> None:
        self.scenes, self.truths, self.rng = scenes, truths, rng
        self._vocabulary = Vocabulary(settings)

    def caption(self, number: int) -> str:
        """Return the caption of image `number`, drawn by the shares of NOISE."""
        kind = self.rng.choices(list(NOISE), list(NOISE.values()))[0]
        makers: dict[str, Callable[[int], str]] = {
            "dense": lambda n: self.truths[n],
            "short": self._short,
            "wrong": self._wrong,
            "other": self._other,
            "file": self._file,
            "tags": self._tags,
            "spam": lambda n: self.rng.choice(SPAM),
        }
        return makers[kind](number)

    def _thing(self, number: int) -> str:
        scene = self.scenes[number]
        things = [kind.name for kind in scene.counts] + ([scene.sign.word] if scene.sign else [])
        return self.rng.choice(things)

    def _short(self, number: int) -> str:
        thing = self._thing(number)
        return self.rng.choice((thing, f"{thing} wallpaper", f"Photo of {a(thing)}" if thing.islower() else thing))

    def _wrong(self, number: int) -> str:
        return self._vocabulary.with_an_error(self.truths[number], self.rng)

    def _other(self, number: int) -> str:
        other = self.rng.randrange(len(self.scenes) - 1)
        other += other >= number
        return self.truths[other] if self.rng.random() < 0.5 else self._short(other)

    def _file(self, number: int) -> str:
        return self.rng.choice(FILES).format(n=self.rng.randrange(1000, 9999), thing=self._thing(number))

    def _tags(self, number: int) -> str:
        tags = self.rng.sample(TAGS, 2) + ([self._thing(number)] if self.rng.random() < 0.5 else [])
        return " ".join(f"#{tag}" for tag in tags)


def _spoil(file: Path, rng: Random) -> None:
    """Put what is of no use in place of an image."""
    how = rng.choice(("blank", "thumbnail", "banner", "cut off"))
    if how == "cut off":
        data = file.read_bytes()
        file.write_bytes(data[: len(data) // 2])
        return
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    if how == "blank":
        image = Image.new("RGB", image.size, rng.choice(BACKGROUNDS))
    elif how == "thumbnail":
        image.thumbnail((24, 24))
    else:
        image = image.resize((640, 64))
    image.save(file)


def read_truth(folder: Path) -> dict[str, str]:
    """Return the right captions of a folder that `write_web` wrote, by id."""
    with open(folder / TRUTH, encoding="utf-8") as lines:
        return {line["id"]: line["caption"] for line in map(json.loads, lines)}


def write_unseen(folder: Path, settings: DemoSettings, count: int, seed: int = 0) -> Path:
    """Write `count` records of images of held-out compositions with right captions, and return `folder`.

    What is there is kept, and made anew when the arguments differ, as by `write_web`.
    """
    made_of = {"version": VERSION, "count": count, "seed": seed, "settings": asdict(settings)}
    keep(folder, made_of, lambda made: _write_unseen(made, settings, count, seed))
    return folder


def _write_unseen(folder: Path, settings: DemoSettings, count: int, seed: int) -> None:
    rng = Random(f"{seed} unseen")
    scenes: list[Scene] = []
    while len(scenes) < count:
        scenes += [asked[0] for asked, _ in HeldoutComposer(settings, rng).questions() if len(asked) == 1]
    records: list[Record] = []
    (folder / IMAGES).mkdir()
    for number, scene in enumerate(scenes[:count]):
        path = f"{number:04d}.png"
        draw(scene).save(folder / IMAGES / path, compress_level=1)
        records.append(record_of(f"unseen-{number:04d}", [path], [("", caption(scene, rng))]))
    _write_lines(folder / RECORDS, records)


def _write_lines(file: Path, records: Sequence[Record]) -> None:
    with open(file, "w", encoding="utf-8") as out:
        out.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
