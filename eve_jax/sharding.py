"""The mesh and where parameters and batches live on it; the only place that names mesh axes."""

import math

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eve_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
# Mesh axis of each logical axis of a parameter. Rows of every matrix are sharded over fsdp (DESIGN section 4).
PARAMETER_RULES: dict[str, str | None] = {
    "layer": None,
    "embed": "fsdp",
    "heads": "tensor",
    "mlp": "tensor",
    "patch": "tensor",
    "vocab": None,
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


def parameter_sharding(mesh: Mesh, axes: tuple[str | None, ...], shape: tuple[int, ...]) -> NamedSharding:
    """Sharding of a parameter from its logical axes; a dimension that its mesh axis does not divide is replicated.

    Raises ValueError when two dimensions claim one mesh axis.
    """
    spec = [PARAMETER_RULES[a] if a else None for a in axes]
    used = [s for s in spec if s]
    if len(used) != len(set(used)):
        raise ValueError(f"logical axes {axes} claim a mesh axis twice: {spec}")
    spec = [s if s and n % mesh.shape[s] == 0 else None for s, n in zip(spec, shape, strict=True)]
    return NamedSharding(mesh, PartitionSpec(*spec))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over all axes but tensor."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole value on every device."""
    return NamedSharding(mesh, PartitionSpec())
