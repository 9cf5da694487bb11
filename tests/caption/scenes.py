"""Small folders of records with images, and configs of `launch.caption`, for its tests."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from benchmarks.caption_server import Asked, Reply, ScriptedEndpoint, describe
from configs import caption
from eve_jax.caption.config import CaptionConfig
from eve_jax.caption.folder import Allowed
from eve_jax.caption.write import caption_records
from eve_jax.process.progress import ProgressBar

Script = Callable[[Asked], Reply | str]


def image_file(seed: int, size: tuple[int, int] = (40, 32), kind: str = "JPEG", **options: Any) -> bytes:
    """An image file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind, **options)
    return data.getvalue()


def write_images(folder: Path, count: int, more: Mapping[int, Mapping[str, Any]] = {}) -> str:
    """Write `count` records of an image and an `alt` each, some with `more` fields; the name of the records' file."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(image_file(number))
        fields = {"id": f"r{number}", "image": f"{number}.jpg", "alt": f"alt {number}", **more.get(number, {})}
        lines.append(json.dumps(fields))
    (folder / "records.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder / "records.jsonl")


def config_dict(url: str = "http://127.0.0.1:9/v1", arg: str = "", **changes: Any) -> ConfigDict:
    """The config of configs/caption.py with `changes`, such as endpoint__tries=2."""
    c = caption.get_config(arg)
    c.endpoint.url, c.endpoint.model = url, "m"
    for path, value in changes.items():
        section, _, name = path.partition("__")
        c[section][name] = value
    return c


def config_of(url: str = "http://127.0.0.1:9/v1", arg: str = "", **changes: Any) -> CaptionConfig:
    """`config_dict`, checked."""
    return CaptionConfig.of(config_dict(url, arg, **changes))


def files_of(out: Path) -> dict[str, bytes]:
    """What a finished run left, but for the answer log and what follows the clock."""
    left_out = ("answers", "usage.json", "caption.json")
    return {p.name: p.read_bytes() for p in sorted(out.iterdir()) if p.name not in left_out}


def no_bar() -> ProgressBar:
    """A bar that shows nothing."""
    return ProgressBar("", 1, off=True)


def run(
    records: str, out: Path, script: Script = describe, new: Allowed | None = None, arg: str = "", **changes: Any
) -> tuple[dict[str, Any], ScriptedEndpoint]:
    """The funnel of a run on records whose images lie next to them, and the endpoint that it asked."""
    settings = {"write__records_per_shard": 8, **changes}
    with ScriptedEndpoint(script) as endpoint:
        endpoint.keep_requests = True
        config = config_of(endpoint.url, arg, **settings)
        return caption_records(config, records, str(Path(records).parent), out, "", new), endpoint


def rejected(out: Path) -> dict[str, tuple[str, str, str]]:
    """Stage, rule and value of the rejected records by their ids."""
    lines = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    return {line["id"]: (line["stage"], line["rule"], line["value"]) for line in lines}
