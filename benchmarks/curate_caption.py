"""Captioning under kills, errors and outages, against a scripted endpoint on this machine: figures of `launch.caption`.

    python -m benchmarks.curate_caption [--what=kills,places,outage,checks] [--images=2000 --kills=30 --seed=0] --json

kills: runs that get SIGKILL at random moments; rows and bytes against an undisturbed run, answers that were paid twice.
places: an endpoint of 16 places that takes 0.5 s and gives 500 to 2% of requests; seconds against the floor.
outage: the same without errors, away for 15 s in the middle. checks: planted faults that are found.

Each function returns a dict; `python -m benchmarks.curate` prints them with the other figures of curation. Times hold
for a machine that does nothing else. Writes a temporary folder, 20 MB.
"""

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from PIL import Image

from benchmarks.caption_server import ScriptedEndpoint
from benchmarks.caption_texts import good_caption, leaking, refusing, repetitive, unfinished
from benchmarks.curate_figures import show
from configs import caption
from eve_jax.caption.checks import Checker
from eve_jax.caption.config import CaptionConfig
from eve_jax.caption.prompts import fixed_text, parse_template
from eve_jax.caption.write import caption_records
from eve_jax.process import interrupt
from eve_jax.process.progress import tracked
from launch._flags import run

ROOT = Path(__file__).parents[1]
PLACES, SECONDS, FAULTS = 16, 0.5, 0.02
EXTRA, OVER_FLOOR = 0.05, 1.3  # requests more than images, as a share; seconds
FOUND = {"repetition": 0.95, "half_sentence": 0.95, "refusal": 1.0, "leaked_prompt": 1.0}  # shares, at least
# What differs between two runs: the log, the clock, the address, and what shows them.
KEPT = ("answers", "usage.json", "caption.json", "report.html", "report.png")


def write_images(folder: Path, count: int) -> str:
    """Write `count` records with small JPEG images of noise and web captions; return the name of the records' file."""
    folder.mkdir(parents=True)
    lines = []
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
        lines.append(json.dumps({"id": f"r{number}", "image": f"{number}.jpg", "alt": f"alt {number}"}))
    (folder / "records.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder / "records.jsonl")


def contents(out: Path) -> dict[str, bytes]:
    """Return the files of a finished run that are the same for every one."""
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.name not in KEPT}


def _command(records: str, out: Path, url: str, shard: int) -> subprocess.Popen[bytes]:
    arguments = ["--config=caption", f"--from={records}", f"--images={Path(records).parent}", f"--to={out}"]
    fields = {"endpoint.url": url, "endpoint.model": "m", "write.records_per_shard": shard}
    arguments += [f"--config.{name}={value}" for name, value in fields.items()]
    environment = os.environ | {"NO_PROXY": "127.0.0.1", "OPENAI_API_KEY": "", "EVE_CAPTION_KEY": ""}
    command = [sys.executable, "-m", "launch.caption", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)


def kills(images: int = 2000, count: int = 30, seed: int = 0, seconds: float = 0.2) -> dict[str, Any]:
    """Return what `count` SIGKILLs at random moments cost a run over `images` images.

    The kills come after random numbers of answers, spread over the run; the last run ends by itself. Keys: `identical`
    (rows and bytes as in an undisturbed run), `kills`, `kills_while_asking` (the others came while the run started or
    read the log), `asked_twice` (answers that the endpoint gave more than once),
    `most_lost_by_a_kill` (answers that were given and are not in the log), `in_flight` (connections at a kill, each
    with a request or with an answer that the run has not read, at most), `within_flight` (no kill lost more answers
    than there were connections).
    """
    folder = Path(tempfile.mkdtemp(prefix="eve-captions-"))
    random_ = random.Random(seed)
    try:
        records = write_images(folder / "in", images)
        with ScriptedEndpoint(places=PLACES, seconds=0.0) as endpoint:
            assert _command(records, folder / "whole", endpoint.url, 256).wait() == 0
        moments = sorted(random_.randrange(1, images) for _ in range(count))
        lost, open_then, killed = [0], [], 0
        with ScriptedEndpoint(places=PLACES, seconds=seconds / 4) as endpoint:
            for moment in tracked(moments, "killing runs", off=False):
                run = _command(records, folder / "out", endpoint.url, 256)
                while run.poll() is None and len(endpoint.served) < moment:
                    time.sleep(0.001)
                time.sleep(random_.random() * seconds)
                open_then.append(endpoint.connections if run.poll() is None else 0)
                if run.poll() is None:
                    os.killpg(run.pid, signal.SIGKILL)
                    killed += 1
                run.wait()
                time.sleep(seconds)  # what is in flight at the endpoint is served, and paid for
                lost.append(sum(endpoint.served.values()) - _logged(folder / "out"))
            status = _command(records, folder / "out", endpoint.url, 256).wait()
            twice = sum(endpoint.served.values()) - len(endpoint.served)
            costs = [after - before for before, after in itertools.pairwise(lost)]
            identical = status == 0 and contents(folder / "out") == contents(folder / "whole")
        within = all(cost <= there for cost, there in zip(costs, open_then, strict=True))
        return {
            "identical": identical,
            "images": images,
            "kills": killed,
            "kills_while_asking": sum(map(bool, open_then)),
            "asked_twice": twice,
            "most_lost_by_a_kill": max(costs),
            "in_flight": max(open_then),
            "within_flight": within,
            "holds": identical and within and sum(map(bool, open_then)) >= count // 2,
        }
    finally:
        shutil.rmtree(folder)


