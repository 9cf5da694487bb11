"""Scores of benchmarks, with the answers behind them:

    python -m launch.eval --checkpoint=DIR_OR_HUB_ID --tasks=mme,pope --protocol=both --data=DIR --out=OUT [--limit=N]

asks a model. Each answer is appended to OUT/answers/TASK.jsonl at once: rerun the command to resume. --tasks also takes
.jsonl files of questions of your own, and .txt files, whose mean loss shows what language a model forgot.

    python -m launch.eval score --answers=OUT,samples.jsonl --data=DIR [--out=OTHER]

scores answers again, without a model: a folder of ours, lmms-eval's *_samples_TASK.jsonl, or lines of {"id", "answer"}
with --tasks=TASK --protocol=lmms.

    python -m launch.eval replay FILE [--json]

scores a file with benchmark, protocol, rows, outputs and, where a judge grades, judge_calls. See docs/eval.md.

    python -m launch.eval compare OUT1 OUT2 [...]

puts evaluations side by side, with the differences on their common questions.

The exit status is 1 when a question or a task failed, after everything else is done and written.
"""

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from eve_jax.batch import MOST_ROWS
from eve_jax.process.cores import MOST_WORKERS
from eve_jax.process.fetched import fetch, images
from eve_jax.process.published import in_bucket, work_folder
from launch._flags import (
    as_flag,
    define_cluster,
    define_path,
    define_paths,
    define_weights,
    fail,
    is_given,
    run,
    take_action,
)

if TYPE_CHECKING:
    from eve_jax.eval.chosen import Choice, Chosen
    from eve_jax.eval.judge import HttpJudge

CHECKPOINT_IS = (
    "folder of a trained stage, an import, a Hugging Face folder, or OWNER/NAME@REVISION of the hub; FOLDER@STEP is a "
    "stage at that step"
)
CHECKPOINT = define_path("checkpoint", None, CHECKPOINT_IS, remote=fetch)
TASKS = define_path(
    "tasks",
    "",
    "benchmarks (mme, or mme.lmms), .jsonl files of questions, .txt files; comma separated",
    several=True,
    remote=fetch,
)
PROTOCOL = flags.DEFINE_string(
    "protocol", None, "eve | lmms | both, or others that a benchmark has (lmms_ocr, lmms_judge); default: eve"
)
DATA_IS = "folder with the benchmarks' data; hub: download it from the Hugging Face hub"
DATA = define_path("data", "", DATA_IS, remote=fetch)
OUT_IS = "folder for answers and reports; an evaluation there is resumed"
OUT = define_path("out", None, OUT_IS, remote=work_folder)
LIMIT = flags.DEFINE_integer("limit", 0, "ask only the first questions of each task; 0: all", lower_bound=0)
ROWS = flags.DEFINE_integer("rows", 16, "prompts of a batch; fewer take less memory", 1, MOST_ROWS)
THREADS = flags.DEFINE_integer("threads", 4, "that read images", 1, MOST_WORKERS)
JUDGE = flags.DEFINE_string(
    "judge", "", "address of a judge, http://HOST:PORT/v1; its key is read from EVE_JUDGE_KEY or OPENAI_API_KEY"
)
JUDGE_MODEL = flags.DEFINE_string("judge_model", "", "name of the judge's model")
METRIC = flags.DEFINE_string(
    "metric", "exact", "exact | contains | numeric | vqa | letter, of own questions without one"
)
IMAGES = define_path("images", "", "folder that images of own questions are relative to", remote=images)
FIT = flags.DEFINE_enum("fit", "fill", ["fill", "shrink"], "image rule: fill (inference), shrink (as in training)")
MAX_SIZE = flags.DEFINE_integer("max_size", 0, "side of the largest image area (pixels); 0: the checkpoint's own")
TEMPLATE = flags.DEFINE_string("template", "", "qwen2 | llama3 | v1 ...; default: the checkpoint's own")
DTYPE = flags.DEFINE_string(
    "dtype", "", "of the computation: float32 (no score depends on the batch) | bfloat16 ...; default: the checkpoint's"
)
MESH = flags.DEFINE_string("mesh", "", "devices to use, as config.mesh has them; default: the first one")
WEIGHTS = define_weights()
CLUSTER = define_cluster()
ANSWERS = define_paths("answers", "score: files or folders of answers; may be given several times, or comma separated")
JSON = flags.DEFINE_bool("json", False, "replay: print one line of JSON: prompts, images, per_row, aggregate")
ACTIONS = ("score", "replay", "compare")
ASKING = "--checkpoint=..."
SCORING = ("tasks", "protocol", "data", "out", "limit", "judge", "judge_model", "metric", "images")
HOW_ASKED = ("checkpoint", "rows", "threads", "fit", "max_size", "template", "dtype", "mesh", "weights")
PROCESSES = ("coordinator", "num_processes", "process_id", "peer_timeout", "start_timeout")
APPLY = {  # the flags that each way to call the command has
    ASKING: (*SCORING, *HOW_ASKED, *PROCESSES),
    "score": ("answers", *SCORING),
    "replay": ("json",),
    "compare": (),
}


