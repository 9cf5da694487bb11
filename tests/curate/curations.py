"""A small source of records with images of every fate, and a curation of it without Daft."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from configs.curate import get_config
from eve_jax.curate.config import CurateConfig
from eve_jax.curate.run import curate


def picture(seed: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """Return a picture of smooth colors, as different from those of other seeds as pictures are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def write_source(folder: Path, pictures: int = 40) -> Path:
    """Write records.jsonl and its images into `folder`: different pictures, two near-copies, a small, a long, a broken
    one, and a caption that two pictures have. Return the path of the former."""
    images = folder / "images"
    images.mkdir(parents=True)
    records: list[dict[str, Any]] = []

    def add(name: str, image: Image.Image | bytes, caption: str) -> None:
        if isinstance(image, bytes):
            (images / name).write_bytes(image)
        else:
            image.save(images / name)
        records.append({"id": Path(name).stem, "image": name, "caption": caption})

    for seed in range(pictures):
        add(f"p{seed:03d}.png", picture(seed), f"the picture number {seed} of a long series of them")
    add("small.png", picture(900, (40, 40)), "a picture that is too small for anybody")
    add("long.png", picture(901, (400, 70)), "a picture that is far too long for anybody")
    add("broken.png", b"\x89PNG\r\n\x1a\nnot a picture", "a file that cannot be read at all")
    add("copy.jpg", picture(3, (90, 75)), "another title for what is shown already elsewhere")
    add("same.png", picture(902), "the picture number 5 of a long series of them")
    path = folder / "records.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def curate_here(monkeypatch: pytest.MonkeyPatch, folder: Path, **changes: Any) -> Path:
    """Curate the source of `write_source` in `folder` by curate:tiny, with `changes` of its fields, in this thread.

    Returns the folder of the curation.
    """
    source = write_source(folder)
    config = get_config("tiny")
    config.update_from_flattened_dict(changes)
    monkeypatch.setattr("eve_jax.curate.run.start", lambda _: None)
    monkeypatch.setattr("eve_jax.curate.run.run", lambda make, numbers, *_: [make(number) for number in numbers])
    curate(CurateConfig.of(config), str(source), str(folder / "images"), folder / "out")
    return folder / "out"
