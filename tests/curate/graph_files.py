"""Writes graphs of TensorFlow.js, as the tests of the detector need them."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np


def _text(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


class Builder:
    """A graph with the input "x" of the shape [B, H, W, C]."""

    def __init__(self, shape: tuple[int, ...], name: str = "x") -> None:
        dims = {"dim": [{"size": str(size)} for size in shape]}
        self.nodes: list[dict[str, Any]] = [{"name": name, "op": "Placeholder", "attr": {"shape": {"shape": dims}}}]
        self.weights: list[dict[str, Any]] = []
        self.data = b""

    def constant(self, name: str, value: np.ndarray, stored: str = "") -> None:
        """Add weights, stored as they are or as `stored`."""
        entry: dict[str, Any] = {"name": name, "shape": [*value.shape], "dtype": value.dtype.name}
        if stored:
            entry["quantization"] = {"dtype": stored, "original_dtype": value.dtype.name}
        self.nodes.append({"name": name, "op": "Const"})
        self.weights.append(entry)
        self.data += value.astype(stored or value.dtype).tobytes()

    def node(
        self, name: str, op: str, inputs: list[str], stride: int = 1, fused: list[str] | None = None, **more: Any
    ) -> None:
        """Add a node; strides, padding and what is fused are of convolutions."""
        attributes: dict[str, Any] = more
        if "Conv" in op and "Concat" not in op:
            attributes = {
                "strides": {"list": {"i": ["1", str(stride), str(stride), "1"]}},
                "padding": {"s": _text("SAME")},
                "dilations": {"list": {"i": ["1", "1", "1", "1"]}},
                "fused_ops": {"list": {"s": [_text(one) for one in fused or []]}},
            } | more
        self.nodes.append({"name": name, "op": op, "input": inputs, "attr": attributes})

    def write(self, folder: Path, name: str = "net") -> Path:
        """Write NAME.json and NAME.bin into `folder`; return the former's path."""
        manifest = [{"paths": [f"{name}.bin"], "weights": self.weights}]
        content = {"format": "graph-model", "modelTopology": {"node": self.nodes}, "weightsManifest": manifest}
        (folder / f"{name}.json").write_text(json.dumps(content))
        (folder / f"{name}.bin").write_bytes(self.data)
        return folder / f"{name}.json"
