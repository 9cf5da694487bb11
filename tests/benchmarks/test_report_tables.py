"""Every table is made of figures as its benchmark prints them."""

from typing import Any

import pytest

from benchmarks.report import BENCHMARKS
from benchmarks.report_tables import TABLES

CALL = {"asked": 10, "reads": 2, "writes": 3, "read_bytes": 5_000_000, "written_bytes": 4e6, "seconds": 0.5}
STAGE = {
    "topology": "v5e:16x16",
    "mesh": {"data": 8, "fsdp": 32, "tensor": 1},
    "micro_batches": 1,
    "rows": 256,
    "row_shape": {"name": "mixed", "patches": 3000, "specials": 100, "text": 2020},
    "hbm_peak_bytes": 12.2 * 2**30,
    "hbm_bytes": 15.75 * 2**30,
    "model_flops_per_chip": 223e12,
    "hlo_flops_per_chip": 281e12,
    "hlo_over_formula": 1.0,
    "collectives": {"all-gather": {"bytes": 2**30}, "all-reduce": {"bytes": 2**29}},
    "roofline_mfu": 0.75,
    "compiler_estimate_mfu": 0.53,
}
LOAD = {"first_p50": 0.24, "first_p99": 0.44, "token_p50": 0.014}
FIGURES: dict[str, tuple[Any, list[str]]] = {
    "data": (
        {
            "fill": {"800²": 0.97},
            "naive_fill": {"800²/padded": 0.459, "800²/grouped": 0.964},
            "plan_records_per_s_by_case": {"800²": 2.1e6},
            "plan_seconds_by_records": {"1000000": 0.45},
            "images_by_threads": {"1": {"images": 30, "own_ms": 9.9, "worker_ms": 0.0}},
            "images_by_workers": {"2": {"images": 116, "own_ms": 0.46, "worker_ms": 9.4}},
            "memory": {"100000": {"anonymous": 138.2e6, "mapped": 198.8e6, "peak": 337e6, "plan": 0.4e6}},
        },
        ["| 800² | **97.0%** | 45.9% | 96.4% | 2.10 |", "| 1,000,000 | 0.45 | 450 |", "| 2 | 116 | 0.46 | 9.40 |"],
    ),
    "data_scale": (
        {
            name: {
                **dict.fromkeys(("index", "measure", "plan", "open"), 1.0),
                **{f"{step}_peak": 333e6 for step in ("index", "measure", "plan", "open")},
                "workers_peak": 182e6,
                "read": 1,
                "size": 4,
            }
            for name in ("100000", "100 M")
        }
        | {"resumed": "32,000 of 100,000"},
        ["| 100,000 | 1.0 s (333 MB) |", "| 100 M, by the line through both |", "| 182 MB | 25.00% |"],
    ),
    "train_step": (
        {
            "seconds": {"split": 4.0, "dense": 3.2, "pytorch": 8.0},
            "tokens": 2700,
            "split_over_dense": 1.27,
            "speedup_over_torch": 2.13,
            "pairs": 15,
        },
        [
            "| `pytorch` | 8.00 | 338 | 2.00 | 2.50 |",
            "of 15: `split` over `dense` **1.27**, `pytorch` over `split` **2.13**",
        ],
    ),
    "aot": (
        {"stages": {"stage 3": STAGE, "stage 1": {"error": "it failed"}}},
        [
            "| stage 3 (v5e:16x16) | data 8, fsdp 32 | 1 x 256 x 5,120 | 12.2 of 15.75 | 223, 281 | 1.000 |",
            "| 1.5 | 75%, 53% |",
            "| stage 1 | it failed |",
        ],
    ),
    "kills": (
        {
            "undisturbed_seconds": 18.1,
            "runs": 3,
            "equal": 3,
            "ended_in": {"SIGKILL": {"a: step 2": 1}, "SIGTERM": {"a: end": 2}},
        },
        ["3 of 3 ended like the undisturbed run, of 18.1 s.", "| SIGKILL | 0 | 1 |", "| SIGTERM | 2 | 0 |"],
    ),
    "saving_stall": ({"saves": [{"held_up_s": 0.18, "written_s": 7.2}]}, ["| 1 | 0.180 s | 7.20 s | 2.5% |"]),
    "saving_memory": ({"resident_mb": {"200": 835.0, "400": 567}}, ["| resident, MB | 835 | 567 |"]),
    "hosts": (
        {
            count: {phase: {"process 0": CALL, "others": CALL} for phase in ("start", "save", "resume")}
            | {"manifest_bytes": 171}
            for count in ("1", "2")
        },
        [
            "| 1 | 5.0 | 15 | 0.5 | 4.0, 5.0 | 15 |  | 0.5 | 5.0 | 15 | 0.5 |",
            "| 2 | 5.0 | 15 | 0.5 | 4.0, 5.0 | 15 | 15 |",
        ],
    ),
    "decode": (
        {
            "first_token_s": {"v2.0": 2.2, "v1.0": 2.19, "pytorch": 3.0},
            "tokens_per_s": {"1": {"v2.0": 69, "v1.0": 70, "pytorch": 31}},
            "ttft_over_dense": 1.0,
            "ttft_speedup_over_torch": 1.34,
            "decode_rate_over_llm_1": 0.98,
            "decode_speedup_over_torch_1": 2.28,
            "rounds": 15,
        },
        [
            "| first token, s | 2.20 | 2.19 | 3.00 |",
            "| 69 | 70 | 31 |",
            "**1.34** times as fast",
            "**2.28** times at 1",
        ],
    ),
    "decode_weights": (
        {
            "rows": {
                "1": {
                    "float32": {"tokens_per_s": 35, "tokens_per_cpu_s": 34.5, "speedup": 1, "speedup_cpu": 1},
                    "int8": {"tokens_per_s": 60, "tokens_per_cpu_s": 58, "speedup": 1.7, "speedup_cpu": 1.68},
                }
            },
            "answers": {"prompts": 12, "tokens": 32, "int8": {"same": 9, "different": []}},
            "rounds": 9,
        },
        [
            "| 1 row(s) | int8 | 58.0 | **1.68** | 60.0 | 1.70 |",
            "9 of 12 greedy continuations of 32 tokens stay with int8",
        ],
    ),
    "startup": (
        {"rounds": 7, "seconds": {"this": {"import": [1.4, 1.5], "open": [2.5, 2.0]}}},
        ["| CPU s (s) | import | open |", "| this | 1.40 (1.50) | 2.50 (2.00) | **3.90** |"],
    ),
    "eval": (
        {f"questions_a_second_{n}": 7.22 for n in (1, 2, 6)}
        | {"speedup_over_transformers_1": 4.45, "two_over_one": 1.25, "rounds": 7},
        ["| 1 question(s) an image | 7.22 | **4.45** |", "| 2 question(s) an image | 7.22 |  |", "1.25 times the time"],
    ),
    "serve": (
        {
            "load": [{"server": s, "load": "text", "clients": "8", "tokens": 453, **LOAD} for s in ("8 slots", "vLLM")],
            "same": [{"server": "8 slots", "first": 0.46, "second": 0.03}],
            "long": [{"server": "8 slots", "before": 0.09, "during": 0.23}],
            "process": [{"server": "8 slots", "compiled": 0, "peak": 2.5e9}],
        },
        ["| text, 8 clients | 453 | 453 |", "| 0.24, 0.44 s; 14 ms |", "| 0.46, 0.03 s |  |", "| 0; 2.5 GB |  |"],
    ),
}
FIGURES["aot_sizes"] = FIGURES["aot"]


@pytest.mark.parametrize("name", sorted(set(TABLES) - {"images", "train_memory"}))
def test_tables(name: str) -> None:
    figures, lines = FIGURES[name]
    about = {"machine": {"processor": "A 9", "cores": 2}, "load": [1.0, 2.0], "commit": "abc"}
    text = TABLES[name](about | {"began": "2026-01-02 10:00", "figures": figures})
    assert text.startswith("2026-01-02, 2 cores of A 9, load 1 before and 2 after, commit abc:\n\n")
    for line in lines:
        assert line in text, text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert tables and all(line.count("|") == block[0].count("|") for block in tables for line in block)


def test_tables_are_of_benchmarks() -> None:
    assert set(TABLES) <= set(BENCHMARKS)
