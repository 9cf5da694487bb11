"""The loss of every record under a model:

    python -m launch.score --checkpoint=runs/demo/stage3 --records=F.jsonl --images=DIR --out=scores.jsonl

Records are read by the conventions that the checkpoint was trained with (template, order of images, training rule of
their sizes), so that the loss is the one of its training; flags override them. Writes a line a record, in their order:
{"id", "loss", "nll_sum", "n_target", "n_tokens", "n_vision"}, the loss in nats as the mean over the record's targets.
Records that cannot be scored are listed in OUT.bad.jsonl with the reason; if they are most, the status is 1. Takes a
folder of ours or a Hugging Face EVE folder.
"""

import sys
from pathlib import Path
from typing import Any

from absl import flags

from eve_jax.batch import MOST_ROWS
from eve_jax.errors import amount
from eve_jax.process.cores import MOST_WORKERS
from eve_jax.process.fetched import fetch, images
from eve_jax.process.published import sent, work_folder
from launch._flags import SPECIAL_TEXT, as_flag, define_path, define_weights, run

CHECKPOINT_IS = "folder of a trained stage (at a step: FOLDER@STEP), a Hugging Face EVE folder, or ORG/NAME of the hub"
CHECKPOINT = define_path("checkpoint", None, CHECKPOINT_IS, remote=fetch)
RECORDS = define_path(
    "records",
    None,
    "as config.data.records takes them, comma separated; \\, is a comma in a path",
    several=True,
    remote=fetch,
)
IMAGES = define_path("images", "", "folder that image paths of the records are relative to", remote=images)
OUT = define_path("out", None, "file to write (JSONL)", remote=work_folder)
TEMPLATE = flags.DEFINE_string("template", None, "plain | qwen2 | ...; default: the checkpoint's own")
FIT = flags.DEFINE_enum("fit", None, ["shrink", "fill"], "image rule; default: the one the checkpoint trained with")
MAX_SIZE = flags.DEFINE_integer("max_size", None, "side of the largest image area (pixels); default: the checkpoint's")
MAX_ASPECT = flags.DEFINE_float(
    "max_aspect", None, "longest side over shortest, longer images are squeezed; 0: never; default: the checkpoint's"
)
FIRST = flags.DEFINE_bool("image_first", None, "images of a turn to its front; default: as the checkpoint trained")
SPECIAL = flags.DEFINE_bool("special_text", None, SPECIAL_TEXT)
MAX_TOKENS = flags.DEFINE_integer(
    "max_tokens",
    None,
    "samples with more tokens are not scored; 0: all are; default: the limit an imported checkpoint states, else 0",
    lower_bound=0,
)
ROW_TOKENS = flags.DEFINE_integer("row_tokens", 4096, "slots of a packed row, more if a sample needs it", lower_bound=1)
ROWS = flags.DEFINE_integer("rows", 2, "rows of a batch; fewer rows and slots take less memory", 1, MOST_ROWS)
DTYPE = flags.DEFINE_enum(
    "dtype",
    "float32",
    ["float32", "bfloat16"],
    "of the computation; in bfloat16 a loss moves a little with the packing",
)
MESH = flags.DEFINE_string("mesh", "", "devices to use, as config.mesh has them; default: the first one")
WEIGHTS = define_weights()
THREADS = flags.DEFINE_integer("threads", 2, "that build batches", 0, MOST_WORKERS)
flags.mark_flags_as_required(["checkpoint", "records", "out"])


def main() -> None:
    from eve_jax.errors import name_fields
    from eve_jax.infer.score_files import bad_file, check_most, score_files
    from eve_jax.process.places import shown
    from eve_jax.process.setup import setup

    setup(computes=True)
    changes: dict[str, Any] = {
        "template": TEMPLATE.value,
        "fit": FIT.value,
        "max_size": MAX_SIZE.value,
        "max_aspect": MAX_ASPECT.value,
        "image_first": FIRST.value,
        "special_text": SPECIAL.value,
        "max_tokens": MAX_TOKENS.value,
        "row_tokens": ROW_TOKENS.value,
        "rows": ROWS.value,
        "threads": THREADS.value,
        "mesh": MESH.value or "",
        "weights": WEIGHTS.value or "",
    }
    out = OUT.value or ""
    with name_fields(as_flag), sent(Path(out), bad_file(out)):
        scores = score_files(
            CHECKPOINT.value or "", RECORDS.value or "", IMAGES.value or "", out, DTYPE.value or "float32", **changes
        )
    print(shown(f"scored {scores.summary()}; written to {out}"), file=sys.stderr)
    check_most(scores, out)
    if scores.bad:
        first = f"{amount(len(scores.bad), 'record')} could not be scored, the first, {scores.bad[0].described}"
        print(shown(f"{first}; see {bad_file(out)}"), file=sys.stderr)


if __name__ == "__main__":
    run(main)
