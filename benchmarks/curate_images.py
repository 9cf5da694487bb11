"""Curation of images next to hand-written code: CPU time, memory, the same bytes by any number of workers.

    python -m benchmarks.curate_images floor RECORDS IMAGES OUT      the hand-written code

The floor is two processes that share the records evenly and do by hand what `curate` with short_edge=448 does: decode
once, size, entropy, pHash, digest, a Parquet file of measures, and a Parquet file of the records that are left.
"""

import hashlib
import io
import json
import multiprocessing
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from eve_jax.process.progress import tracked

ROOT = Path(__file__).parents[1]
SHORT = 448
PLAIN = ["--nodraw", "--config=curate", f"--config.filter.short_edge={SHORT}", "--config.dedup.phash=-1"]
KEPT = pa.schema(
    {"id": pa.string(), "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "alt": pa.string()}
)
GROUP = 50  # records that the hand-written code writes at a time
EVERY = 0.05  # seconds between two looks at the memory


class Cost(NamedTuple):
    """CPU seconds of a command with its processes, its wall seconds, and MB of memory at the peak.

    memory: PSS of all of them. resident: RSS of all of them, which counts what they share with each other and with
    other programs in full, and so does not depend on what else runs.
    """

    cpu: float
    wall: float
    memory: float
    resident: float


def write_photos(folder: Path, count: int, side: int = 810) -> tuple[str, str]:
    """Write `count` JPEG images of some side^2 pixels with structure at all scales, and their records, unless there."""
    records, images = folder / "web.jsonl", folder / "images"
    if records.is_file():
        return str(records), str(images)
    images.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in tracked(range(count), "writing images"):
        photo(number, side).save(images / f"{number}.jpg", quality=88)
        lines.append(
            json.dumps({"id": f"r{number}", "image": f"{number}.jpg", "caption": f"photo {number} of a place"})
        )
    records.write_text("\n".join(lines) + "\n")
    return str(records), str(images)


def photo(seed: int, side: int) -> Image.Image:
    """Return an image of some side^2 pixels, half as high to twice as high as wide."""
    random = np.random.default_rng(seed)
    wide = random.uniform(0.7, 1.4)
    size = int(side * wide * random.uniform(0.6, 1.2)), int(side / wide * random.uniform(0.6, 1.2))
    image = Image.new("RGB", size)
    for cells, share in ((4, 1.0), (9, 0.5), (30, 0.35), (120, 0.2)):
        field = Image.fromarray(random.integers(0, 256, (cells, cells, 3), np.uint8))
        image = Image.blend(image, field.resize(size, Image.Resampling.BILINEAR), share)
    return image


def cost(command: list[str], env: dict[str, str] | None = None) -> Cost:
    """Run a command to its end and return what it takes. Raises CalledProcessError."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    most = resident = 0.0
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            family = [_memory(pid) for pid in _family(process.pid)]
            most, resident = max(most, sum(one for one, _ in family)), max(resident, sum(one for _, one in family))
            time.sleep(EVERY)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(cpu, time.monotonic() - began, most / 1e6, resident / 1e6)


def _family(pid: int) -> list[int]:
    """Return a process and those below it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in _family(int(child)))]


def _memory(pid: int) -> tuple[float, float]:
    """Return the bytes of a process, pages that several share divided among them, and in full."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0, 0.0
    sizes = {line.split()[0]: line.split()[1] for line in text.splitlines()[1:]}
    return 1024.0 * int(sizes["Pss:"]), 1024.0 * int(sizes["Rss:"])


def curate_command(source: tuple[str, str], out: Path, *more: str) -> list[str]:
    """Return the command that curates `source` by size alone."""
    where = [f"--from={source[0]}", f"--images={source[1]}", f"--to={out}"]
    return [sys.executable, "-m", "launch.curate", *PLAIN, *where, *more]


def against_floor(folder: Path, count: int, rounds: int = 3) -> dict[str, Any]:
    """Return CPU seconds and memory of `curate` and of the hand-written code on `count` photos, in turn, medians."""
    source = write_photos(folder / f"photos{count}", count)
    ours, floor = [], []
    for number in range(rounds):
        out = folder / f"out{number}"
        shutil.rmtree(out, ignore_errors=True)
        ours.append(cost(curate_command(source, out)))
        by_hand = folder / f"floor{number}"
        shutil.rmtree(by_hand, ignore_errors=True)
        command = [sys.executable, "-m", "benchmarks.curate_images", "floor", *source, str(by_hand)]
        floor.append(cost(command))
        _check_same(out, by_hand)
    cpu, floor_cpu = (float(np.median([one.cpu for one in several])) for several in (ours, floor))
    return {
        "images": count,
        "cpu_s": round(cpu, 2),
        "floor_cpu_s": round(floor_cpu, 2),
        "ratio": round(cpu / floor_cpu, 3),
        "memory_mb": round(max(one.memory for one in ours)),
        "resident_mb": round(max(one.resident for one in ours)),
        "floor_memory_mb": round(max(one.memory for one in floor)),
        "holds": cpu <= 1.15 * floor_cpu,
    }


def memory(folder: Path, counts: tuple[int, int], most: float = 350.0) -> dict[str, Any]:
    """Return the peak of resident memory of few and of many records of small images, which many records share."""
    small = write_photos(folder / "small", counts[0], 80)
    found = {}
    for count in counts:
        records = folder / f"small{count}.jsonl"
        with records.open("w") as file:
            for number in range(count):
                line = {"id": f"r{number}", "image": f"{number % counts[0]}.jpg", "caption": f"photo {number}"}
                file.write(json.dumps(line) + "\n")
        out = folder / f"memory{count}"
        shutil.rmtree(out, ignore_errors=True)
        command = curate_command((str(records), small[1]), out, "--config.filter.short_edge=0")
        found[str(count)] = round(cost(command).resident)
        shutil.rmtree(out)
    low, high = found.values()
    return {"resident_mb": found, "growth": round(high / low, 3), "holds": high <= most and high <= 1.25 * low}


def workers(folder: Path, count: int) -> dict[str, Any]:
    """Return whether 1 and 4 threads leave the same files."""
    source = write_photos(folder / "small", count, 80)
    left = []
    for number in (1, 4):
        out = folder / f"workers{number}"
        shutil.rmtree(out, ignore_errors=True)
        more = ["--config.filter.short_edge=0", "--config.shard_records=100", f"--config.engine.workers={number}"]
        cost(curate_command(source, out, *more))
        left.append(files_of(out))
    return {"files": len(left[0]), "holds": left[0] == left[1] and len(left[0]) > 3}


def files_of(out: Path) -> dict[str, str]:
    """Return the hashes of what a curation leaves, but for curated.json, which has the engine's settings."""
    paths = {str(path.relative_to(out)): path for path in sorted(out.rglob("*")) if path.is_file()}
    skipped = ("curated.json", "index/")
    return {
        name: hashlib.blake2b(path.read_bytes()).hexdigest()
        for name, path in paths.items()
        if not name.startswith(skipped)
    }


