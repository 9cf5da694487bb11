"""Checkpoints in and out.

    python -m launch.convert import --from=HF_DIR|ORG/NAME[@REVISION] --to=CKPT_DIR [--variant=dense|rep|moe|dac]
    python -m launch.convert export --from=CKPT_DIR --to=HF_DIR [--dtype=bfloat16]
    python -m launch.convert export --from=CKPT_DIR --to=HF_DIR --weights=int4
    python -m launch.convert export --from=CKPT_DIR --to=PEFT_DIR --peft [--base=HF_DIR]
    python -m launch.convert export --from=CKPT_DIR --to=HF_DIR --push=ORG/NAME [--license=apache-2.0] [--scores=OUT]
    python -m launch.convert whole  --from=CKPT_DIR --to=CKPT_DIR
    python -m launch.convert merge  --from=CKPT_DIR --to=CKPT_DIR

Takes EVEv1 and EVEv2 checkpoints (on Qwen2 and LLaMA) and plain Qwen2, Qwen2.5, LLaMA LLMs (safetensors). An import
can be chatted with, exported and named by config.init; an export loads in `transformers` with trust_remote_code=True.
`whole` copies a stage that stores only what it trained, with the rest from where it came; `merge` a run with adapters
(config.lora), which it adds into the weights. `export` does so, too, and with `--peft` writes the adapters
alone. All but import and `--peft` take with --ema the moving average of what trained, of a stage that kept one.
"""

import sys
from pathlib import Path

from absl import flags

from eve_jax.process.fetched import fetch
from eve_jax.process.published import in_bucket, work_folder
from launch._flags import define_path, is_given, refuse_others, run, take_action

FROM_IS = "folder to read (a stage at a step: FOLDER@STEP), or ORG/NAME[@REVISION] of the Hugging Face hub"
FROM = define_path("from", None, FROM_IS, remote=fetch)
TO = define_path("to", None, "folder to make", remote=work_folder)
VARIANT = flags.DEFINE_string("variant", "", "import: add copies of the text weights (moe | dac) or deltas (rep)")
SEED = flags.DEFINE_integer("seed", 0, "import: of the patch embedding that a plain LLM gets")
DTYPE = flags.DEFINE_string("dtype", "", "export: cast to float32 | float16 | bfloat16; else bit for bit")
SHARD = flags.DEFINE_float("max_shard_gb", 5.0, "export: largest file in 1e9 bytes", lower_bound=0.0)
WEIGHTS = flags.DEFINE_enum("weights", "", ["", "int8", "int4"], "export: quantize the layers' matrices")
TEXT_ONLY = flags.DEFINE_bool("text_only", False, "export: the plain LLM of the text weights")
flags.mark_flags_as_required(["from", "to"])
FOLD = flags.DEFINE_bool("fold", False, "export: add the deltas of variant rep into the weights (always on Qwen2)")
ALIGNING = flags.DEFINE_bool("aligning", True, "export: with EVEv1's aligning layer and teacher, if it has them")
EMA = flags.DEFINE_bool("ema", False, "export, whole, merge: the moving average of what trains (config.optim.ema)")
PEFT = flags.DEFINE_bool("peft", False, "export: the adapters of a run alone, as a folder of the library peft")
BASE = flags.DEFINE_string("base", "", "export --peft: the exported base's folder or hub id, as it is named in there")
PUSH = flags.DEFINE_string("push", "", "export: also upload it to the hub, ORG/NAME, with a card made from the run")
PRIVATE = flags.DEFINE_bool("private", True, "export: a repository that --push makes is seen by its owners alone")
LICENSE = flags.DEFINE_string("license", "", "export: of the card; default: that of the base")
SCORES = define_path(
    "scores", "", "export: --out of launch.eval whose scores the card lists, with commas", several=True
)
ACTIONS = ("import", "export", "whole", "merge")
# The actions that a flag is for; those of an export alone go without --peft.
FOR = {"variant": ("import",), "seed": ("import",), "ema": ("export", "whole", "merge")}
FOR |= dict.fromkeys(("peft", "base"), ("export",))
EXPORT_ALONE = (
    "dtype",
    "max_shard_gb",
    "weights",
    "text_only",
    "fold",
    "aligning",
    "push",
    "private",
    "license",
    "scores",
)


def main(action: str) -> None:
    from eve_jax.process.places import shown
    from eve_jax.process.setup import setup

    _check_flags(action)
    setup()
    with in_bucket(Path(TO.value or ""), action):
        folder = _made(action, FROM.value or "", TO.value or "")
    print(shown(f"done: {folder}"))


def _check_flags(action: str) -> None:
    """Raise UserError for a flag that the action would not look at."""
    from eve_jax.errors import UserError

    refuse_others(action, FOR | dict.fromkeys(EXPORT_ALONE, ("export",)))
    if PEFT.value:
        for name in (*EXPORT_ALONE, "ema"):
            if is_given(name):
                raise UserError(f"--{name} goes without --peft, which writes the adapters as they are to --to")


def _made(action: str, origin: str, target: str) -> Path:
    from eve_jax.weights.import_export import import_checkpoint, make_whole, merge_adapters
    from eve_jax.weights.peft_folder import export_peft

    if action == "import":
        return import_checkpoint(origin, target, VARIANT.value or "", SEED.value or 0)
    if action == "whole":
        return make_whole(origin, target, average=bool(EMA.value))
    if action == "merge":
        return merge_adapters(origin, target, average=bool(EMA.value))
    if PEFT.value:
        return export_peft(origin, target, BASE.value or "")
    return export(origin, target)


def export(origin: str, target: str) -> Path:
    """Make the folder `target`, and upload it where --push names a repository."""
    from eve_jax.checkpoint.named_step import find_checkpoint
    from eve_jax.errors import UserError
    from eve_jax.model.quantized import QUANTIZED
    from eve_jax.process.at_step import folder_of
    from eve_jax.process.hub import make_repository, push
    from eve_jax.process.paths import split_names
    from eve_jax.train.model_card import check_reports, write_card
    from eve_jax.weights.import_export import export_checkpoint
    from eve_jax.weights.open import open_average

    if BASE.value:
        raise UserError("--base goes with --peft")
    if DTYPE.value in QUANTIZED:
        raise UserError(f"--dtype={DTYPE.value} is of no float: --weights={DTYPE.value} quantizes")
    if DTYPE.value and WEIGHTS.value:
        raise UserError("--dtype and --weights: give one of them; other weights than the matrices stay as they are")
    for name in ("license", "scores", "private"):
        if is_given(name) and not PUSH.value:
            raise UserError(f"--{name} is of what --push=ORG/NAME uploads")
    reports = [Path(name) for name in split_names(SCORES.value or "")]
    check_reports(reports)
    if PUSH.value:
        make_repository(PUSH.value, bool(PRIVATE.value))  # now, not when all is written
    options = {"text_only": bool(TEXT_ONLY.value), "folded": bool(FOLD.value), "aligning": bool(ALIGNING.value)}
    opened = open_average(find_checkpoint(origin)) if EMA.value else origin
    folder = export_checkpoint(opened, target, DTYPE.value or WEIGHTS.value or "", SHARD.value or 5.0, **options)
    if PUSH.value:
        write_card(Path(folder_of(find_checkpoint(origin))), folder, PUSH.value, LICENSE.value or "", reports)
        print(f"pushed: {push(folder, PUSH.value)}")
    return folder


if __name__ == "__main__":
    chosen = take_action(sys.argv, "launch.convert", ACTIONS)
    run(lambda: main(chosen))
