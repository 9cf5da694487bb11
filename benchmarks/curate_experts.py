"""Experts from end to end, and how well `launch.curate plan` predicts: figures of curation.

    python -m benchmarks.curate_experts [--what=signs,plan] [--signs=100 --records=5000 --sample=1000 --seed=0] --json

signs: images of the demo with words on signs -> OCR -> captions of a scripted endpoint that repeats what the prompt
says, with and without the block of what experts found; the share of words that are read, and that captions have.
plan: a source with planted small, broken and copied images; what `plan` predicts by a sample and a pilot against a
complete curation with captions.

Each function returns a dict; `python -m benchmarks.curate` prints them with the other figures of curation. Needs the
extras `curate` and `demo`; uses no network. Writes a temporary folder, 30 MB, or the folder --keep with the reports.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from absl import flags
from PIL import Image

from benchmarks.caption_server import Asked, Reply, ScriptedEndpoint, completion
from benchmarks.caption_texts import good_caption
from benchmarks.curate_figures import show
from configs import caption
from configs import curate as curation
from eve_jax.caption.config import CaptionConfig
from eve_jax.caption.write import caption_records
from eve_jax.curate.config import CurateConfig
from eve_jax.curate.experts.block import HEADINGS
from eve_jax.curate.plan.plan import make_plan
from eve_jax.curate.report.records import caption_of, findings_of
from eve_jax.curate.report.write import write_report
from eve_jax.curate.run import curate
from eve_jax.data.sources.records import open_records
from eve_jax.demo.compose import TrainingComposer
from eve_jax.demo.scenes import draw
from eve_jax.demo.settings import settings_of
from eve_jax.process import interrupt
from launch._flags import run

LEAST = 0.9  # share of words that are read, and that captions have
REQUESTS_OFF, TOKENS_OFF = 0.1, 0.2
Curate = Callable[[CurateConfig, str, str, Path], dict[str, Any]]


@contextmanager
def _folder(keep: str) -> Any:
    """Yield the folder to work in: `keep`, or a temporary one that is removed."""
    folder = Path(keep or tempfile.mkdtemp(prefix="eve-experts-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        if not keep:
            shutil.rmtree(folder)


def write_signs(folder: Path, count: int, seed: int, scale: int) -> tuple[str, dict[str, str]]:
    """Write `count` records with scenes of the demo that have a sign, at `scale` times the demo's size, as PNG.

    Returns the name of the records' file, and the word on the sign of each id.
    """
    settings = settings_of("full")
    composer = TrainingComposer(settings, Random(f"{seed} signs"))
    words: dict[str, str] = {}
    lines = []
    (folder / "images").mkdir(parents=True, exist_ok=True)
    while len(words) < count:
        scene = composer.scene()
        if scene.sign is None:
            continue
        name = f"sign{len(words):04d}"
        image = draw(scene)
        image = image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)
        image.save(folder / f"images/{name}.png")
        words[name] = scene.sign.word
        lines.append(json.dumps({"id": name, "image": f"{name}.png", "caption": f"photo {len(words)} from the web"}))
    (folder / "signs.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder / "signs.jsonl"), words


def repeat_lines(asked: Asked) -> str:
    """Return a caption that quotes the lines of OCR in the prompt, as a model does that takes them over."""
    _, heading, block = asked.prompt.partition(HEADINGS["ocr"] + "\n")
    lines = []
    for line in block.splitlines() if heading else ():
        if not line or line.startswith(HEADINGS["tags"]):
            break
        lines.append(line)
    said = "".join(f' The sign reads "{line}".' for line in lines)
    return f"A drawn scene on a plain ground with a board in the middle of it.{said}"


def _captioned(records: str, out: Path, config: Any, endpoint: ScriptedEndpoint) -> dict[str, Any]:
    config.endpoint.url, config.endpoint.model = endpoint.url, "scripted"
    config.checks.same = 0  # without the block all captions are the same one
    return caption_records(CaptionConfig.of(config), records, "", out)


def signs(
    count: int = 100, seed: int = 0, scale: int = 1, curate_by: Curate = curate, keep: str = ""
) -> dict[str, Any]:
    """Return how many of the words on `count` signs are read by OCR, and get into captions with and without the block.

    Keys: `word_recall` (share of signs whose word is among the words that OCR found, case aside),
    `captions_with_block`, `captions_without_block` (shares of signs whose caption has the word), `reports` (their
    paths, with `keep`), `holds`.
    """
    with _folder(keep) as folder:
        records, words = write_signs(folder, count, seed, scale)
        config = curation.get_config()
        config.experts.run = "ocr"
        config.dedup.phash = -1
        curate_by(CurateConfig.of(config), records, str(folder / "images"), folder / "curated")
        read = {
            record.id: " ".join(one["text"] for one in findings_of(record)["ocr"])
            for record in open_records(str(folder / "curated/records"))
        }
        found: dict[str, Any] = {"signs": count, "word_recall": _share_with(words, read)}
        reports = []
        for name, arg in (("with", "densefusion"), ("without", "")):
            with ScriptedEndpoint(repeat_lines) as endpoint:
                _captioned(str(folder / "curated/records"), folder / name, caption.get_config(arg), endpoint)
            captions = {record.id: caption_of(record) for record in open_records(str(folder / name))}
            found[f"captions_{name}_block"] = _share_with(words, captions)
            reports += write_report(folder / name, open_records(str(folder / "curated/records")))
        found["holds"] = found["word_recall"] >= LEAST and found["captions_with_block"] >= LEAST
        return found | {"reports": [str(path) for path in reports] if keep else []}


def _share_with(words: dict[str, str], texts: dict[str, str]) -> float:
    """Return the share of `words` that stand as a word of the text of the same id."""
    parts = {name: "".join(c if c.isalnum() else " " for c in text.casefold()).split() for name, text in texts.items()}
    return sum(word.casefold() in parts.get(name, ()) for name, word in words.items()) / len(words)


def write_source(folder: Path, count: int, seed: int) -> str:
    """Write `count` records of which some are small, broken, or copies of others; return the name of their file.

    10% have a short side below 64 pixels, 2% cannot be read, 6% are near-copies, and 4% have another's caption.
    """
    random, lines = np.random.default_rng(seed), []
    (folder / "images").mkdir(parents=True, exist_ok=True)
    kinds = random.choice(5, count, p=(0.78, 0.1, 0.02, 0.06, 0.04))
    for number, kind in enumerate(kinds.tolist()):
        other = int(random.integers(number)) if number else 0
        size = (int(random.integers(70, 160)), int(random.integers(66, 140)))
        image = _scene(other if kind == 3 else number, (60, 50) if kind == 1 else size)
        path = folder / f"images/{number}.jpg"
        image.save(path, quality=int(random.integers(70, 95)))
        if kind == 2:
            path.write_bytes(path.read_bytes()[:200])
        told = other if kind == 4 else number
        text = f"what the page number {told} says about its only photo, {told * 7919 % 10007} of them"
        lines.append(json.dumps({"id": f"r{number}", "image": f"{number}.jpg", "caption": text}))
    (folder / "web.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder / "web.jsonl")


def _scene(seed: int, size: tuple[int, int]) -> Image.Image:
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    fine = Image.fromarray(random.integers(0, 256, (24, 24, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    return Image.blend(coarse, fine, 0.3)


def moody(asked: Asked) -> Reply:
    """Answer with captions of various lengths; 15% of the images get half a sentence at first, 5% never better."""
    number = int.from_bytes(hashlib.blake2b(asked.image.encode(), digest_size=6).digest(), "big")
    details = (
        f" A small plate on the left is marked with the number {number % 9973}.",
        f" Behind it, somebody has painted {number % 8999} in large white figures on a wall.",
        f" The paper at the lower edge ends with page {number % 7919}.",
    )
    text = good_caption(number) + "".join(details[: 1 + number % 3])
    first = asked.body["seed"] == 0
    if number % 100 < 5 or (number % 100 < 15 and first):
        text = text[: len(text) // 2].rstrip(".,; ") + " and the"
    return completion(text, tokens=len(text) // 4)


def plan(
    count: int = 5000, sample: int = 1000, pilot: int = 300, seed: int = 0, curate_by: Curate = curate, keep: str = ""
) -> dict[str, Any]:
    """Return what `launch.curate plan` predicts for `count` records against what a complete run then takes.

    Keys: `requests`, `tokens`, `kept`, each [predicted, actual]; `requests_off`, `tokens_off`: shares of the actual;
    `holds`.
    """
    with _folder(keep) as folder:
        records, images = write_source(folder, count, seed), str(folder / "images")
        config = curation.get_config("tiny")
        config.shard_records = config.write.shard_records = 500
        config.select.rule, config.embed.kind, config.select.clusters = "all", "none", 0
        config.plan.sample, config.plan.pilot = sample, str(folder / "pilot")
        with ScriptedEndpoint(moody) as endpoint:
            few = _few(records, folder / "few.jsonl", pilot, seed)
            _caption_all(few, images, folder / "pilot", endpoint)
            predicted = make_plan(CurateConfig.of(config), records, images)
            curate_by(CurateConfig.of(config), records, images, folder / "curated")
            kept = _caption_all(str(folder / "curated/records"), "", folder / "captioned", endpoint)["in"]
        usage = json.loads((folder / "captioned/usage.json").read_text())
        pairs = {
            "requests": (predicted.requests, usage["requests"]),
            "tokens": (predicted.prompt_tokens + predicted.answer_tokens, usage["prompt_tokens"] + usage["tokens"]),
            "kept": (predicted.prediction.kept, kept),
        }
        off = {f"{name}_off": abs(guess / actual - 1) for name, (guess, actual) in pairs.items()}
        holds = off["requests_off"] <= REQUESTS_OFF and off["tokens_off"] <= TOKENS_OFF
        return {name: [round(guess), actual] for name, (guess, actual) in pairs.items()} | off | {"holds": holds}


def _few(records: str, path: Path, count: int, seed: int) -> str:
    """Write some of the records, drawn at random, to `path`."""
    lines = Path(records).read_text().splitlines()
    path.write_text("\n".join(Random(f"{seed} pilot").sample(lines, count)) + "\n")
    return str(path)


def _caption_all(records: str, images: str, out: Path, endpoint: ScriptedEndpoint) -> dict[str, Any]:
    config = caption.get_config()
    config.endpoint.url, config.endpoint.model = endpoint.url, "scripted"
    return caption_records(CaptionConfig.of(config), records, images, out)


def main() -> None:
    """Print what is asked for, as lines or as one line of JSON."""
    interrupt.ready()
    known = {
        "signs": lambda: signs(FLAGS.signs, FLAGS.seed, FLAGS.scale, keep=FLAGS.keep and f"{FLAGS.keep}/signs"),
        "plan": lambda: plan(FLAGS.records, FLAGS.sample, seed=FLAGS.seed, keep=FLAGS.keep and f"{FLAGS.keep}/plan"),
    }
    show(known, FLAGS.what, FLAGS.json)


FLAGS = flags.FLAGS
if __name__ == "__main__":
    flags.DEFINE_list("what", ["signs", "plan"], "what is measured")
    flags.DEFINE_integer("signs", 100, "signs that are read", 1)
    flags.DEFINE_integer("scale", 1, "size of the signs' images, times the demo's", 1)
    flags.DEFINE_integer("records", 5000, "records of the source that is planned", 1)
    flags.DEFINE_integer("sample", 1000, "records that the plan looks at", 1)
    flags.DEFINE_integer("seed", 0, "of what is drawn")
    flags.DEFINE_string("keep", "", "folder to work in, which is kept")
    flags.DEFINE_bool("json", False, "print one line of JSON", allow_override=True)
    run(main)
