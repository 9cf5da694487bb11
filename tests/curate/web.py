"""Web-like records for curation: images as JPEG, with captions; and the curation of them without the engine."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from configs.curate import get_config
from eve_jax.curate.config import CurateConfig, EngineConfig
from eve_jax.curate.run import curate


def scene(seed: int, size: tuple[int, int] = (120, 90)) -> Image.Image:
    """An image with coarse and fine structure, another one for each seed."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (5, 6, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    fine = Image.fromarray(random.integers(0, 256, (20, 24, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    return Image.blend(coarse, fine, 0.3)


def write_web(folder: Path, images: Iterable[tuple[str, Image.Image, str]]) -> tuple[str, str]:
    """Write (id, image, caption) as records; return the names for `curate`: records, folder of images."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with (folder / "web.jsonl").open("w") as file:
        for id, image, caption in images:
            image.save(folder / "images" / f"{id}.jpg", quality=90)
            file.write(json.dumps({"id": id, "image": f"{id}.jpg", "caption": caption}) + "\n")
    return str(folder / "web.jsonl"), str(folder / "images")


def scenes(folder: Path, count: int) -> tuple[str, str]:
    """Write `count` different scenes, larger ones and smaller ones."""
    made = (
        (f"s{n}", scene(n, (70 + 5 * (n % 12), 66 + n % 30)), f"scene {n} of a kind that is {n * n}")
        for n in range(count)
    )
    return write_web(folder, made)


def tiny(**fields: Any) -> CurateConfig:
    """The config `curate:tiny` with other values: section__field=value."""
    c: ConfigDict = get_config("tiny")
    for name, value in fields.items():
        section, _, field = name.rpartition("__")
        node = c[section] if section else c
        node[field] = value
    return CurateConfig.of(c)


def in_order(make: Callable[[int], None], shards: Iterable[int], engine: EngineConfig, title: str) -> None:
    """Do what the engine does, one shard after the other in this thread."""
    for number in shards:
        make(number)


def plain(monkeypatch: Any) -> None:
    """Let `curate` work without Daft."""
    monkeypatch.setattr("eve_jax.curate.run.run", in_order)
    monkeypatch.setattr("eve_jax.curate.run.start", lambda engine: None)


def curated(config: CurateConfig, source: tuple[str, str], out: Path) -> dict[str, Any]:
    """Curate and return the funnel, which must add up."""
    funnel = curate(config, *source, out)
    check_funnel(funnel, out)
    return funnel


def check_funnel(funnel: dict[str, Any], out: Path) -> None:
    """Assert that what comes in is kept or has a line that says why not."""
    assert json.loads((out / "funnel.json").read_text()) == funnel
    lines = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    entered = funnel["in"]
    for stage in funnel["stages"]:
        assert stage["in"] == entered
        entered -= sum(stage["rejected"].values())
        assert stage["kept"] == entered
        for rule, count in stage["rejected"].items():
            assert count == sum((line["stage"], line["rule"]) == (stage["stage"], rule) for line in lines)
    assert funnel["kept"] == entered
    assert len({line["index"] for line in lines}) == len(lines) == funnel["in"] - funnel["kept"]


def files_of(out: Path) -> dict[str, bytes]:
    """What a curation leaves for others: every file below the folder but those of stages and indexes."""
    left = (
        path
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.relative_to(out).parts[0] not in ("stages", "index")
    )
    return {str(path.relative_to(out)): path.read_bytes() for path in left}
