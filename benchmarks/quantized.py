"""What quantized weights cost: python -m benchmarks.quantized --checkpoint=DIR --text=README.md,docs/model.md

Bytes of the parameters and the mean loss over the paragraphs of the text files, with whole weights, int8 and int4; of a
model of language alone (`--template=plain`), or of one that answers: a paragraph is then an answer to nothing. With
`--records=FILE --images=DIR`, the loss over the answers of records. Prints rows of a table and, last, a line of JSON.
"""

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

from absl import flags

from eve_jax.errors import UserError
from launch._flags import define_path, run

CHECKPOINT = define_path("checkpoint", None, "folder of a stage, of an import, or a Hugging Face folder")
TEXT = flags.DEFINE_list("text", [], "text files, whose paragraphs are scored")
RECORDS = define_path("records", "", "records to score instead of texts, as for launch.score")
IMAGES = define_path("images", "", "folder that their image paths are relative to")
TEMPLATE = flags.DEFINE_string("template", None, "as for launch.score; default: plain for texts, else the checkpoint's")
flags.mark_flag_as_required("checkpoint")
LEAST = 200  # characters of a paragraph


def write_records(target: Path) -> str:
    """Write the paragraphs as records and return the file's name."""
    texts = "\n\n".join(Path(name).read_text(encoding="utf-8") for name in TEXT.value or []).split("\n\n")
    chosen = [text.strip() for text in texts if len(text.strip()) >= LEAST]
    lines = (
        {"id": str(n), "conversations": [{"from": "human", "value": ""}, {"from": "gpt", "value": text}]}
        for n, text in enumerate(chosen)
    )
    target.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(target)


def size(params: dict[str, Any]) -> float:
    """Bytes of parameters where two of int4 share one."""
    import jax

    bits = (math.prod(v.shape) * (4 if v.dtype == "int4" else 8 * v.dtype.itemsize) for v in jax.tree.leaves(params))
    return sum(bits) / 8


def measure(weights: str, records: str, out: Path) -> dict[str, Any]:
    """Bytes in the types that are stored, and the loss in float32."""
    from eve_jax.infer.parameters import stored
    from eve_jax.infer.score_files import score_files
    from eve_jax.weights.open import open_checkpoint

    folder = CHECKPOINT.value or ""
    params = stored(open_checkpoint(folder), dtype="bfloat16", weights=weights)[1]
    matrices = {name: value for name, value in params.items() if hasattr(value, "qvalue")}
    found = {"weights": weights or "whole", "bytes": size(params), "quantized_bytes": size(matrices)}
    del params, matrices
    template = TEMPLATE.value or ("plain" if TEXT.value else None)
    scores = score_files(folder, records, IMAGES.value or "", out, weights=weights, template=template, quiet=True)
    targets = sum(line.n_target for line in scores.lines)
    return found | {"loss": scores.loss, "targets": targets, "records": len(scores.lines)}


def main() -> None:
    from eve_jax.process.setup import setup

    if bool(TEXT.value) == bool(RECORDS.value):
        raise UserError("give either --text=FILES or --records=FILE")
    setup(computes=True)
    with tempfile.TemporaryDirectory() as folder:
        records = RECORDS.value or write_records(Path(folder) / "text.jsonl")
        found = [measure(weights, records, Path(folder) / "scores") for weights in ("", "int8", "int4")]
    print(f"{found[0]['records']:,} records, {found[0]['targets']:,} targets", file=sys.stderr)
    print("| weights | parameters, MB | loss | change |\n|---|---|---|---|")
    for line in found:
        change = line["loss"] - found[0]["loss"]
        print(f"| {line['weights']} | {line['bytes'] / 1e6:.1f} | {line['loss']:.4f} | {change:+.4f} |")
    print(json.dumps({"found": found}), flush=True)


if __name__ == "__main__":
    run(main)
