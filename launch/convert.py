"""Checkpoints in and out.

    python -m launch.convert import --from=HF_DIR|hf:ORG/NAME@REVISION --to=CKPT_DIR [--variant=dense|rep|moe|dac]
    python -m launch.convert export --from=CKPT_DIR --to=HF_DIR [--dtype=bfloat16]
    python -m launch.convert export --from=CKPT_DIR --to=HF_DIR --weights=int4
    python -m launch.convert whole  --from=CKPT_DIR --to=CKPT_DIR

Takes EVEv1 and EVEv2 checkpoints (on Qwen2 and LLaMA) and plain Qwen2, Qwen2.5, LLaMA LLMs (safetensors). An import
can be chatted with, exported and named by config.init; an export loads in `transformers` with trust_remote_code=True.
`whole` copies a stage that stores only what it trained, with the rest from where it came.
"""

import sys
from pathlib import Path

from absl import flags

from eve_jax.process.fetched import fetch
from eve_jax.process.published import in_bucket, work_folder
from launch._flags import define_path, run, take_action

FROM_IS = "folder to read, or for import also hf:ORG/NAME@REVISION of the Hugging Face hub"
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
ACTIONS = ("import", "export", "whole")


def main(action: str) -> None:
    from eve_jax.process.places import shown
    from eve_jax.process.setup import setup

    setup()
    with in_bucket(Path(TO.value or ""), action):
        folder = _made(action, FROM.value or "", TO.value or "")
    print(shown(f"done: {folder}"))


def _made(action: str, origin: str, target: str) -> Path:
    from eve_jax.errors import UserError
    from eve_jax.model.quantized import QUANTIZED
    from eve_jax.weights.import_export import export_checkpoint, import_checkpoint, make_whole

    if action == "import":
        return import_checkpoint(origin, target, VARIANT.value or "", SEED.value or 0)
    if action == "whole":
        return make_whole(origin, target)
    if DTYPE.value in QUANTIZED:
        raise UserError(f"--dtype={DTYPE.value} is of no float: --weights={DTYPE.value} quantizes")
    if DTYPE.value and WEIGHTS.value:
        raise UserError("--dtype and --weights: give one of them; other weights than the matrices stay as they are")
    options = {"text_only": bool(TEXT_ONLY.value), "folded": bool(FOLD.value), "aligning": bool(ALIGNING.value)}
    return export_checkpoint(origin, target, DTYPE.value or WEIGHTS.value or "", SHARD.value or 5.0, **options)


if __name__ == "__main__":
    chosen = take_action(sys.argv, "launch.convert", ACTIONS)
    run(lambda: main(chosen))