def _logged(out: Path) -> int:
    """Return how many answers are in the log of `out`."""
    return sum(file.read_bytes().count(b"\n") for file in (out / "answers").glob("*.jsonl"))


def _timed(count: int, faults: float, away: float, seed: int) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="eve-captions-"))
    try:
        records = write_images(folder / "in", count)
        floor = -(-count // PLACES) * SECONDS
        with ScriptedEndpoint(places=PLACES, seconds=SECONDS, faults=faults, seed=seed) as endpoint:
            config = caption.get_config()
            config.endpoint.url, config.endpoint.model = endpoint.url, "m"
            gone = endpoint.away(away, after=floor / 2) if away else None
            began = time.monotonic()
            funnel = caption_records(CaptionConfig.of(config), records, str(folder / "in"), folder / "out")
            took = time.monotonic() - began
            if gone is not None:
                gone.join()
            sent = sum(endpoint.received.values())
        return {"answered": funnel["kept"] / count, "sent": sent, "seconds": took, "floor": floor}
    finally:
        shutil.rmtree(folder)


def places(count: int = 600, seed: int = 0) -> dict[str, Any]:
    """Return how well an endpoint of 16 places, 0.5 s and 2% of 500s is used.

    Keys: `answered` (share), `extra_requests` (share), `seconds`, `floor` (no place ever empty), `over_floor`.
    """
    found = _timed(count, FAULTS, 0.0, seed)
    extra, over = found["sent"] / count - 1, found["seconds"] / found["floor"]
    holds = found["answered"] == 1 and extra <= EXTRA and over <= OVER_FLOOR
    return {**found, "extra_requests": extra, "over_floor": over, "holds": holds}


def outage(count: int = 600, away: float = 15.0, seed: int = 0) -> dict[str, Any]:
    """Return the seconds that an endpoint which is away for `away` seconds adds to a run: key `added_seconds`."""
    without = _timed(count, 0.0, 0.0, seed)
    found = _timed(count, 0.0, away, seed)
    added = found["seconds"] - without["seconds"]
    return {**found, "away": away, "added_seconds": added, "holds": found["answered"] == 1 and added <= 1.2 * away}


def checks(count: int = 2000) -> dict[str, Any]:
    """Return the share of `count` planted faults of each kind that the checks find, and of good captions rejected."""
    config = CaptionConfig.of(caption.get_config("densefusion"))
    prompt = fixed_text(parse_template(config.prompt.text, ""))
    checker = Checker(config.checks, prompt)

    def share(texts: list[str]) -> float:
        return sum(checker.fault(text) is not None for text in texts) / count

    seeds = range(count)
    found = {
        "repetition": share([repetitive(seed) for seed in seeds]),
        "half_sentence": share([unfinished(seed) for seed in seeds]),
        "refusal": share([refusing(seed) for seed in seeds]),
        "leaked_prompt": share([leaking(seed, prompt) for seed in seeds]),
        "good_rejected": share([good_caption(seed) for seed in seeds]),
    }
    holds = all(found[kind] >= least for kind, least in FOUND.items()) and found["good_rejected"] <= 0.01
    return {**found, "holds": holds}


def main() -> None:
    """Print what is asked for, as lines or as one line of JSON."""
    interrupt.ready()
    known = {
        "kills": lambda: kills(FLAGS.images, FLAGS.kills, FLAGS.seed),
        "places": lambda: places(seed=FLAGS.seed),
        "outage": lambda: outage(seed=FLAGS.seed),
        "checks": checks,
    }
    show(known, FLAGS.what, FLAGS.json)


FLAGS = flags.FLAGS
if __name__ == "__main__":
    flags.DEFINE_list("what", ["kills", "places", "outage", "checks"], "what is measured")
    flags.DEFINE_integer("images", 2000, "images of the run that is killed", 1)
    flags.DEFINE_integer("kills", 30, "kills", 1)
    flags.DEFINE_integer("seed", 0, "of the moments and errors")
    flags.DEFINE_bool("json", False, "print one line of JSON", allow_override=True)
    run(main)
