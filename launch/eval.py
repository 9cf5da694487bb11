"""Benchmarks: score recorded outputs again.

    python -m launch.eval replay FILE [--json]

FILE is a JSON file with benchmark, protocol, rows, outputs and, where a judge grades, judge_calls; see docs/eval.md.
With --json one line is printed, with the prompts, the verdict on each row and the aggregate.
"""

import json
import sys

from absl import flags

from launch._flags import fail, run, take_action

JSON = flags.DEFINE_bool("json", False, "replay: print one line of JSON: prompts, images, per_row, aggregate")
ACTIONS = ("replay",)


def _replay(file: str) -> None:
    from eve_jax.eval.replay import replay

    result = replay(file)
    if JSON.value:
        print(json.dumps(result))
        return
    for name, value in result["aggregate"].items():
        print(f"{name}: {value}")
    print(f"{result['parse_failed']:,} of {len(result['per_row']):,} outputs could not be parsed; they count as wrong")


def _take_file(argv: list[str]) -> str:
    """Remove the file from the command line and return it."""
    files = [item for item in argv[1:] if not item.startswith("-")]
    if len(files) != 1 and not any(item.startswith("--help") or item == "--version" for item in argv):
        fail(ValueError("replay takes one file: python -m launch.eval replay FILE [--json]"))
    for file in files:
        argv.remove(file)
    return files[0] if files else ""


if __name__ == "__main__":
    take_action(sys.argv, "launch.eval", ACTIONS)
    chosen = _take_file(sys.argv)
    run(lambda: _replay(chosen))
