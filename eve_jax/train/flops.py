"""FLOPs of a training step by formula, counted from the routed model: every token meets the weights of its modality.

A matrix product of M tokens with a weight of n numbers costs 2 M n FLOPs. Its backward pass costs as much again for
the gradient of its input, and as much again for the weight's where the weight trains. So a layer costs 3 times its
forward pass in stages that train it and 2 times where it is frozen, since gradients still flow through it to the patch
embedding. The first convolution needs no gradient of its input, the pixels. The head sees target positions alone.

Attention over p pairs of a query and a key that it may see costs 4 N H p a layer forward (scores, then values; where
queries and keys are twice as wide, 6 N H p) and twice that backward; a sample of n tokens has n (n + 1) / 2 pairs, and
those that images see behind themselves, of which a local layer sees no more than its window for each token. Norms,
rotary angles and the like are left out, as is usual, and so is EVEv1's aligning loss (2% of a step,
benchmarks/aligning.py). In a vision encoder the G patches of an image and its class token all see each other,
(G + 1)^2 pairs; its last layer, which nothing looks at, is not counted. Model FLOPs are those; what the machine does on
top of them: the recomputation that `model.remat` and the chunked loss ask for, the pairs across samples that a kernel
computes and masks, both branches when `model.routing` is "masked".
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from eve_jax.batch import RowShape, row_shape
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import abstract_params, declared
from eve_jax.model.lora import ADAPTER_ROLES

# Peak of dense bfloat16 matrix products, FLOP/s a chip, by the beginning of `jax.Device.device_kind`; the first that
# fits counts. Vendors' public figures (cloud.google.com/tpu/docs; NVIDIA's data sheets, without sparsity).
PEAK_FLOPS = (
    ("TPU v4", 275e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5e", 197e12),
    ("TPU v5", 459e12),  # v5p calls itself "TPU v5" or "TPU v5p"
    ("TPU v6", 918e12),  # v6e: "TPU v6 lite" or "TPU v6e"
    ("NVIDIA A100", 312e12),
    ("NVIDIA H100 PCIe", 756e12),
    ("NVIDIA H100 NVL", 835e12),
    ("NVIDIA H100", 989e12),
    ("NVIDIA H200", 989e12),
    ("NVIDIA GH200", 989e12),
    ("NVIDIA B200", 2250e12),
    ("NVIDIA L40S", 362e12),
    ("NVIDIA L4", 121e12),
)
PRODUCTS = ("matrix", "table", *ADAPTER_ROLES)  # roles of weights that tokens are multiplied with
FLASH_BACKWARD = 3.5  # of the forward pass's two products: two kernels, each computes scores and their gradient again


class Tokens(NamedTuple):
    """What a step works on. pairs: of a query and a key that it may see."""

    patches: float
    specials: float
    text: float
    targets: float
    pairs: float

    @property
    def total(self) -> float:
        """Tokens that go through the layers."""
        return self.patches + self.specials + self.text


class Product(NamedTuple):
    """The product of tokens with a weight: FLOPs of one forward product, and its share of the backward pass.

    kind: the field of `Tokens` it works on, or "vision" (patches and specials) or "all". backward: products of the
    backward pass for one of the forward pass. again: whether the backward pass computes the forward product again.
    routed: True in a layer, where with "masked" routing all tokens meet every set of weights.
    """

    kind: str
    flops: float
    backward: int
    again: bool
    routed: bool


class Flops(NamedTuple):
    """FLOPs of a step on all chips.

    model: forward and backward of matrix products, attention left out. again: products that are recomputed, or masked
    out ("masked" routing). attention: forward and backward over the pairs given, and in a vision encoder. kernel: what
    an attention kernel spends on the pairs given, recomputation included; a vision encoder has none.
    """

    model: float
    again: float
    attention: float
    kernel: float

    @property
    def useful(self) -> float:
        """What MFU counts: forward and backward, attention included, nothing recomputed."""
        return self.model + self.attention


def peak_flops(device_kind: str) -> float | None:
    """Peak bfloat16 FLOP/s of a chip by `jax.Device.device_kind`; None for one that PEAK_FLOPS does not know."""
    return next((peak for kind, peak in PEAK_FLOPS if device_kind.startswith(kind)), None)


def _of_tower(cfg: ModelConfig) -> float:
    """Products with a vision encoder's layers for one with each: the last is left out, the class token comes to it."""
    assert cfg.encoder is not None
    patches, layers = cfg.encoder.cells**2, cfg.encoder.num_layers
    return (layers - 1) / layers * (patches + 1) / patches


def _tower_attention(cfg: ModelConfig, trains: frozenset[str], patches: float) -> float:
    """FLOPs of attention within the vision encoder for images of so many patches together, 0 without one."""
    if cfg.encoder is None:
        return 0.0
    each, tower = cfg.encoder.cells**2, cfg.encoder
    forward = patches / each * 4.0 * tower.hidden_size * (each + 1) ** 2 * (tower.num_layers - 1)
    return forward * (3 if "encoder" in trains else 1)


