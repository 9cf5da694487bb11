"""Graphs of TensorFlow.js: their operations by hand-made numbers, and files that are refused."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eve_jax.curate.experts.graph import read_graph
from eve_jax.errors import UserError
from tests.curate.graph_files import Builder

X = np.random.default_rng(0).normal(size=(2, 6, 5, 3)).astype(np.float32)


def run(tmp_path: Path, builder: Builder, output: str, x: np.ndarray = X) -> np.ndarray:
    graph = read_graph(builder.write(tmp_path))
    return np.asarray(jax.jit(lambda given: graph.run(given, [output]))(x)[0])


def by_hand(x: np.ndarray, kernel: np.ndarray, stride: int, pads: tuple[int, int]) -> np.ndarray:
    """Return the convolution of x [B, H, W, C] with a kernel [h, w, C, D], its height and width padded by `pads`."""
    padded = np.pad(x, ((0, 0), pads, pads, (0, 0)))
    high, wide = ((padded.shape[axis] - kernel.shape[axis - 1]) // stride + 1 for axis in (1, 2))
    out = np.zeros((len(x), high, wide, kernel.shape[3]))
    for row in range(high):
        for column in range(wide):
            top, left = row * stride, column * stride
            window = padded[:, top : top + kernel.shape[0], left : left + kernel.shape[1]]
            out[:, row, column] = np.einsum("bhwc,hwcd->bd", window, kernel)
    return out


@pytest.mark.parametrize(("stride", "pads", "size"), [(1, (1, 1), 6), (2, (0, 1), 6), (2, (1, 1), 5), (3, (0, 0), 6)])
@pytest.mark.parametrize("kind", ["_FusedConv2D", "FusedDepthwiseConv2dNative"])
def test_fused_convolutions_are_those_of_tensorflow(
    tmp_path: Path, kind: str, stride: int, pads: tuple[int, int], size: int
) -> None:
    x = X[:, :size, : size - 1] if stride == 1 else np.repeat(X[:, :size, :1], size, 2)
    shape = (3, 3, 3, 4) if kind == "_FusedConv2D" else (3, 3, 3, 1)
    kernel = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    bias = np.linspace(-1, 1, 4 if kind == "_FusedConv2D" else 3).astype(np.float32)
    b = Builder((2, *x.shape[1:]))
    b.constant("kernel", kernel)
    b.constant("bias", bias)
    b.node("out", kind, ["x", "kernel", "bias"], stride=stride, fused=["BiasAdd", "Relu"])
    full = kernel if kind == "_FusedConv2D" else kernel[..., 0][..., None] * np.eye(3, dtype=np.float32)
    expected = np.maximum(by_hand(x, full, stride, pads) + bias, 0)
    np.testing.assert_allclose(run(tmp_path, b, "out", x), expected, rtol=1e-5, atol=1e-5)


def test_resize_places_pixels_as_tensorflow_does(tmp_path: Path) -> None:
    b = Builder((1, 2, 2, 1))
    b.constant("size", np.array([4, 3], np.int32))
    b.node("out", "ResizeBilinear", ["x", "size"])
    x = np.array([[0.0, 3.0], [6.0, 9.0]], np.float32)[None, :, :, None]
    expected = [[0, 2, 3], [3, 5, 6], [6, 8, 9], [6, 8, 9]]
    np.testing.assert_allclose(run(tmp_path, b, "out", x)[0, :, :, 0], expected, atol=1e-6)


def test_the_other_operations(tmp_path: Path) -> None:
    b = Builder((2, 6, 5, 3))
    b.constant("half", np.array(0.5, np.float32), stored="float16")
    b.constant("axes", np.array([1, 2], np.int32))
    b.constant("last", np.array(3, np.int32))
    b.node("scaled", "Mul", ["half", "x:0"])
    b.node("six", "Relu6", ["scaled"])
    b.node("more", "Add", ["six", "x"])
    b.node("less", "Sub", ["more", "half"])
    b.node("mean", "Mean", ["less", "axes"], keep_dims={"b": True})
    b.node("gate", "Sigmoid", ["mean"])
    b.node("gated", "Mul", ["less", "gate"])
    b.node("out", "ConcatV2", ["gated", "x", "last"])
    less = np.clip(X / 2, 0, 6) + X - 0.5
    gate = 1 / (1 + np.exp(-less.mean((1, 2), keepdims=True)))
    np.testing.assert_allclose(run(tmp_path, b, "out"), np.concatenate([less * gate, X], 3), rtol=1e-5, atol=1e-6)


def test_nodes_in_any_order_and_those_not_needed(tmp_path: Path) -> None:
    b = Builder((2, 6, 5, 3))
    b.node("unknown", "TopKV2", ["x"])
    b.node("out", "Relu", ["in"])
    b.node("in", "Identity", ["x"])
    np.testing.assert_array_equal(run(tmp_path, b, "out"), np.maximum(X, 0))


def test_what_is_not_implemented_is_named(tmp_path: Path) -> None:
    b = Builder((2, 6, 5, 3))
    b.constant("kernel", np.zeros((1, 1, 3, 3), np.float32))
    b.node("top", "TopKV2", ["x"])
    b.node("swish", "_FusedConv2D", ["x", "kernel"], fused=["Swish"])
    b.node("wide", "Conv2D", ["x", "kernel"], dilations={"list": {"i": ["1", "2", "2", "1"]}})
    graph = read_graph(b.write(tmp_path))
    for name, message in (
        ("top", "net.json: node top is of the kind TopKV2, which is not implemented"),
        ("swish", "net.json: node swish is a _FusedConv2D of a form that is not implemented"),
        ("wide", "net.json: node wide is a Conv2D of a form that is not implemented"),
        ("gone", "net.json: there is no node gone"),
    ):
        with pytest.raises(UserError, match=message):
            graph.run(jnp.asarray(X), [name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], "its weight file has 15 bytes, too few"),
        (lambda data: data + b"1234", "its weight file has 20 bytes, expected 16"),
    ],
)
def test_weight_files_of_another_length_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    b = Builder((1, 2, 2, 1))
    b.constant("four", np.zeros(4, np.float32))
    file = b.write(tmp_path)
    data = file.with_suffix(".bin").read_bytes()
    file.with_suffix(".bin").write_bytes(change(data))
    with pytest.raises(UserError, match=message):
        read_graph(file)


def test_other_json_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "net.json"
    file.write_text(json.dumps({"format": "layers-model", "modelTopology": {}}))
    with pytest.raises(UserError, match=r"net\.json is no graph of TensorFlow\.js"):
        read_graph(file)
