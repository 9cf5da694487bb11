"""A training step next to what a user would take instead: python -m benchmarks.train_step [--pairs=15] [--json]

Four samples of 300, 500, 800 and 1,100 tokens, 69% of them of an image each, in float32 on all cores; D 512, F 1408, 8
layers, 8 heads, 4 of keys and values, vocabulary 8192, everything trains, AdamW with clipping. In every round, in turn:

split         ours: packed rows, a token meets the weights of its modality, loss at the targets alone
dense         the same rows and loss through a model of one set of weights (58% of the parameters): the lower bound
dense logits  the same, but with float32 logits and log-softmax for every token, as a plain LLM's training has them
masked        ours with both branches for every token and a mask, the original's routing
pytorch       the modeling file that an export carries, masked, samples padded to the longest, float32 logits for every
              token, scaled_dot_product_attention, torch.optim.AdamW

Prints medians, ratios of a round with their middle half, and how the speed-up over PyTorch divides into arithmetic that
is not done and the rate at which it is done, with matrix products of the layers' sizes timed in both. With --json the
last line is JSON. 15 rounds take about ten minutes on two free cores. Needs the extra `torch`.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from rich.console import Console
from rich.table import Table

from benchmarks import workload
from benchmarks.timing import Times, begin, interleaved, ratios, spread
from configs import base
from eve_jax.config.stages import stage_factors, trained_groups
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Batch, Params, bind
from eve_jax.train.flops import Tokens, batch_tokens, step_flops
from eve_jax.train.optimizer import optimizer
from eve_jax.train.step import StepFunctions, TrainState
from launch._flags import run

PAIRS = flags.DEFINE_integer("pairs", 15, "rounds that are timed", lower_bound=1)
LAYERS = flags.DEFINE_integer("layers", workload.SIZES.num_layers, "fewer for a quick try", lower_bound=1)
TORCH = flags.DEFINE_bool("torch", True, "PyTorch, too")
JSON = flags.DEFINE_bool("json", False, "print the figures as a line of JSON last", allow_override=True)
LR = 1e-5
VARIANTS = {  # of the model, and its routing
    "split": ("dac", "split"),
    "dense": ("dense", "masked"),  # one array in causal order; with one set of weights there is nothing to mask
    "dense logits": ("dense", "masked"),
    "masked": ("dac", "masked"),
}


def config(name: str) -> ModelConfig:
    """The model of a row of the table."""
    return replace(workload.config(*VARIANTS[name]), num_layers=LAYERS.value)


def full_logits_loss(cfg: ModelConfig, params: Params, batch: Batch) -> jax.Array:
    """Mean loss of the targets from float32 logits and log-softmax of every slot."""
    log_p = jax.nn.log_softmax(bind(cfg, params)(batch))
    picked = jnp.take_along_axis(log_p, batch["loss_idx"][..., None], axis=1)
    picked = jnp.take_along_axis(picked, batch["labels"][..., None], axis=2)[..., 0]
    weight = batch["loss_weight"]
    return -jnp.sum(picked * weight) / jnp.sum(weight)


class Step:
    """One training step after another on one micro-batch; a call returns the loss before its step."""

    def __init__(self, cfg: ModelConfig, batch: Batch, full_logits: bool):
        schedule = optax.constant_schedule(LR)
        tx = optimizer(base.get_config().optim, schedule, cfg, stage_factors("3"))
        params = workload.params(cfg)
        self.state, self.batch = TrainState(jnp.zeros((), jnp.int32), params, tx.init(params)), batch
        functions = StepFunctions(cfg, tx, schedule)

        def ours(state: TrainState, batch: Batch) -> tuple[TrainState, Any]:
            state, metrics = functions(state, {}, [batch])
            return state, metrics["loss"]

        def usual(state: TrainState, batch: Batch) -> tuple[TrainState, Any]:
            loss, grads = jax.value_and_grad(lambda p: full_logits_loss(cfg, p, batch))(state.trainable)
            updates, opt = tx.update(grads, state.optimizer, state.trainable)
            return TrainState(state.step + 1, optax.apply_updates(state.trainable, updates), opt), loss

        self.step = jax.jit(usual, donate_argnums=0) if full_logits else ours

    def __call__(self) -> float:
        self.state, loss = self.step(self.state, self.batch)
        return float(loss)


def torch_step() -> Callable[[], float]:
    """PyTorch's step with the very weights of `split`."""
    from benchmarks import torch_way

    torch_way.use_threads()
    cfg = config("split")
    model = torch_way.build(cfg, workload.params(cfg))
    return torch_way.TrainStep(model, torch_way.padded(*workload.make_samples()), LR)


