"""Networks in the graph form of TensorFlow.js (`NAME.json` and the weight files that it names), run in JAX.

    graph = read_graph(Path("models/centernet.json"))
    scores, = graph.run(images, ["tower_0/keypoints"])         # images: float32 [B, H, W, 3]

Of some 1,200 kinds of nodes those are known that image networks with fused convolutions are made of.
"""

import base64
import graphlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from eve_jax.curate.experts.convolution import convolve, convolve_channels
from eve_jax.errors import UserError
from eve_jax.process.files import read_bytes, read_json

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"Relu": jax.nn.relu, "Relu6": jax.nn.relu6}
INPUT = "Placeholder"


@dataclass(frozen=True)
class Node:
    """A node: its kind, the names of the nodes whose values it takes, and its attributes."""

    op: str
    inputs: tuple[str, ...]
    attributes: dict[str, Any]

    def whole(self, name: str) -> int:
        """Return an attribute that is a whole number, 0 if it is not there."""
        return int(self.attributes.get(name, {}).get("i", 0))

    def is_set(self, name: str) -> bool:
        """Return an attribute that is true or false."""
        return bool(self.attributes.get(name, {}).get("b", False))

    def text(self, name: str) -> str:
        """Return an attribute that is a text."""
        return base64.b64decode(self.attributes.get(name, {}).get("s", "")).decode()

    def texts(self, name: str) -> list[str]:
        """Return an attribute that is a list of texts."""
        return [base64.b64decode(one).decode() for one in self.attributes.get(name, {}).get("list", {}).get("s", ())]

    def wholes(self, name: str) -> list[int]:
        """Return an attribute that is a list of whole numbers."""
        return [int(one) for one in self.attributes.get(name, {}).get("list", {}).get("i", ())]


@dataclass(frozen=True)
class Graph:
    """A network: its nodes by name, and its weights; `file` names it in messages."""

    file: Path
    nodes: dict[str, Node]
    weights: dict[str, np.ndarray]

    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of its one input. Raises UserError for another number of inputs."""
        shapes = [n.attributes["shape"]["shape"]["dim"] for n in self.nodes.values() if n.op == INPUT]
        if len(shapes) != 1:
            raise UserError(f"{self.file}: a network with {len(shapes)} inputs; expected one, an image")
        return tuple(int(dim["size"]) for dim in shapes[0])

    def run(self, x: Array, outputs: Sequence[str]) -> list[Array]:
        """Return the values of the nodes `outputs` for the input `x`; traceable by `jax.jit`. Raises UserError."""
        values: dict[str, Any] = {}
        for name in self._order(outputs):
            node = self.nodes[name]
            if node.op == INPUT:
                values[name] = x
            elif node.op == "Const":
                values[name] = self.weights[name]
            else:
                values[name] = OPERATIONS[node.op](node, *(values[given] for given in node.inputs))
        return [values[name] for name in outputs]

    def _order(self, outputs: Sequence[str]) -> list[str]:
        """Return the nodes that `outputs` need, each after those that it takes values of."""
        needed: dict[str, tuple[str, ...]] = {}
        left = [*outputs]
        while left:
            name = left.pop()
            if name not in self.nodes:
                raise UserError(f"{self.file}: there is no node {name}; it is another network than expected")
            if name not in needed:
                self._check(name)
                needed[name] = self.nodes[name].inputs
                left += needed[name]
        return list(graphlib.TopologicalSorter(needed).static_order())

    def _check(self, name: str) -> None:
        node = self.nodes[name]
        if node.op not in (INPUT, "Const", *OPERATIONS):
            raise UserError(f"{self.file}: node {name} is of the kind {node.op}, which is not implemented")
        if node.op == "Const" and name not in self.weights:
            raise UserError(f"{self.file}: it names no weights for {name}")
        unknown = [one for one in node.texts("fused_ops") if one not in ("BiasAdd", *ACTIVATIONS)]
        dilated = any(one != 1 for one in node.wholes("dilations"))
        padded = node.text("padding") not in ("", "SAME", "VALID")
        if unknown or dilated or padded:
            raise UserError(f"{self.file}: node {name} is a {node.op} of a form that is not implemented")


def read_graph(file: Path) -> Graph:
    """Return the network in `file`, with its weights as float32 and int32. Raises UserError."""
    content = read_json(file)
    try:
        nodes = {
            node["name"]: Node(node["op"], tuple(_plain(one) for one in node.get("input", ())), node.get("attr", {}))
            for node in content["modelTopology"]["node"]
        }
        weights: dict[str, np.ndarray] = {}
        for group in content["weightsManifest"]:
            data = b"".join(read_bytes(file.with_name(Path(path).name)) for path in group["paths"])
            weights |= _split(group["weights"], data, file)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is no graph of TensorFlow.js ({type(error).__name__}: {error})") from error
    return Graph(file, nodes, weights)


def _plain(name: str) -> str:
    """Return a node's name as the inputs of others have it, without "^" and ":0"."""
    return name.removeprefix("^").removesuffix(":0")