def _check_same(out: Path, by_hand: Path) -> None:
    """Raise ValueError unless the hand-written code left the same records and measured the same."""
    ids = pq.read_table(out / "records", columns=["id"])["id"].to_pylist()
    parts = [pq.read_table(path, columns=["id"]) for path in sorted(by_hand.glob("records*"))]
    if sorted(ids) != sorted(pa.concat_tables(parts)["id"].to_pylist()):
        raise ValueError("the hand-written code leaves other records")
    columns = ["id", "phash", "width", "entropy"]
    tables = [
        pa.concat_tables(pq.read_table(path, columns=columns) for path in sorted(paths)).sort_by("id")
        for paths in ((out / "stages").glob("measure*/*"), by_hand.glob("measures*"))
    ]
    if not tables[0].equals(tables[1].cast(tables[0].schema)):
        raise ValueError("the hand-written code measures otherwise")


def floor(records: str, images: str, to: str) -> None:
    """Do by hand what `curate` does, in two processes."""
    Path(to).mkdir()
    lines = Path(records).read_text().splitlines()
    halves = [lines[: len(lines) // 2], lines[len(lines) // 2 :]]
    running = [multiprocessing.Process(target=_half, args=(half, images, to, n)) for n, half in enumerate(halves)]
    for process in running:
        process.start()
    for process in running:
        process.join()


def _half(lines: list[str], images: str, to: str, number: int) -> None:
    frequency = np.arange(1, 9)[:, None]
    basis = np.cos(np.pi * frequency * (2 * np.arange(32) + 1) / 64)
    measures: list[dict[str, Any]] = []
    kept: list[dict[str, Any]] = []
    written = pq.ParquetWriter(Path(to, f"records{number}.parquet"), KEPT, compression="none", use_dictionary=False)
    for line in lines:
        record = json.loads(line)
        data = Path(images, record["image"]).read_bytes()
        image = Image.open(io.BytesIO(data))
        width, height = image.size
        image.draft(None, (128, 128))
        gray = image.convert("RGB").convert("L")
        small = np.asarray(gray.resize((32, 32), Image.Resampling.LANCZOS))
        low = (basis @ small.astype(np.float64) @ basis.T).ravel()
        phash = int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")
        one = {"id": record["id"], "width": width, "height": height, "bytes": len(data), "format": image.format}
        one |= {"entropy": np.float32(gray.entropy()), "brightness": float(small.mean()), "caption": record["caption"]}
        measures.append(one | {"digest": hashlib.blake2b(data, digest_size=16).hexdigest(), "phash": phash})
        if min(width, height) >= SHORT:
            kept.append({"id": record["id"], "image": {"bytes": data, "path": None}, "alt": record["caption"]})
        if len(kept) == GROUP:
            written.write_table(pa.Table.from_pylist(kept, KEPT))
            kept = []
    if kept:
        written.write_table(pa.Table.from_pylist(kept, KEPT))
    written.close()
    columns = {name: [one[name] for one in measures] for name in measures[0] if name != "phash"}
    table = pa.table(columns | {"phash": pa.array([one["phash"] for one in measures], pa.uint64())})
    pq.write_table(table, Path(to, f"measures{number}.parquet"), compression="zstd")


if __name__ == "__main__":
    if sys.argv[1:2] != ["floor"] or len(sys.argv) != 5:
        sys.exit("usage: python -m benchmarks.curate_images floor RECORDS IMAGES OUT")
    floor(*sys.argv[2:])
