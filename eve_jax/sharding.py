"""The mesh, where parameters, activations and batches live on it; the only place that names mesh axes.

Parameters are stored sharded (PARAMETER_RULES) and gathered over fsdp where they are used, a layer at a time; the
model's code says only logical axes. Without `use(mesh)`, or on one device, nothing here changes a computation.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eve_jax.errors import UserError

Placement = str | tuple[str, ...] | None  # mesh axes that share a dimension
AXES = ("data", "fsdp", "tensor")
# Mesh axis of each logical axis of a parameter. Rows of every matrix are sharded over fsdp (DESIGN section 4).
PARAMETER_RULES: dict[str, Placement] = {
    "layer": None,
    "embed": "fsdp",
    "heads": "tensor",
    "head_rows": ("tensor", "fsdp"),
    "mlp": "tensor",
    "mlp_rows": ("tensor", "fsdp"),
    "patch": None,
    "table": ("fsdp", "tensor"),
    "vocab": None,
}
# The same while a parameter is used: whole, but for tensor parallelism.
GATHERED_RULES: dict[str, Placement] = {
    "embed": None,
    "heads": "tensor",
    "head_rows": "tensor",
    "mlp": "tensor",
    "mlp_rows": "tensor",
    "patch": None,
    "table": None,
    "vocab": "tensor",
}
# Mesh axes of each logical axis of an activation.
ACTIVATION_RULES: dict[str, Placement] = {
    "batch": ("data", "fsdp"),
    "heads": "tensor",
    "mlp": "tensor",
    "vocab": "tensor",
    "table": ("fsdp", "tensor"),
    "id_batch": "data",
}


def make_mesh(spec: str, devices: list[jax.Device] | None = None) -> Mesh:
    """The mesh of a `config.mesh` such as "data:2,fsdp:-1,tensor:1"; -1 takes the devices that are left.

    Raises UserError when an axis is unknown or the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = dict.fromkeys(AXES, 1)
    for item in filter(None, spec.split(",")):
        name, _, size = item.partition(":")
        if name not in AXES or not size.lstrip("-").isdigit():
            raise UserError(f"config.mesh={spec!r}: {item!r} is not AXIS:SIZE with an axis of {', '.join(AXES)}")
        sizes[name] = int(size)
    free = [n for n, s in sizes.items() if s == -1]
    fixed = math.prod(s for s in sizes.values() if s != -1)
    if len(free) == 1 and fixed > 0 and len(devices) % fixed == 0:
        sizes[free[0]] = len(devices) // fixed
    if math.prod(sizes.values()) != len(devices) or min(sizes.values()) < 1:
        raise UserError(f"config.mesh={spec!r} does not fit {len(devices)} device(s)")
    return Mesh(np.array(devices).reshape([sizes[a] for a in AXES]), AXES)


def parameter_sharding(
    mesh: Mesh, axes: tuple[str | None, ...], shape: tuple[int, ...], rules: dict[str, Placement] = PARAMETER_RULES
) -> NamedSharding:
    """Sharding of a parameter from its logical axes; a dimension that its mesh axes do not divide is replicated.

    Raises ValueError when two dimensions claim one mesh axis.
    """
    wanted = [_names(rules[a]) if a else () for a in axes]
    used = [name for names in wanted for name in names]
    if len(used) != len(set(used)):
        raise ValueError(f"logical axes {axes} claim a mesh axis twice: {wanted}")
    spec = [
        names if names and size % math.prod(mesh.shape[n] for n in names) == 0 else None
        for names, size in zip(wanted, shape, strict=True)
    ]
    return NamedSharding(mesh, PartitionSpec(*spec))


def _names(placement: Placement) -> tuple[str, ...]:
    return (placement,) if isinstance(placement, str) else placement or ()


_MESH: ContextVar[Mesh | None] = ContextVar("mesh", default=None)


@contextmanager
def use(mesh: Mesh | None) -> Iterator[None]:
    """The mesh that `constrain` and `gather` mean while a function is traced."""
    token = _MESH.set(mesh)
    try:
        yield
    finally:
        _MESH.reset(token)


def current() -> Mesh | None:
    """The mesh in use; None without one, or when it has a single device."""
    mesh = _MESH.get()
    return mesh if mesh is not None and mesh.size > 1 else None


def platform() -> str:
    """What the traced function will run on: cpu, gpu or tpu."""
    mesh = _MESH.get()
    return jax.default_backend() if mesh is None else mesh.devices.flat[0].platform


def activation_spec(*axes: str | None) -> PartitionSpec:
    """Partition of an activation with these logical axes."""
    return PartitionSpec(*(ACTIVATION_RULES[a] if a else None for a in axes))


def constrain(x: Array, *axes: str | None) -> Array:
    """`x` with its dimensions placed by ACTIVATION_RULES; each of `axes` is a logical axis or None."""
    mesh = current()
    if mesh is None:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, activation_spec(*axes)))


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _moved(x: Array, there: NamedSharding, back: NamedSharding) -> Array:
    return jax.lax.with_sharding_constraint(x, there)


# The cotangent goes straight to where the parameter lives: one fused reduce-scatter, where a plain constraint would
# give it the gathered layout and an all-reduce.
_moved.defvjp(
    lambda x, there, back: (_moved(x, there, back), None),
    lambda there, back, _, g: (jax.lax.with_sharding_constraint(g, back),),
)


def gather(weight: Array, axes: tuple[str | None, ...], dtype: np.dtype) -> Array:
    """A parameter of logical `axes` in `dtype`, whole but for tensor parallelism, for use in a matrix product.

    It is cast while still sharded, so that the gather moves the narrower type.
    """
    weight = weight.astype(dtype)
    mesh = current()
    if mesh is None:
        return weight
    stored = parameter_sharding(mesh, axes, weight.shape)
    return _moved(weight, parameter_sharding(mesh, axes, weight.shape, GATHERED_RULES), stored)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over all axes but tensor."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole value on every device."""
    return NamedSharding(mesh, PartitionSpec())
