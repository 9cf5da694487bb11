"""The figures that curation and captions are held to: python -m benchmarks.curate [--what=NAMES] [--folder=DIR] --json

Each is a key of the last line, which is JSON, with `holds` for what it is held to:

    cpu          CPU time of a curation next to hand-written code (at most 1.15 times), 5,000 photos of 0.66 MP
    memory       its memory at the peak: at most 350 MB, and no more for 200,000 records than for 2,000
    workers      1 and 4 threads leave the same bytes      ray   so do the native runner and two nodes of Ray
    kills        30 SIGKILLs at random moments leave the same bytes
    bad_corpus   every bad file and record of benchmarks.bad_corpus is named; the funnel adds up
    kmeans       within 0.5% of faiss's objective at 1.5 times its CPU time    devices   8 devices are one to 1e-5
    million      1M x 512 into 1,000 clusters within 6 GB
    near_copies  recall and precision of 0.99 on planted ones    selection   nearest:300 as by hand on 20,000
    install      the native engine and the extra `curate`, with all that they require, take at most 450 MB
    captions, experts   the figures of benchmarks.curate_caption and benchmarks.curate_experts

What students learn from the captions is by `python -m launch.recipe --config=engine_demo`.
A complete run takes hours of a free machine; `cpu` and `kmeans` are of a machine that does nothing else.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks import bad_corpus, curate_clusters, curate_engines, curate_images, curate_install
from benchmarks.child import child
from benchmarks.curate_corpus import OTHERWISE, named
from configs.curate import get_config
from eve_jax.errors import UserError
from eve_jax.process import interrupt
from launch._flags import run

WHAT = flags.DEFINE_list("what", [], "names of the figures; default: all")
FOLDER = flags.DEFINE_string("folder", "", "where images and outputs lie; default: a temporary folder")
PHOTOS = flags.DEFINE_integer("photos", 5000, "cpu: photos", lower_bound=10)
ROUNDS = flags.DEFINE_integer("rounds", 3, "cpu: rounds, of which the medians count", lower_bound=1)
RECORDS = flags.DEFINE_list("records", ["2000", "200000"], "memory: few and many records")
JSON = flags.DEFINE_bool("json", False, "print one line of JSON, last", allow_override=True)


def corpus(folder: Path) -> dict[str, Any]:
    """Return how many bad files and records are named with their reason, and what the run makes of the others."""
    from eve_jax.curate.config import CurateConfig
    from eve_jax.curate.run import curate

    cases = bad_corpus.write_corpus(folder)
    config = get_config()
    config.filter.min_words, config.filter.max_words, config.dedup.phash = 1, 150, -1
    funnel = curate(CurateConfig.of(config), str(folder / "records.jsonl"), str(folder / "images"), folder / "out")
    lines = [json.loads(line) for line in (folder / "out/rejected.jsonl").read_text().splitlines()]
    said = {line["index"]: line for line in lines}
    unnamed = [case.id for number, case in enumerate(cases) if case.found and not named(case, said.get(number))]
    lost = [case.id for n, case in enumerate(cases) if not case.found and n in said and case.id not in OTHERWISE]
    adds_up = funnel["in"] == funnel["kept"] + sum(sum(s["rejected"].values()) for s in funnel["stages"])
    adds_up = adds_up and len(said) == len(lines) == funnel["in"] - funnel["kept"]
    bad = sum(bool(case.found) for case in cases)
    return {"bad": bad, "unnamed": unnamed, "lost": lost, "holds": adds_up and not unnamed and not lost}


def measured(folder: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what measures each figure, by its name."""
    few, many = (int(one) for one in RECORDS.value)
    return {
        "cpu": lambda: curate_images.against_floor(folder, PHOTOS.value, ROUNDS.value),
        "memory": lambda: curate_images.memory(folder, (few, many)),
        "workers": lambda: curate_images.workers(folder, 2000),
        "ray": lambda: curate_engines.ray(folder),
        "kills": lambda: curate_engines.kills(folder),
        "bad_corpus": lambda: corpus(folder / "corpus"),
        "kmeans": curate_clusters.against_faiss,
        "devices": curate_clusters.devices,
        "million": curate_clusters.a_million,
        "near_copies": curate_clusters.near_copies,
        "selection": curate_clusters.selection,
        "install": curate_install.installed,
        "captions": lambda: child("benchmarks.curate_caption", "--json"),
        "experts": lambda: child("benchmarks.curate_experts", "--json"),
    }


def main() -> None:
    """Measure, print a line each, and all of them as JSON."""
    interrupt.ready()
    folder = Path(FOLDER.value or tempfile.mkdtemp(prefix="eve-curate-"))
    known = measured(folder)
    unknown = [name for name in WHAT.value if name not in known]
    if unknown:
        raise UserError(f"--what={unknown[0]}: expected some of {', '.join(known)}")
    found = {}
    for name in WHAT.value or known:
        found[name] = known[name]()
        print(f"{name:12} {found[name]}", flush=True)
    if JSON.value:
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    run(main)
