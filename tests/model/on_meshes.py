"""Run by test_attention_meshes.py on 8 virtual devices: attention and its gradients on meshes, next to one device's.

python -m tests.model.on_meshes HEADS/KV_HEADS/KERNEL/MESH ...   prints the largest relative distance of each as JSON.
"""

import json
import math
import sys
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eve_jax import sharding
from eve_jax.model import attention

ROWS, LENGTH, SIZE = 2, 1024, 64
SEGMENT = np.zeros((ROWS, LENGTH), np.int32)
SEGMENT[0, :300], SEGMENT[0, 300:900] = 1, 2  # then pads
SEGMENT[1] = 1


def attended(heads: int, kv_heads: int, kernel: str, mesh: jax.sharding.Mesh | None) -> list[np.ndarray]:
    """Outputs of real tokens and the gradients of q, k and v."""
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = [(ROWS, LENGTH, n, SIZE) for n in (heads, kv_heads, kv_heads, heads)]
    q, k, v, weight = (jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True))
    real = jnp.asarray(SEGMENT > 0)[..., None, None]

    def loss(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        out = attention.packed_attention(q, k, v, jnp.asarray(SEGMENT), kernel, interpret=True)
        return jnp.sum(out * weight * real), out * real

    with sharding.use(mesh):
        (_, out), gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(q, k, v)
    return [np.asarray(x) for x in (out, *gradients)]


@cache
def alone(heads: int, kv_heads: int, kernel: str) -> list[np.ndarray]:
    """On one device."""
    return attended(heads, kv_heads, kernel, None)


def far(heads: int, kv_heads: int, kernel: str, spec: str) -> float:
    """The largest distance, of the largest value."""
    devices = jax.devices()[: math.prod(sharding.parse_mesh(spec).values())]
    found = attended(heads, kv_heads, kernel, sharding.make_mesh(spec, devices))
    pairs = zip(found, alone(heads, kv_heads, kernel), strict=True)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def main(*cases: str) -> None:
    out: dict[str, Any] = {}
    for case in cases:
        heads, kv_heads, kernel, spec = case.split("/")
        out[case] = far(int(heads), int(kv_heads), kernel, spec)
    print(json.dumps(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
