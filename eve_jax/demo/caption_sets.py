"""Captions of other quality for the images of the demo's captions.jsonl, as in Fig. 6 of the EVEv2 paper.

CAPTIONS/web.jsonl     what the web has: file names, hashtags, one of the things, what is said of another image ...
CAPTIONS/cap.jsonl     which things there are, without where, how many, and what signs read
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random

from eve_jax.demo.assets import a
from eve_jax.demo.compose import TrainingComposer
from eve_jax.demo.dataset import Record, read_records
from eve_jax.demo.scenes import Scene
from eve_jax.demo.settings import DemoSettings
from eve_jax.demo.web import VERSION, WebCaptions, keep

SETS = ("web", "cap")


def write_caption_sets(folder: Path, data: Path, settings: DemoSettings, seed: int) -> Path:
    """Write the sets for the images of the dataset `data`, which has these settings and seed, and return `folder`.

    What is there is kept, and made anew when the arguments differ. Raises UserError where `folder` holds something
    else.
    """
    made_of = {"version": VERSION, "seed": seed, "settings": asdict(settings)}
    keep(folder, made_of, lambda made: _write(made, data, settings, seed))
    return folder


def _write(folder: Path, data: Path, settings: DemoSettings, seed: int) -> None:
    records = read_records(data / "captions.jsonl")
    composer = TrainingComposer(settings, Random(f"{seed} images"))  # as the dataset draws them
    scenes = [composer.scene() for _ in records]
    rng = Random(f"{seed} caption sets")
    web = WebCaptions(settings, scenes, [record["conversations"][-1]["value"] for record in records], rng)
    texts = {"web": map(web.caption, range(len(scenes))), "cap": (things(scene, rng) for scene in scenes)}
    for name in SETS:
        with open(folder / f"{name}.jsonl", "w", encoding="utf-8", newline="\n") as out:
            for record, text in zip(records, texts[name], strict=True):
                out.write(json.dumps(_with_caption(record, text), ensure_ascii=False) + "\n")


def _with_caption(record: Record, text: str) -> Record:
    *turns, caption = record["conversations"]
    return {**record, "conversations": [*turns, {**caption, "value": text}]}


def things(scene: Scene, rng: Random) -> str:
    """Return a caption that names what is in the image, in any order, and nothing else."""
    names = [a(kind.name) for kind in scene.counts] + (["a sign"] if scene.sign is not None else [])
    rng.shuffle(names)
    return f"The image shows {_joined(names)}."


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
