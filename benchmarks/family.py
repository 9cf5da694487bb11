"""The table of docs/family.md: python -m benchmarks.family [--only=neo] [--rows=table.md] [--json]

What training each member of the family takes on a TPU slice that it fits: the share of the memory, the tokens of a
step, and what share of the peak the useful FLOPs can be (MFU) by the roofline, by the compiler's estimate, and by the
estimate with all its parts (docs/compile.md#what-the-figures-are). Rows are those of the config. Compiled by
`launch.compile` without compiler options, since with them it takes two to four times as long. Some five to thirty
minutes of the processor a line, the small ones first. Finished lines are kept in the file --rows and are not made
again. Needs the extra `tpu`, and no TPU.
"""

from pathlib import Path
from typing import Any

from absl import flags

from benchmarks import rows
from benchmarks.child import child
from eve_jax.batch import RowShape
from launch._flags import run

ONLY = flags.DEFINE_string("only", "", "only the lines whose config contains this")
ROWS = flags.DEFINE_string("rows", "", "file that keeps finished lines")
JSON = flags.DEFINE_bool("json", False, "print the lines as a line of JSON last", allow_override=True)
ASKED = ("--json", "--config.compile.options=")
MEMBERS = {  # and the slice
    "hundred": "v5e:2x2",
    "neo_pt": "v5e:4x4",
    "neo_mt": "v6e:4x4",  # like the next one it does not fit v5e:4x4
    "neo_sft": "v6e:4x4",  # whose row of 34,816 slots takes 115% of a v5e's memory
    "sail_sft": "v5e:4x8",
    "gemma4_sft:lora=16": "v5e:2x4",
    "neo_sft:llm=qwen3-8b": "v5p:2x2x4",
    "gemma4_sft": "v5e:4x8",
}
HEAD = (
    "| config | parameters that train, of all | slice | slots of a row | tokens of a step | memory "
    "| MFU: roofline | compiler | all parts |"
)


def line(config: str, found: dict[str, Any]) -> str:
    """A line of the table, of what `launch.compile` found or of what it ended with."""
    if "error" in found:
        raise SystemExit(f"{found['error']}, after: {found['last'] or 'nothing'}")
    share = found["hbm_peak_bytes"] / found["hbm_bytes"]
    if not found["fits"]:
        raise SystemExit(f"{config} takes {share:.0%} of the memory of {found['topology']}: give MEMBERS another slice")
    trains = found["parameters_trainable"]
    slots = sum(found["row_shape"][kind] for kind in RowShape._fields)
    cells = [
        f"`{config}`",
        f"{trains / 1e9:.3g} of {(trains + found['parameters_frozen']) / 1e9:.3g} G",
        found["topology"],
        f"{slots:,}",
        f"{found['tokens_per_step']:,}",
        f"{share:.0%}",
        *(f"{found[name]:.0%}" for name in ("roofline_mfu", "compiler_estimate_mfu", "estimate_mfu")),
    ]
    return f"| {' | '.join(cells)} |"


def measured(config: str) -> str:
    """The line of a config, compiled for its slice."""
    return line(config, child("launch.compile", f"--config={config}", f"--topology={MEMBERS[config]}", *ASKED))


def main() -> None:
    file = Path(ROWS.value) if ROWS.value else None
    lines = rows.read(file, MEMBERS)
    wanted = [config for config in MEMBERS if ONLY.value in config]
    rows.add(lines, wanted, measured, file)
    rows.show(HEAD, [lines[config] for config in wanted], JSON.value)


if __name__ == "__main__":
    run(main)