def _evaluate() -> None:
    from eve_jax.errors import name_fields
    from eve_jax.eval.report import table_lines
    from eve_jax.eval.summary import print_failures
    from eve_jax.process.connect import distributed_run, is_leader
    from eve_jax.process.places import shown
    from eve_jax.process.setup import setup

    setup(computes=True)
    _check_flags(ASKING)
    _required(checkpoint=CHECKPOINT.value, tasks=TASKS.value, out=OUT.value)
    out = Path(OUT.value or "")
    with distributed_run(CLUSTER(), out), in_bucket(out, "the evaluation"), name_fields(as_flag):
        from eve_jax.eval.run import Run, run_tasks
        from eve_jax.infer.api import EVE

        judge = _judge()
        choice = _choice(PROTOCOL.value or "eve")
        chosen = choice.open()  # before the model is loaded, which may take long
        _check_effects(chosen, choice.takes_protocol)
        checkpoint = _checkpoint(CHECKPOINT.value or "")
        eve = EVE.from_pretrained(
            checkpoint,
            FIT.value or "fill",
            MAX_SIZE.value or 0,
            template=TEMPLATE.value or "",
            mesh=MESH.value or "",
            dtype=DTYPE.value or "",
            weights=WEIGHTS.value or "",
        )
        how = Run(out, LIMIT.value or 0, ROWS.value or 1, THREADS.value or 1, judge, str(checkpoint))
        outcomes, leads = run_tasks(eve, chosen, how), is_leader()
    if leads:
        print("\n".join(table_lines(outcomes)))
        print(shown(f"see {out}"), flush=True)
        if print_failures(outcomes):
            sys.exit(1)


def _score() -> None:
    from eve_jax.eval.report import table_lines
    from eve_jax.eval.rescore import Rescore
    from eve_jax.eval.summary import print_failures
    from eve_jax.process.paths import split_names

    _check_flags("score")
    _required(answers=ANSWERS.value)
    answers = [Path(name) for given in ANSWERS.value or [] for name in split_names(given)]
    out = Path(OUT.value) if OUT.value else None
    rescore = Rescore(answers, _choice(PROTOCOL.value or ""), out, LIMIT.value or 0, _judge())
    found = rescore.open()
    _check_effects([chosen for _, chosen in found], any(rescore.takes_protocol(file) for file, _ in found))
    with in_bucket(out, "scoring") if out else nullcontext():
        outcomes = rescore.score(found)
    print("\n".join(table_lines(outcomes)))
    if print_failures(outcomes):
        sys.exit(1)


def _required(**values: Any) -> None:
    from eve_jax.errors import UserError

    if missing := [f"--{name} ({flags.FLAGS[name].help})" for name, value in values.items() if not value]:
        raise UserError(f"missing: {'; '.join(missing)}")


