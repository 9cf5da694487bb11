"""The table of docs/gpu.md: python -m benchmarks.gpus [--cards=h100,h200] [--only=7b] [--rows=FILE] [--json]

The smallest machine of each card on which a step of a stage fits, by LLM: found by `launch.compile --search`, one
process each, with rows of the longest sample and with those that the config stands for. Finished cases are kept in the
file --rows, a line of JSON each, and are not made again; the table is of all that are in it. Minutes of the processor
a case. Needs JAX's CUDA plugin (the extra `cuda`), and no GPU.
"""

import json
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.child import child
from eve_jax.compile.gpus import CARDS
from eve_jax.errors import UserError
from launch._flags import define_path, run

ON = flags.DEFINE_list("cards", ["h100"], f"which of {', '.join(CARDS)}")
ONLY = flags.DEFINE_string("only", "", "only the LLMs whose name contains this")
ROWS = define_path("rows", "", "file that keeps finished cases")
JSON = flags.DEFINE_bool("json", False, "print all cases as a line of JSON last", allow_override=True)
LLMS = ("qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-3b", "qwen2.5-7b")
STAGES = {"stage1": "stage 1", "stage2_1": "stage 2.1", "stage3": "stage 3"}
GIB = 2**30
HEAD = (
    "card",
    "EVEv2 on",
    "stage",
    "machine",
    "mesh",
    "micro-batches x rows x slots",
    "GiB a card",
    "TFLOPs a card: model, in the HLO",
    "GiB over NVLink, network",
    "step at the least",
    "MFU at most",
)


def row(case: dict[str, Any]) -> list[str]:
    """Cells of a finished case."""
    s, shape = case["found"], case["found"].get("row_shape", {})
    name = [case["card"], case["llm"].replace("qwen", "Qwen").upper().replace("QWEN", "Qwen"), STAGES[case["stage"]]]
    if "error" in s:
        return [*name, "none of those tried", *[""] * (len(HEAD) - 4)]
    received, far = s["collective_bytes_received"], s["collective_bytes_from_other_nodes"]
    slots = shape["patches"] + shape["specials"] + shape["text"]
    return [
        *name,
        s["topology"].partition(":")[2],
        ", ".join(f"{axis} {size}" for axis, size in s["mesh"].items() if size > 1) or "1 card",
        f"{s['micro_batches']} x {s['rows']} x {slots:,}",
        f"{s['hbm_peak_bytes'] / GIB:.1f} of {s['hbm_bytes'] / GIB:.1f} ({s['hbm_peak_bytes'] / s['hbm_bytes']:.0%})",
        f"{s['model_flops_per_chip'] / 1e12:,.0f}, {s['hlo_flops_per_chip'] / 1e12:,.0f}",
        f"{(received - far) / GIB:,.1f}, {far / GIB:,.1f}",
        f"{s['roofline_step_seconds']:.2f} s ({s['roofline_bound']})",
        f"{s['roofline_mfu']:.0%}",
    ]


def finished(file: Path | None) -> list[dict[str, Any]]:
    """The cases that the file has."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file and file.is_file() else []


def main() -> None:
    cards = ON.value or []
    if unknown := [card for card in cards if card not in CARDS]:
        raise UserError(f"--cards={unknown[0]}: no such card; known are {', '.join(CARDS)}")
    file = Path(ROWS.value) if ROWS.value else None
    cases = finished(file)
    done = {(case["card"], case["llm"], case["stage"]) for case in cases}
    wanted = [(c, llm, stage) for c in cards for llm in LLMS if ONLY.value in llm for stage in STAGES]
    for card, llm, stage in wanted:
        if (card, llm, stage) in done:
            continue
        found = child("launch.compile", f"--config={stage}:llm={llm}", f"--topologies={card}", "--search", "--json")
        if "error" in found and not found["last"].endswith("of the HBM"):
            raise UserError(f"{found['error']}, after: {found['last'] or 'nothing'}")
        cases.append({"card": card, "llm": llm, "stage": stage, "found": found})
        if file:
            with file.open("a") as out:
                out.write(json.dumps(cases[-1]) + "\n")
    for line in (HEAD, ["---"] * len(HEAD), *map(row, cases)):
        print(f"| {' | '.join(line)} |")
    if JSON.value:
        print(json.dumps(cases))


if __name__ == "__main__":
    run(main)
