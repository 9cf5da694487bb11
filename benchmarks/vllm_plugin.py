"""Questions about images by vLLM with the plugin, and by the engine: python -m benchmarks.vllm_plugin --python=PATH

PATH is the Python of an environment with vLLM (docs/vllm.md). The model of train_step.py (512 wide, 8 layers, variant
dac, float32) with a tokenizer of bytes; --count questions at once, each with an image of its own (14 x 14 patches: 211
tokens) and some 230 tokens of text, --new tokens of answer whatever they are, greedy, two threads, no prefix cache.

vllm        as the plugin is: tokens gathered by modality
vllm_where  both branches for every token in every step and `torch.where`, as static shapes would need
engine      `Engine.generate` of all questions as one batch

Prints the median of --rounds of the seconds of one token each (prefill) and of all, and tokens a second of decoding.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

SIDE, QUESTION = 14 * 32, "What is on the left of the image, and what is next to it?"
SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "OMP_NUM_THREADS": "2",
}
Answer = Callable[[int], Any]


def images(count: int) -> list[Any]:
    """Different images, whose size the rule keeps."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)) for _ in range(count)]


def timed(answer: Answer, new: int, rounds: int) -> dict[str, float]:
    """Median seconds of `answer(n)`, with one token and with `new`; what runs first is not counted."""
    seconds: dict[int, list[float]] = {1: [], new: []}
    for number in range(rounds + 1):
        for n, found in seconds.items():
            start = time.perf_counter()
            answer(n)
            found += [time.perf_counter() - start] * (number > 0)
    return {"prefill": statistics.median(seconds[1]), "all": statistics.median(seconds[new])}


def vllm_side(task: dict[str, Any]) -> None:
    """Runs in the environment of vLLM."""
    import torch
    from vllm import LLM, SamplingParams

    if task["where"]:
        from eve_vllm import layers

        def both(text: Any, vision: Any, x: Any, tokens: Any) -> Any:
            if vision is None:
                return text(x)
            mask = torch.zeros(len(x), 1, dtype=torch.bool)
            if tokens.vision is not None:
                mask[tokens.vision] = True
            return torch.where(mask, vision(x), text(x))

        layers.routed = both
    torch.set_num_threads(2)
    llm = LLM(
        task["folder"],
        dtype="float32",
        enforce_eager=True,
        max_model_len=1024,
        max_num_batched_tokens=8192,
        enable_prefix_caching=False,
    )
    content = [{"type": "text", "text": QUESTION}]
    asked = [
        [{"role": "user", "content": [{"type": "image_pil", "image_pil": image}, *content]}]
        for image in images(task["count"])
    ]

    def answer(new: int) -> Any:
        return llm.chat(asked, SamplingParams(temperature=0.0, max_tokens=new, ignore_eos=True), use_tqdm=False)

    print(json.dumps(timed(answer, task["new"], task["rounds"])))


def engine_side(folder: Path, count: int, new: int, rounds: int) -> dict[str, float]:
    from eve_jax import EVE

    eve = EVE.from_pretrained(folder, fit="shrink", dtype="float32")

    def answer(n: int) -> Any:
        prompts = [eve.prompt(QUESTION, image) for image in images(count)]
        return eve.engine.generate(prompts, n, [])

    return timed(answer, new, rounds)


def write_export(folder: Path, layers: int = 0) -> Path:
    """The model of the speed benchmarks, exported; `layers`: with fewer of them."""
    from benchmarks import workload
    from eve_jax.weights.import_export import export_checkpoint
    from tests.data.synthetic import byte_tokenizer

    cfg = workload.config("dac")
    cfg = replace(cfg, num_layers=layers or cfg.num_layers)
    source = workload.write_folder(folder / "hf", cfg, workload.params(cfg))
    byte_tokenizer().save(source)
    config = json.loads((source / "config.json").read_text())
    config["eve_jax"] |= {"max_size": 800, "inference_fit": "shrink"}
    (source / "config.json").write_text(json.dumps(config))
    return export_checkpoint(source, folder / "out", quiet=True)


def install(python: str, folder: Path) -> Path:
    """Install the plugin for `python` into a folder of its own, which is returned."""
    site = folder / "site"
    shutil.copytree(Path(__file__).parents[1] / "eve_vllm", folder / "eve_vllm")
    pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", f"--target={site}"]
    subprocess.run([python, *pip, str(folder / "eve_vllm")], check=True)
    return site


def environment(site: Path) -> dict[str, str]:
    """Variables of a process that finds the plugin in `site`."""
    return os.environ | SETTINGS | {"PYTHONPATH": str(site)}


def main() -> None:
    from absl import app, flags

    python = flags.DEFINE_string("python", None, "Python of an environment with vLLM", required=True)
    count = flags.DEFINE_integer("count", 8, "questions at once", lower_bound=1)
    new = flags.DEFINE_integer("new", 64, "tokens of an answer", lower_bound=2)
    rounds = flags.DEFINE_integer("rounds", 3, "rounds that are timed", lower_bound=1)

    def run(argv: list[str]) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            out = write_export(folder)
            env = environment(install(python.value, folder))
            task = {"folder": str(out), "count": count.value, "new": new.value, "rounds": rounds.value}
            found = {}
            for where in (False, True):
                command = [python.value, str(Path(__file__).resolve()), json.dumps(task | {"where": where})]
                done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
                found["vllm_where" if where else "vllm"] = json.loads(done.stdout.splitlines()[-1])
            found["engine"] = engine_side(out, count.value, new.value, rounds.value)
        for side, seconds in found.items():
            rate = count.value * (new.value - 1) / (seconds["all"] - seconds["prefill"])
            print(f"{side:10}  prefill {seconds['prefill']:.2f} s  all {seconds['all']:.2f} s  {rate:.1f} tokens/s")
        print(json.dumps(found))

    app.run(run)


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        vllm_side(json.loads(sys.argv[1]))
    else:
        main()
