"""The compiled steps whose speed is followed from change to change, for `benchmarks/aot.py --speed`, and their table.

Each run appends a line of JSON a case to results/aot_speed.jsonl, by date and commit.
"""

import json
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

KEPT = Path(__file__).parent / "results" / "aot_speed.jsonl"
GIB = 2**30


class Case(NamedTuple):
    """A step, and what it is to reach: seconds and GiB at most, MFU at least, each by cycles and attention at its peak.

    None: nothing is asked of it.
    """

    arguments: tuple[str, ...]
    seconds: float | None = None
    gib: float | None = None
    mfu: float | None = None

    def missed(self, summary: dict[str, Any]) -> list[str]:
        """Return what a report of `launch.compile` does not reach, in words."""
        found = [
            (self.seconds, summary.get("compiler_estimate_seconds"), 1, "{:.2f} s, at most {:.2f}"),
            (self.gib, summary["hbm_peak_bytes"] / GIB, 1, "{:.2f} GiB, at most {:.2f}"),
            (self.mfu, summary.get("compiler_estimate_mfu"), -1, "MFU {:.1%}, at least {:.0%}"),
        ]
        return [
            words.format(value, goal) if value is not None else "does not fit"
            for goal, value, sign, words in found
            if goal is not None and (value is None or sign * value > sign * goal)
        ]


def _rows(rows: int, length: int, micro_batches: int = 1) -> tuple[str, ...]:
    """The flags of a step of micro-batches of `rows` rows on all chips."""
    step = {"rows": rows, "row_tokens": length, "micro_batches": micro_batches}
    return f"--rows={rows}", f"--row_tokens={length}", *(f"--config.data.{k}={v}" for k, v in step.items())


CASES = {
    "dense, text, v5e:4x8": Case(
        ("--config=stage3", "--config.model.variant=dense", "--shape=text", "--topology=v5e:4x8", *_rows(32, 8192)),
        seconds=3.25,
        gib=9.1,
    ),
    "stage 3, v5e:16x16": Case(("--config=stage3", "--topology=v5e:16x16"), mfu=0.6),
    "stage 3, v5e:4x8": Case(("--config=stage3", "--topology=v5e:4x8", *_rows(32, 8192, 4)), gib=0.9 * 15.75),
    "stage 3, v6e:4x8": Case(("--config=stage3", "--topology=v6e:4x8", *_rows(128, 5120)), mfu=0.45),
}


def entry(case: str, more: str, day: str, summary: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of a report; `more`: arguments next to the case's own."""
    shape = summary["row_shape"]
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=KEPT.parent.parent, capture_output=True, text=True
    )
    kept = ("compiler_estimate_seconds", "compiler_estimate_mfu", "estimate_seconds", "estimate_mfu", "estimate_parts")
    return {
        "case": case,
        "day": day,
        "commit": commit.stdout.strip(),
        "libtpu": version("libtpu"),
        "more": more,
        "work": [summary["micro_batches"], summary["rows"], sum(shape[k] for k in ("patches", "specials", "text"))],
        "options": summary["compiler_options"],
        "hbm_gib": round(summary["hbm_peak_bytes"] / GIB, 2),
        "moved_gib": round(summary["hbm_bytes_moved"] / GIB, 1),
        "received_gib": round(summary["collective_bytes_received"] / GIB, 2),
        "hlo_tflop": round(summary["hlo_flops_per_chip"] / 1e12, 2),
        "cpu_seconds": round(summary["cpu_seconds"]),
        **{key: summary[key] for key in kept if key in summary},
    }


def keep(line: dict[str, Any]) -> None:
    """Append a line to what is kept."""
    with KEPT.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def entries() -> list[dict[str, Any]]:
    """Return all lines that are kept, in order."""
    return [json.loads(line) for line in KEPT.read_text(encoding="utf-8").splitlines()]


def table() -> str:
    """Return the Markdown table of all that is kept, case by case."""
    head = (
        "case, micro-batches x rows x slots",
        "day, commit",
        "options next to the case's own",
        "GiB a chip",
        "s by cycles",
        "MFU",
        "with all parts: s, MFU",
        "GiB moved in the HBM, received",
        "CPU s here",
    )
    rows = []
    for case in dict.fromkeys(line["case"] for line in entries()):
        for e in (line for line in entries() if line["case"] == case):
            fits = "compiler_estimate_seconds" in e
            rows.append(
                (
                    f"{case}, {' x '.join(map(str, e['work']))}",
                    f"{e['day']}, {e['commit']}",
                    re.sub(r"--config\.", "", e["more"]),
                    f"{e['hbm_gib']:.2f}",
                    f"{e['compiler_estimate_seconds']:.3f}" if fits else "does not fit",
                    f"{e['compiler_estimate_mfu']:.1%}" if fits else "",
                    f"{e['estimate_seconds']:.3f}, {e['estimate_mfu']:.1%}" if fits else "",
                    f"{e['moved_gib']:.0f}, {e['received_gib']:.1f}",
                    f"{e['cpu_seconds']:.0f}",
                )
            )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))
