"""Attention and the loss head by themselves, for `benchmarks/aot.py`: --part=attention|head|head_time [--quick]

attention   temporary memory of forward + backward by the length of the row, one row of Qwen2.5-7B's heads, on a v5e;
            of images that see all of themselves also the tiles that the kernel visits, over those of the causal one
head        the same of the loss at 4,096 targets a chip of Qwen2.5-7B's head, which is sharded over the smallest v5e
            slice that holds stage 3: chunked, and with full float32 logits
head_time   CPU time of the two here, float32, interleaved

Prints a line of JSON. The first two need the extra `tpu`.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from absl import flags

from launch._flags import run

PART = flags.DEFINE_enum("part", None, ["attention", "head", "head_time"], "what to measure", required=True)
QUICK = flags.DEFINE_bool("quick", False, "smaller sizes")
ATTENTION_ON, HEAD_ON = "v5e:1x1", "v5e:4x8"
HEADS, KV_HEADS, HEAD_SIZE, HIDDEN, VOCAB = 28, 4, 128, 3584, 152064  # Qwen2.5-7B
TARGETS = 4096
IMAGE = 1024  # tokens of an image, where images see all of themselves
TIMED = {"targets": 1024, "hidden": 512, "vocab": 32_000}
TOKENS_A_TARGET = 3  # two thirds of a row are image


def temporaries(topology: str, function: Callable, arguments: list[tuple], label: str) -> float:
    """Bytes of temporaries on a chip of `function`, compiled for `topology`; those it requires where it does not fit.

    Each argument is a shape, a dtype and "rows", for an array whose first axis is spread over the chips, or "head".
    """
    import jax

    from eve_jax import sharding
    from eve_jax.compile.abstract import Program
    from eve_jax.compile.build import build
    from eve_jax.compile.topology import open_topology

    mesh = sharding.make_mesh("", open_topology(topology).devices)

    def placed(shape: tuple[int, ...], dtype: Any, kind: str) -> jax.ShapeDtypeStruct:
        if kind == "head":
            return jax.ShapeDtypeStruct(
                shape, dtype, sharding=sharding.parameter_sharding(mesh, ("vocab", "table"), shape)
            )
        shape = (shape[0] * mesh.size, *shape[1:])
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.batch_sharding(mesh))

    def traced(*values: Any) -> Any:
        with sharding.use(mesh):
            return function(*values)

    built = build(Program(label, jax.jit(traced), tuple(placed(*a) for a in arguments), 1, 0), label)
    return built.memory.temporaries if built.memory else built.needed


def attention() -> dict[str, Any]:
    """Temporaries by kernel and length: the kernel for TPUs also at twice the longest, the formula at the shortest."""
    import jax
    import jax.numpy as jnp

    from eve_jax.model.attention import Ahead, packed_attention
    from eve_jax.model.chunked import plain_attention

    lengths = (1024, 2048, 4096) if QUICK.value else (4096, 8192, 16384)
    of_kernel = {"splash": (*lengths, 2 * lengths[-1]), "image": lengths, "chunked": lengths, "plain": lengths[:1]}

    def plain(q: Any, k: Any, v: Any, segment: Any) -> Any:
        order = jnp.arange(q.shape[1])
        mask = (segment[:, :, None] == segment[:, None]) & (order[:, None] >= order)
        return plain_attention(q, k, v, mask)

    def image(q: Any, k: Any, v: Any, segment: Any) -> Any:
        order = jnp.arange(q.shape[1])[None]
        end = jnp.minimum(order // IMAGE * IMAGE + IMAGE - 1, q.shape[1] - 1)
        return packed_attention(q, k, v, segment, "splash", ahead=Ahead(end, IMAGE - 1))

    kernels: dict[str, Callable[..., Any]] = {
        kernel: partial(packed_attention, kernel=kernel) for kernel in ("splash", "chunked")
    }
    kernels |= {"image": image, "plain": plain}
    found: dict[str, dict[str, float]] = {}
    for kernel, forward in kernels.items():

        def gradients(q: Any, k: Any, v: Any, segment: Any, g: Any, forward: Callable = forward) -> Any:
            return jax.vjp(lambda q, k, v: forward(q, k, v, segment), q, k, v)[1](g)

        found[kernel] = {}
        for length in of_kernel[kernel]:
            q, k = (((1, length, n, HEAD_SIZE), jnp.bfloat16, "rows") for n in (HEADS, KV_HEADS))
            segment = ((1, length), jnp.int32, "rows")
            label = f"attention, {kernel}, a row of {length}"
            found[kernel][str(length)] = temporaries(ATTENTION_ON, gradients, [q, k, k, segment, q], label)
    tiles = {str(length): image_tiles(length) for length in of_kernel["image"]}
    return {"lengths": of_kernel["splash"], "temporary_bytes": found, "image_tiles_over_causal": tiles}


def image_tiles(length: int) -> float:
    """Tiles of forward and backward that the kernel visits where images see all of themselves, over causal ones.

    The compiler has no cycles of a Pallas kernel; a tile costs the same whatever of it is masked.
    """
    from eve_jax.model.splash import kernel_of

    infos = ("fwd_mask_info", "dq_mask_info", "dkv_mask_info")
    causal, image = (
        sum(int((getattr(kernel_of(length, 2, 0, reach), info).block_mask > 0).sum()) for info in infos)
        for reach in (0, IMAGE - 1)
    )
    return image / causal


def plain_loss(hidden: Any, head: Any, labels: Any, weight: Any) -> Any:
    """Weighted sum of the losses from full float32 logits."""
    import jax
    import jax.numpy as jnp

    from eve_jax.sharding import gather

    head = gather(head, ("vocab", "table"), hidden.dtype)
    logits = jnp.einsum("MD,QD->MQ", hidden, head, preferred_element_type=jnp.float32)
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]
    return -jnp.sum(picked * weight)


def chunked_loss(hidden: Any, head: Any, labels: Any, weight: Any) -> Any:
    """The same as training takes it where it is compiled for."""
    import jax.numpy as jnp

    from eve_jax.model.loss import by_targets, nll_sum, target_nll

    if by_targets():
        return nll_sum(hidden, head, labels, weight)
    return jnp.sum(target_nll(hidden, head, labels) * weight)


def head() -> dict[str, Any]:
    """Temporaries of loss and gradients."""
    import jax
    import jax.numpy as jnp

    targets, vocab = (1024, 32_000) if QUICK.value else (TARGETS, VOCAB)
    arguments = [
        ((targets, HIDDEN), jnp.bfloat16, "rows"),
        ((vocab, HIDDEN), jnp.float32, "head"),
        ((targets,), jnp.int32, "rows"),
        ((targets,), jnp.float32, "rows"),
    ]
    forms = {"chunked": chunked_loss, "full": plain_loss}
    return {
        f"{name}_temporary_bytes": temporaries(HEAD_ON, jax.value_and_grad(f, (0, 1)), arguments, f"loss head, {name}")
        for name, f in forms.items()
    } | {"targets": targets, "vocab": vocab}


def head_time() -> dict[str, Any]:
    """Medians of processor seconds, and of their ratios within each round."""
    import jax
    import jax.numpy as jnp
    from rich.console import Console
    from rich.progress import track

    rounds = 3 if QUICK.value else 9
    targets, hidden, vocab = TIMED.values()
    keys = jax.random.split(jax.random.key(0), 3)

    def arguments(n: int) -> tuple[jax.Array, ...]:
        weight = (jnp.arange(n) < targets).astype(jnp.float32)
        labels = jax.random.randint(keys[2], (n,), 0, vocab)
        return jax.random.normal(keys[0], (n, hidden)), jax.random.normal(keys[1], (vocab, hidden)), labels, weight

    few, many = arguments(targets), arguments(TOKENS_A_TARGET * targets)
    cases = {"chunked": (chunked_loss, few), "plain": (plain_loss, few), "every_token": (plain_loss, many)}
    compiled = {name: (jax.jit(jax.value_and_grad(f, (0, 1))), values) for name, (f, values) in cases.items()}
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for n in track(range(rounds + 1), "loss head", console=Console(stderr=True), transient=True):
        for name, (function, values) in compiled.items():
            start = time.process_time()
            jax.block_until_ready(function(*values))
            if n:  # the first compiles
                seconds[name].append(time.process_time() - start)
    ratios = {
        f"over_{other}": statistics.median(a / b for a, b in zip(seconds["chunked"], seconds[other], strict=True))
        for other in ("plain", "every_token")
    }
    return ratios | {"seconds": {name: statistics.median(values) for name, values in seconds.items()}, "timed": TIMED}


def main() -> None:
    os.environ["JAX_PLATFORMS"] = "cpu"
    from eve_jax.process.setup import setup

    setup()
    import jax

    jax.config.update("jax_enable_compilation_cache", False)
    print(json.dumps({"attention": attention, "head": head, "head_time": head_time}[PART.value]()))


if __name__ == "__main__":
    run(main)