@functools.cache
def products(cfg: ModelConfig, trains: frozenset[str]) -> tuple[Product, ...]:
    """Return the products of all weights that tokens are multiplied with, where the groups `trains` train."""
    weights, shapes = declared(cfg), abstract_params(cfg)
    changed = {w.delta_of for w in weights.values() if w.changes_matrix and w.group in trains}
    out = []
    for name, weight in weights.items():
        if weight.role not in PRODUCTS or not weight.works_on:
            continue
        if weight.group == "encoder" and weight.role == "table":  # positions and class token, which are added
            continue
        flops = 2.0 * math.prod(shapes[name].shape) * weight.times
        if weight.group == "encoder" and weight.stacked:
            flops *= _of_tower(cfg)
        reached = weight.group in trains or name in changed
        learns = reached and (cfg.lora is None or weight.role in ADAPTER_ROLES)
        layer = weight.stacked and weight.group != "encoder"
        if weight.group in ("patch_embed", "encoder"):  # inputs have a gradient only while weights before them train
            backward = learns + (reached and weight.input_grad)
            again = weight.stacked and reached and cfg.remat != "none"
        else:
            backward = 1 + learns
            # The last product of a layer is followed by an addition, which needs no copy of it.
            again = not weight.stacked or (cfg.remat != "none" and not weight.ends_layer)
        out.append(Product(weight.works_on, flops, backward, again, layer))
    return tuple(out)


def step_flops(cfg: ModelConfig, trains: frozenset[str], tokens: Tokens, logits_again: bool = True) -> Flops:
    """Return the FLOPs of one step on `tokens` (those of all micro-batches together) that trains the groups `trains`.

    logits_again: whether the loss computes them again, as it does by chunks of the vocabulary (eve_jax/model/loss.py).
    """
    counts = {**tokens._asdict(), "vision": tokens.patches + tokens.specials, "all": tokens.total}
    model = sum(counts[w.kind] * w.flops * (1 + w.backward) for w in products(cfg, trains))
    recomputed = [w for w in products(cfg, trains) if w.again and (logits_again or w.kind != "targets")]
    again = sum(counts[w.kind] * w.flops for w in recomputed)
    if cfg.routing == "masked":
        routed = [w for w in products(cfg, trains) if w.routed]
        again += sum((tokens.total - counts[w.kind]) * w.flops * (1 + w.backward + w.again) for w in routed)
    near = min(tokens.pairs, tokens.total * cfg.window)
    local = near * (cfg.qk_dim + cfg.head_dim)
    wide = tokens.pairs * (2 * cfg.wide_head_dim if cfg.in_turns else cfg.qk_dim + cfg.head_dim)
    each = (local if cfg.kinds[number] == "local" else wide for number in cfg.kind_numbers)
    forward = 2.0 * cfg.num_heads * sum(each)
    kernel = forward * (1 + FLASH_BACKWARD + (cfg.remat == "full"))
    return Flops(model, again, 3 * forward + _tower_attention(cfg, trains, tokens.patches), kernel)


def slots(cfg: ModelConfig, shape: RowShape, rows: int, samples: int = 1) -> Tokens:
    """Every slot of `rows` rows of `shape`, the text slots all targets; the row holds `samples` samples of one length.

    With one sample a row, pairs are those that a kernel computes that skips nothing but the future. A vision encoder
    sees whole images: slots that are left of those for patches count as special vision tokens.
    """
    rest = shape.patches % cfg.encoder.cells**2 if cfg.encoder is not None else 0
    shape = shape._replace(patches=shape.patches - rest, specials=shape.specials + rest)
    length = shape.length / samples
    pairs = samples * length * (length + 1) / 2
    patches, specials, text = (float(rows * n) for n in shape)
    return Tokens(patches, specials, text, text, rows * pairs)


def batch_tokens(batch: dict[str, Any]) -> Tokens:
    """Real tokens, targets and pairs of a micro-batch's host arrays (docs/design.md#row-contract)."""
    segment, shape = np.asarray(batch["segment"]), row_shape(batch)
    parts = np.split(segment > 0, [shape.patches, shape.vision], axis=1)
    last = np.asarray(batch["end" if "end" in batch else "position"])
    pairs = float((last[segment > 0] + 1.0).sum())
    real_patches, specials, text = (float(p.sum()) for p in parts)
    targets = float((np.asarray(batch["loss_weight"]) > 0).sum())
    return Tokens(real_patches, specials, text, targets, pairs)


def add(tokens: list[Tokens]) -> Tokens:
    """The sum over the micro-batches of a step."""
    return Tokens(*(float(sum(column)) for column in zip(*tokens, strict=True)))