def _split(entries: Sequence[dict[str, Any]], data: bytes, file: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a weight file, which follow each other in the order of `entries`."""
    arrays, start = {}, 0
    for entry in entries:
        stored = entry.get("quantization", {}).get("dtype", entry["dtype"])
        if stored not in ("float16", "float32", "int32"):
            raise UserError(f"{file}: weights {entry['name']} are {stored}; expected float16, float32 or int32")
        dtype = np.dtype(stored).newbyteorder("<")
        end = start + dtype.itemsize * math.prod(entry["shape"])
        if end > len(data):
            raise UserError(f"{file}: its weight file has {len(data):,} bytes, too few; download it again")
        array = np.frombuffer(data[start:end], dtype).reshape(entry["shape"])
        arrays[entry["name"]], start = array.astype(entry["dtype"]), end
    if start != len(data):
        raise UserError(f"{file}: its weight file has {len(data):,} bytes, expected {start:,}; download it again")
    return arrays


def _fused(node: Node, x: Array, kernel: Array, *bias: Array) -> Array:
    """Return a convolution with what is fused with it: bias, activation."""
    stride, padding = node.wholes("strides")[1], node.text("padding")
    if "Depthwise" in node.op:
        if kernel.shape[3] != 1:
            raise UserError(f"a {node.op} with {kernel.shape[3]} outputs a channel is not implemented")
        x = convolve_channels(x, kernel[..., 0], stride, padding)
    else:
        x = convolve(x, kernel, stride, padding)
    for name in node.texts("fused_ops"):
        x = x + bias[0] if name == "BiasAdd" else ACTIVATIONS[name](x)
    return x


def _resize(node: Node, x: Array, size: Array) -> Array:
    """Return `x` [B, H, W, C] resized to `size` by bilinear interpolation, as TensorFlow places the pixels."""
    if node.is_set("align_corners"):
        raise UserError("a ResizeBilinear with align_corners is not implemented")
    rows, columns = (
        _between(old, int(new), node.is_set("half_pixel_centers"))
        for old, new in zip(x.shape[1:3], np.asarray(size), strict=True)
    )
    return jnp.einsum("ph,bhwc,qw->bpqc", rows, x, columns)


def _between(old: int, new: int, centers: bool) -> np.ndarray:
    """Return [new, old] weights of the old pixels in the new ones."""
    at = np.arange(new) * old / new if not centers else (np.arange(new) + 0.5) * old / new - 0.5
    at = np.clip(at, 0, old - 1)
    low = np.floor(at).astype(int)
    weights = np.zeros((new, old), np.float32)
    np.add.at(weights, (np.arange(new), low), 1 - (at - low))
    np.add.at(weights, (np.arange(new), np.minimum(low + 1, old - 1)), at - low)
    return weights


def _mean(node: Node, x: Array, axes: Array) -> Array:
    return jnp.mean(x, tuple(np.atleast_1d(np.asarray(axes)).tolist()), keepdims=node.is_set("keep_dims"))


OPERATIONS: dict[str, Callable[..., Array]] = {
    "_FusedConv2D": _fused,
    "Conv2D": _fused,
    "DepthwiseConv2dNative": _fused,
    "FusedDepthwiseConv2dNative": _fused,
    "Add": lambda _, x, y: x + y,
    "AddV2": lambda _, x, y: x + y,
    "BiasAdd": lambda _, x, y: x + y,
    "Mul": lambda _, x, y: x * y,
    "Sub": lambda _, x, y: x - y,
    "Relu": lambda _, x: jax.nn.relu(x),
    "Relu6": lambda _, x: jax.nn.relu6(x),
    "Sigmoid": lambda _, x: jax.nn.sigmoid(x),
    "Identity": lambda _, x: x,
    "Mean": _mean,
    "ConcatV2": lambda _, *x: jnp.concatenate(x[:-1], int(x[-1])),
    "ResizeBilinear": _resize,
}
