"""The check of a GPU, in under ten minutes: python -m benchmarks.gpu [--dry] [--rows=4] > gpu.json

kernels   each attention kernel that the card has next to the plain formula in float32: the largest distance of outputs
          and gradients, of the largest value, and the time of a forward and a backward pass
training  20 steps of stage 3 of EVEv2 on Qwen2.5-0.5B's sizes with random weights, rows of 8,192 tokens: MFU, tokens/s
decoding  answers of the trained weights to eight prompts with an image each: tokens/s, and seconds to the first token

Prints one JSON object; the status is 1 where a kernel is further off than its type explains or a loss is not finite.
--dry: everything small, kernels of other machines in their interpreters, for any machine.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from configs import base
from eve_jax import sharding
from eve_jax.batch import RowShape
from eve_jax.config.stages import partition, stage_factors, trained_groups
from eve_jax.data.rows.build import lay_out
from eve_jax.data.rows.spell import Sample
from eve_jax.data.text.encode import IGNORE, IMAGE_ID
from eve_jax.infer.engine import Engine
from eve_jax.infer.prompt import Prompt
from eve_jax.model import attention, chunked, gpu_attention
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Batch, Params, init_params, parameter_shardings
from eve_jax.model.llms import llm_sizes
from eve_jax.process.setup import setup
from eve_jax.train.flops import batch_tokens, peak_flops, step_flops
from eve_jax.train.optimizer import optimizer, optimizer_state
from eve_jax.train.schedule import schedule
from eve_jax.train.step import StepFunctions, TrainState
from launch._flags import run

DRY = flags.DEFINE_bool("dry", False, "small sizes, for any machine")
ROWS = flags.DEFINE_integer("rows", 4, "rows of a training step", lower_bound=1)
HEADS = ((14, 2, 64), (28, 4, 128))  # of Qwen2.5-0.5B and 7B: query, key/value, size
FAR = {"bfloat16": 2e-2, "float32": 2e-5}  # most that a kernel may be off
PLATFORMS = {"flash": "gpu", "cudnn": "gpu", "splash": "tpu"}
GROUP = "3"  # stage


def say(text: str) -> None:
    """Progress, on stderr."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def attended(attend: Callable[..., jax.Array], real: jax.Array) -> Callable[..., tuple[Any, ...]]:
    """Compiled: outputs of real tokens and gradients of q, k and v, of the sum of the outputs times `weight`."""

    def loss(q: jax.Array, k: jax.Array, v: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        out = attend(q, k, v).astype(jnp.float32) * real
        return jnp.sum(out * weight), out

    def both(*given: jax.Array) -> tuple[Any, ...]:
        (_, out), gradients = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(*given)
        return out, *gradients

    return jax.jit(both)


def seconds(call: Callable[[], Any], times: int) -> float:
    """Median of `times` calls, after one."""
    jax.block_until_ready(call())
    found = []
    for _ in range(times):
        start = time.perf_counter()
        jax.block_until_ready(call())
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def check_kernel(kernel: str, heads: tuple[int, int, int], dtype: str, length: int) -> dict[str, Any]:
    """A kernel next to the plain formula on two rows, of two samples and pads, and of one."""
    here = sharding.platform()
    count, kv_heads, size = heads
    if kernel == "cudnn" and not gpu_attention.takes(jnp.dtype(dtype), size, gpu_attention.compute_capability()):
        return {"skipped": "the card, the type or the heads are none that it takes"}
    interpret = PLATFORMS.get(kernel, here) != here
    if interpret and not DRY.value:
        return {"skipped": f"no kernel for {here}"}
    segment = np.zeros((2, length), np.int32)
    segment[0, : length // 3], segment[0, length // 3 : length - 40], segment[1] = 1, 2, 1
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = [(2, length, n, size) for n in (count, kv_heads, kv_heads)]
    q, k, v = (jax.random.normal(key, shape).astype(dtype) for key, shape in zip(keys, shapes, strict=False))
    weight = jax.random.normal(keys[3], q.shape)
    order, real = np.arange(length), jnp.asarray(segment > 0)[..., None, None]
    mask = jnp.asarray((segment[:, :, None] == segment[:, None]) & (order[:, None] >= order))
    given = jnp.asarray(segment)
    plain = attended(lambda q, k, v: chunked.plain_attention(q, k, v, mask), real)
    own = attended(lambda q, k, v: attention.packed_attention(q, k, v, given, kernel, interpret), real)
    wanted = plain(*(x.astype(jnp.float32) for x in (q, k, v)), weight)
    got = own(q, k, v, weight)
    pairs = zip(got, wanted, strict=True)
    far = max(float(jnp.max(jnp.abs(a.astype(jnp.float32) - b)) / jnp.max(jnp.abs(b))) for a, b in pairs)
    spent = seconds(lambda: own(q, k, v, weight), 1 if DRY.value else 10)
    return {"distance": far, "right": bool(far < FAR[dtype]), "seconds": spent, "interpreted": interpret}


def kernels() -> dict[str, Any]:
    """All kernels, by the sizes of the heads and the type."""
    found = {}
    for heads in HEADS[:1] if DRY.value else HEADS:
        for dtype in FAR:
            for kernel in ("chunked", "flash", "cudnn", *(["splash"] if DRY.value else [])):
                name = f"{kernel} {heads[0]}/{heads[1]}x{heads[2]} {dtype}"
                say(name)
                found[name] = check_kernel(kernel, heads, dtype, 256 if DRY.value else 2048)
    return found


def model() -> ModelConfig:
    """EVEv2 on Qwen2.5-0.5B's sizes, or tiny."""
    sizes = ModelConfig.from_dict(llm_sizes("tiny" if DRY.value else "qwen2.5-0.5b") | {"variant": "dac"})
    return replace(sizes, remat="attention", patch_hidden=32 if DRY.value else 1024)


def micro_batch(cfg: ModelConfig, rows: int) -> tuple[Batch, Prompt]:
    """Rows of eight samples of an image and text, 1,024 tokens each (--dry: two of 128), and a prompt with an image."""
    rng = np.random.default_rng(0)
    count, (h, w), text = (2, (4, 6), 99) if DRY.value else (8, (24, 30), 279)

    def ids(length: int) -> np.ndarray:
        return np.concatenate([[IMAGE_ID], rng.integers(10, cfg.vocab_size - 10, length)]).astype(np.int32)

    def pixels(patches: int) -> np.ndarray:
        return rng.integers(0, 256, (patches, cfg.patch_bytes), np.uint8)

    shape = RowShape(count * h * w, count * (h + 1), count * text)
    made = []
    for _ in range(rows):
        samples = [Sample(x, np.where(x == IMAGE_ID, IGNORE, x), [(h, w)]) for x in (ids(text) for _ in range(count))]
        made.append({**lay_out(samples, shape), "patches": pixels(shape.patches)})
    batch = {name: np.stack([row[name] for row in made]) for name in made[0]}
    return batch, Prompt(ids(32), [pixels(h * w)], [(h, w)])


def memory() -> int | None:
    """The most bytes of the device that were in use at a time, so far."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def training(cfg: ModelConfig, batch: Batch) -> tuple[dict[str, Any], Params]:
    """The steps, and the weights after them."""
    steps, untimed = (3, 1) if DRY.value else (20, 3)
    mesh = sharding.make_mesh("fsdp:1", jax.devices()[:1])
    rate = schedule(base.get_config().optim, steps)
    factors = stage_factors(GROUP)
    tx = optimizer(base.get_config().optim, rate, cfg, factors)
    params = jax.device_put(init_params(cfg, 0), parameter_shardings(cfg, mesh))
    trainable, frozen = partition(cfg, params, factors)
    placed = sharding.place_batch(mesh, batch, len(batch["labels"]), range(len(batch["labels"])))
    step = sharding.place(np.zeros((), np.int32), sharding.replicated(mesh))  # as it comes back: no program twice
    state = TrainState(step, trainable, optimizer_state(tx, trainable, mesh))
    functions, losses, times = StepFunctions(cfg, tx, rate, mesh), [], []
    for number in range(steps):
        start = time.perf_counter()
        state, metrics = functions(state, frozen, [placed])
        losses.append(float(metrics["loss"]))
        times.append(time.perf_counter() - start)
        say(f"step {number + 1} of {steps}: loss {losses[-1]:.4f}, {times[-1]:.2f} s")
    spent, tokens = statistics.median(times[untimed:]), batch_tokens(batch)
    flops, peak = step_flops(cfg, trained_groups(factors), tokens).useful, peak_flops(jax.devices()[0].device_kind)
    figures = {
        "parameters": sum(x.size for x in trainable.values()),
        "losses": losses,
        "right": bool(np.isfinite(losses).all()),
        "first_step_seconds": times[0],
        "step_seconds": spent,
        "tokens_per_s": tokens.total / spent,
        "mfu": flops / spent / peak if peak else None,
        "peak_bytes": memory(),
    }
    return figures, {**state.trainable, **frozen}


def decoding(cfg: ModelConfig, params: Params, prompt: Prompt) -> dict[str, Any]:
    """Greedy answers of eight equal prompts, in the computation's type."""
    engine = Engine(cfg, {name: x.astype(cfg.dtype) for name, x in params.items()})
    new, rows = (4, 2) if DRY.value else (128, 8)
    say(f"decoding {new} tokens of {rows} rows")
    first = seconds(lambda: engine.generate([prompt], 1, []), 3)
    spent = seconds(lambda: engine.generate([prompt] * rows, new, []), 3)
    answers = engine.generate([prompt] * rows, new, [])
    return {
        "right": all(len(a) == new for a in answers),
        "rows": rows,
        "first_token_seconds": first,
        "tokens_per_s": rows * new / spent,
        "peak_bytes": memory(),
    }


def main() -> None:
    setup(computes=True)
    begin = time.time()
    device = jax.devices()[0]
    found: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "device": device.device_kind,
        "compute_capability": ".".join(map(str, gpu_attention.compute_capability())),
        "jax": jax.__version__,
        "dry": DRY.value,
        "kernels": kernels(),
    }
    cfg = model()
    batch, prompt = micro_batch(cfg, 1 if DRY.value else ROWS.value)
    found["training"], params = training(cfg, batch)
    found["decoding"] = decoding(cfg, params, prompt)
    found["seconds"] = time.time() - begin
    print(json.dumps(found))
    if not all(part.get("right", True) for part in (*found["kernels"].values(), found["training"], found["decoding"])):
        sys.exit(1)


if __name__ == "__main__":
    run(main)