def product_rates() -> dict[str, float]:
    """GFLOP/s of float32 matrix products of a feed-forward layer on the tokens of a step, in XLA and in PyTorch."""
    import torch

    from benchmarks import torch_way

    torch_way.use_threads()
    d, f, tokens = workload.SIZES.hidden_size, workload.SIZES.intermediate_size, workload.ROW.length * 2
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((tokens, d), np.float32), rng.standard_normal((d, f), np.float32)
    ours, x_ours, w_ours = jax.jit(jnp.matmul), jnp.array(x), jnp.array(w)
    x_theirs, w_theirs = torch.tensor(x), torch.tensor(w.T.copy())
    times = interleaved(
        {
            "xla": lambda: ours(x_ours, w_ours).block_until_ready(),
            "pytorch": lambda: torch.nn.functional.linear(x_theirs, w_theirs),
        },
        40,
        "matrix products",
    )
    return {name: 2 * tokens * d * f / statistics.median(t.wall) / 1e9 for name, t in times.items()}


def arithmetic(batch: Batch) -> dict[str, float]:
    """FLOPs of a step: ours on real tokens, and PyTorch's on padded ones with both branches and all logits."""
    real = batch_tokens(jax.device_get(batch))
    samples, longest = len(workload.SAMPLES), max(n for n, _ in workload.SAMPLES)
    padded = samples * longest
    pairs = float(samples * longest * longest)  # a mask is added to all scores
    tokens = Tokens(real.patches, real.specials, padded - real.patches - real.specials, padded, pairs)
    trains = trained_groups(stage_factors("3"))
    masked = step_flops(config("masked"), trains, tokens)
    chunked = 2.0 * workload.SIZES.vocab_size * workload.SIZES.hidden_size * padded  # our loss computes logits again
    return {"ours": step_flops(config("split"), trains, real).useful, "pytorch": masked.useful + masked.again - chunked}


def report(times: dict[str, Times], batch: Batch) -> dict[str, Any]:
    """Print the tables; the figures of the line of JSON."""
    tokens = batch_tokens(jax.device_get(batch)).total
    table = Table("", "seconds a step", "processor seconds", "useful tokens/s", "time over split", "over dense")
    medians = {name: statistics.median(t.wall) for name, t in times.items()}
    for name, t in times.items():
        over = (spread(ratios(t.wall, times[other].wall)) for other in ("split", "dense"))
        cells = (spread(t.wall), spread(t.processor), f"{tokens / medians[name]:,.0f}")
        table.add_row(name, *cells, *over)
    Console(width=132).print(table)

    def median_ratio(above: str, below: str) -> float:
        return statistics.median(ratios(times[above].wall, times[below].wall))

    figures: dict[str, Any] = {
        "split_over_dense": median_ratio("split", "dense"),
        "split_over_dense_logits": median_ratio("split", "dense logits"),
        "masked_over_dense": median_ratio("masked", "dense"),
        "seconds": medians,
        "tokens": tokens,
    }
    if "pytorch" in times:
        figures["speedup_over_torch"] = median_ratio("pytorch", "split")
        figures |= shares(figures["speedup_over_torch"], batch)
    return figures


def shares(speedup: float, batch: Batch) -> dict[str, Any]:
    """How a speed-up divides: FLOPs not done, faster products, and the rest."""
    flops, rates = arithmetic(batch), product_rates()
    saved, faster = flops["pytorch"] / flops["ours"], rates["xla"] / rates["pytorch"]
    print(
        f"{speedup:.2f} times PyTorch's tokens/s = {saved:.2f} (arithmetic saved: {flops['pytorch'] / 1e9:,.0f} GFLOP "
        f"against {flops['ours'] / 1e9:,.0f}) x {faster:.2f} (matrix products: XLA {rates['xla']:.0f} GFLOP/s, PyTorch "
        f"{rates['pytorch']:.0f}) x {speedup / saved / faster:.2f} (all else)"
    )
    return {"arithmetic_saved": saved, "product_rate_ratio": faster, "product_gflops": rates, "flops": flops}


def main() -> None:
    begin(bool(TORCH.value))
    batch = workload.packed()
    console = Console(stderr=True)
    candidates: dict[str, Callable[[], float]] = {}
    with console.status("compiling ...") as status:
        for name in VARIANTS:
            status.update(f"compiling {name} ...")
            candidates[name] = Step(config(name), batch, name == "dense logits")
        if TORCH.value:
            candidates["pytorch"] = torch_step()
        losses = {name: step() for name, step in candidates.items()}
    if abs(losses.get("pytorch", losses["split"]) - losses["split"]) > 1e-4:
        raise SystemExit(f"PyTorch and we do not compute the same: losses {losses}")
    start = time.time()
    times = interleaved(candidates, PAIRS.value, "steps")
    figures = {**report(times, batch), "pairs": PAIRS.value, "load": os.getloadavg()[0]}
    print(f"{PAIRS.value} rounds in {time.time() - start:.0f} s, load at the end {os.getloadavg()[0]:.1f}")
    if JSON.value:
        print(json.dumps(figures))


if __name__ == "__main__":
    run(main)