def _checkpoint(given: str) -> Path:
    """Return what --checkpoint names, FOLDER or FOLDER@STEP. Raise UserError that names the flag."""
    from eve_jax.checkpoint.named_step import find_checkpoint
    from eve_jax.errors import name_fields

    with name_fields(as_flag, "--checkpoint: ", f"; it takes a {CHECKPOINT_IS}"):
        return find_checkpoint(given)


def _given() -> list[str]:
    return [name for name in dict.fromkeys(name for names in APPLY.values() for name in names) if is_given(name)]


def _check_flags(action: str) -> None:
    """Raise UserError for flags of other ways to call the command; ASKING asks a checkpoint."""
    from eve_jax.errors import UserError

    wrong = []
    for name in _given():
        places = [f"launch.eval {other}" for other, names in APPLY.items() if name in names]
        if f"launch.eval {action}" not in places:
            wrong.append(f"--{name} applies to {' and '.join(places)}, not to launch.eval {action}: leave it out")
    if wrong:
        raise UserError("; ".join(wrong))


def _check_effects(chosen: "list[Chosen]", takes_protocol: bool) -> None:
    """Raise UserError for flags that have no effect on any of the tasks."""
    from eve_jax.errors import UserError
    from eve_jax.eval.effects import without_effect

    wrong = without_effect(_given(), chosen)
    if PROTOCOL.present and not takes_protocol:
        wrong.append("--protocol applies to benchmarks whose protocol is not stated by their name: leave it out")
    if wrong:
        raise UserError("; ".join(wrong))


def _choice(protocol: str) -> "Choice":
    from eve_jax.eval.chosen import Choice
    from eve_jax.process.paths import split_names

    names = split_names(TASKS.value or "")
    return Choice(names, DATA.value or "", protocol, METRIC.value or "", IMAGES.value or "", bool(JUDGE.value))


def _judge() -> "HttpJudge | None":
    from eve_jax.errors import UserError
    from eve_jax.eval.judge import HttpJudge

    if bool(JUDGE.value) != bool(JUDGE_MODEL.value):
        raise UserError("--judge=http://HOST:PORT/v1 and --judge_model=NAME go together: give both or none")
    key = os.environ.get("EVE_JUDGE_KEY") or os.environ.get("OPENAI_API_KEY") or ""
    return HttpJudge(JUDGE.value, JUDGE_MODEL.value or "", key) if JUDGE.value else None


def _replay(file: str) -> None:
    from eve_jax.eval.replay import replay

    _check_flags("replay")
    result = replay(file)
    if JSON.value:
        print(json.dumps(result))
        return
    for name, value in result["aggregate"].items():
        print(f"{name}: {value}")
    print(f"{result['parse_failed']:,} of {len(result['per_row']):,} outputs could not be parsed; they count as wrong")


def _compare(folders: list[str]) -> None:
    from eve_jax.eval.report.compare import compare_lines

    _check_flags("compare")
    print("\n".join(compare_lines(folders)))


def _take_files(argv: list[str]) -> list[str]:
    """Remove the files and folders from the command line and return them."""
    files = [item for item in argv[1:] if not item.startswith("-")]
    argv[1:] = [item for item in argv[1:] if item.startswith("-")]
    return files


def _take_file(argv: list[str]) -> str:
    """Remove the file from the command line and return it; "" where help or the version is asked for."""
    files = _take_files(argv)
    if len(files) != 1 and not any(item.startswith("--help") or item == "--version" for item in argv):
        fail(ValueError("replay takes one file: python -m launch.eval replay FILE [--json]"))
    return files[0] if files else ""


def _take_words(argv: list[str]) -> None:
    """Run what the first word asks for: an evaluation where it is a flag."""
    if len(argv) < 2 or argv[1].startswith("-"):
        run(_evaluate)
        return
    action = take_action(argv, "launch.eval", ACTIONS)
    if action == "score":
        run(_score)
    elif action == "compare":
        folders = _take_files(argv)
        run(lambda: _compare(folders))
    else:
        chosen = _take_file(argv)
        run(lambda: _replay(chosen))


if __name__ == "__main__":
    _take_words(sys.argv)
