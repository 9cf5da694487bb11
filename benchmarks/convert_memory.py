"""Peak memory of a conversion: python -m benchmarks.convert_memory [--gb=3] [--folder=DIR]

Writes a synthetic EVEv2 checkpoint of about that size (bfloat16, random bits), imports it and exports it again, each
in a process of its own, and prints the peak resident memory next to the largest stacked weight. Needs three times
the size on disk, in --folder (a temporary one by default), and checks that the export has the bits of the original.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from rich.progress import track

from eve_jax.hf.export_config import hf_config
from eve_jax.hf.names import eve_v2
from eve_jax.hf.safetensors_io import TensorWriter, open_tensors
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import abstract_params
from eve_jax.model.llms import llm_sizes
from eve_jax.weights.import_export import export_checkpoint, import_checkpoint

GB = flags.DEFINE_float("gb", 3.0, "size of the synthetic checkpoint, 1e9 bytes", lower_bound=0.6)
FOLDER = flags.DEFINE_string("folder", "", 'where to write; "" = a temporary folder')
JSON = flags.DEFINE_bool("json", False, "print the figures as a line of JSON last", allow_override=True)
STEP = flags.DEFINE_enum("step", "all", ["all", "import", "export"], "what this process does (the script calls itself)")
BFLOAT16 = np.dtype(jnp.bfloat16)


def sizes(nbytes: float) -> ModelConfig:
    """Qwen2.5-1.5B's widths with every part twice, and as many layers as give about `nbytes` of bfloat16."""
    cfg = ModelConfig.from_dict(llm_sizes("qwen2.5-1.5b") | {"num_layers": 1})
    layer = sum(s.size for n, s in abstract_params(cfg).items() if n.startswith("layers.")) * BFLOAT16.itemsize
    rest = sum(s.size for s in abstract_params(cfg).values()) * BFLOAT16.itemsize - layer
    return replace(cfg, num_layers=max(round((nbytes - rest) / layer), 1))


def write_synthetic(folder: Path, cfg: ModelConfig) -> None:
    """A Hugging Face folder of random bits."""
    folder.mkdir(parents=True)
    specs = []
    for entry in eve_v2(cfg):
        shape = entry.their_shape(abstract_params(cfg)[entry.ours].shape)
        specs += [(name, BFLOAT16, shape) for name in entry.names(cfg)]
    rng = np.random.default_rng(0)
    with TensorWriter(folder, specs, 10**9) as writer:
        for name, dtype, shape in track(specs, "write random weights"):
            writer.write(name, rng.integers(0, 1 << 16, shape, np.uint16).view(dtype))
    (folder / "config.json").write_text(json.dumps(hf_config(cfg, {}, {}, BFLOAT16.name)))


def peak() -> int:
    """Largest resident memory of this process so far, bytes (Linux)."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def measured(step: str, folder: Path) -> tuple[int, float]:
    """Peak bytes and seconds of `step` in a new process."""
    start = time.time()
    command = [sys.executable, "-m", "benchmarks.convert_memory", f"--step={step}", f"--folder={folder}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.split()[-1]), time.time() - start


def same_bits(a: Path, b: Path) -> bool:
    """Whether two Hugging Face folders hold the same tensors."""
    left, right = open_tensors(a), open_tensors(b)
    return left.keys() == right.keys() and all(
        left[n].read().tobytes() == right[n].read().tobytes() for n in track(left, "compare")
    )


def largest(cfg: ModelConfig) -> int:
    """Bytes of the largest stacked weight in bfloat16."""
    return max(s.size for s in abstract_params(cfg).values()) * BFLOAT16.itemsize


def compare(folder: Path) -> None:
    """Both conversions, and what they took."""
    cfg = sizes(GB.value * 1e9)
    total = sum(s.size for s in abstract_params(cfg).values()) * BFLOAT16.itemsize
    write_synthetic(folder / "original", cfg)
    limit = 2 * largest(cfg) + 0.6e9
    print(f"model {total / 1e9:.2f} GB, {cfg.num_layers} layers, largest stacked weight {largest(cfg) / 1e9:.3f} GB")
    figures: dict[str, Any] = {"model_bytes": total, "limit_bytes": limit}
    for step in ("import", "export"):
        used, seconds = measured(step, folder)
        figures[step] = {"peak_bytes": used, "seconds": seconds}
        verdict = "within" if used <= limit else "ABOVE"
        print(f"{step}: peak {used / 1e9:.3f} GB, {verdict} 2 x largest + 0.6 = {limit / 1e9:.3f} GB; {seconds:.0f} s")
    figures["same_bits"] = same_bits(folder / "original", folder / "out")
    print(f"bits of the export: {'the same' if figures['same_bits'] else 'DIFFERENT'}")
    big = ModelConfig.from_dict(llm_sizes("qwen2.5-7b"))
    weights = sum(s.size for s in abstract_params(big).values()) * BFLOAT16.itemsize
    one = big.vocab_size * big.hidden_size * BFLOAT16.itemsize
    print(
        f"EVE-7B is {weights / 1e9:.1f} GB in bfloat16, its largest stacked weight {largest(big) / 1e9:.1f} GB; what a "
        f"conversion holds at once is one layer of one weight, or the word embedding, {one / 1e9:.1f} GB"
    )
    if JSON.value:
        print(json.dumps(figures))


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    if STEP.value == "import":
        import_checkpoint(f"{FOLDER.value}/original", f"{FOLDER.value}/ours")
        print(peak())
    elif STEP.value == "export":
        export_checkpoint(f"{FOLDER.value}/ours", f"{FOLDER.value}/out")
        print(peak())
    else:
        folder = Path(tempfile.mkdtemp(prefix="convert_memory_", dir=FOLDER.value or None))
        try:
            compare(folder)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    app.run(main)
