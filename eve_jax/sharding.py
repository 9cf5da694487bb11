"""The mesh, where parameters, activations and batches live on it; the only place that names mesh axes.

Parameters are stored sharded (PARAMETER_RULES) and gathered over fsdp where they are used, a layer at a time; the
model's code says only logical axes. Without `use(mesh)`, or on one device, nothing here changes a computation.
"""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from eve_jax.errors import Field, FieldError

Placement = str | tuple[str, ...] | None  # mesh axes that share a dimension
AXES = ("data", "fsdp", "tensor")
MESH = Field("mesh")
# Mesh axis of each logical axis of a parameter. Rows of every matrix are sharded over fsdp (docs/design.md#sharding).
PARAMETER_RULES: dict[str, Placement] = {
    "layer": None,
    "embed": "fsdp",
    "heads": "tensor",
    "head_rows": ("tensor", "fsdp"),
    "mlp": "tensor",
    "mlp_rows": ("tensor", "fsdp"),
    "patch": None,
    "rank": "fsdp",
    "table": ("fsdp", "tensor"),
    "vocab": None,
}
# The same while a parameter is used: whole, but for tensor parallelism.
GATHERED_RULES: dict[str, Placement] = PARAMETER_RULES | {
    **dict.fromkeys(("embed", "rank", "table")),
    **dict.fromkeys(("head_rows", "mlp_rows", "vocab"), "tensor"),
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

# Most devices that parameters are sharded over by default, by the beginning of `jax.Device.device_kind`; the rest hold
# replicas. TPUs: with more, gradients became all-reduces (docs/design.md#sharding). GPUs: a node.
FSDP_CAPS = (("TPU v5 lite", 32), ("TPU v5e", 32), ("TPU v6", 32), ("TPU", 16), ("NVIDIA", 8), ("AMD", 8))


def parse_mesh(spec: str) -> dict[str, int]:
    """Return the sizes that a `config.mesh` gives some of AXES, of which one may be -1. Raise FieldError."""
    given: dict[str, int] = {}
    for item in filter(None, spec.split(",")):
        found = re.fullmatch(rf"({'|'.join(AXES)}):(-1|[1-9][0-9]*)", item)
        if not found:
            raise FieldError(
                MESH,
                f"={spec!r}: {item!r} is not AXIS:SIZE with an axis of {', '.join(AXES)} and a size of at least 1, or "
                "-1 for the devices that are left",
            )
        if found[1] in given:
            raise FieldError(MESH, f"={spec!r} names {found[1]} twice")
        given[found[1]] = int(found[2])
    if list(given.values()).count(-1) > 1:
        raise FieldError(MESH, f"={spec!r}: only one size may be -1, the devices that are left")
    return given


def mesh_sizes(spec: str, devices: Sequence[jax.Device]) -> tuple[int, ...]:
    """Sizes of AXES for a `config.mesh` such as "data:2,fsdp:-1,tensor:1"; -1 takes the devices that are left.

    "" is the default for the devices: fsdp over as many as is good for them (FSDP_CAPS), but never over several TPU
    slices, and data over the rest. Raises UserError when an axis is unknown, the sizes do not multiply to the number of
    devices, or data does not run over all slices.
    """
    groups = len(_slices(devices))
    if not spec:
        most = next((cap for name, cap in FSDP_CAPS if devices[0].device_kind.startswith(name)), len(devices))
        fsdp = max(n for n in range(1, most + 1) if len(devices) // groups % n == 0)
        return len(devices) // fsdp, fsdp, 1
    sizes = dict.fromkeys(AXES, 1) | parse_mesh(spec)
    free = [n for n, s in sizes.items() if s == -1]
    fixed = math.prod(s for s in sizes.values() if s != -1)
    if len(free) == 1 and fixed > 0 and len(devices) % fixed == 0:
        sizes[free[0]] = len(devices) // fixed
    if math.prod(sizes.values()) != len(devices) or min(sizes.values()) < 1:
        raise FieldError(
            MESH,
            f"={spec!r} does not fit {len(devices)} device(s): the sizes multiply to their number, and one may be -1, "
            "the devices that are left",
        )
    if sizes["data"] % groups:
        raise FieldError(MESH, f"={spec!r}: data must be a multiple of the {groups} slices, which it alone runs across")
    return tuple(sizes[axis] for axis in AXES)


def make_mesh(spec: str, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of a `config.mesh` (see `mesh_sizes`) on `devices`, all there are by default.

    Neighbors in the mesh are neighbors in a TPU's torus; of several slices, the outermost axis (data) runs across
    them. Raises UserError when the mesh is impossible.
    """
    devices = jax.devices() if devices is None else devices
    sizes = mesh_sizes(spec, devices)
    groups = len(_slices(devices))
    if groups > 1:
        inner = (sizes[0] // groups, *sizes[1:])
        placed = mesh_utils.create_hybrid_device_mesh(inner, (groups, 1, 1), devices, allow_split_physical_axes=True)
    else:
        placed = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    return Mesh(placed, AXES)


def _slices(devices: Sequence[jax.Device]) -> set[int]:
    """Numbers of the TPU slices that the devices are of; a GPU node calls itself one, too, but is free to share.
    Devices of a machine that is not there (`launch.compile`) may have none: they are one slice."""
    return {getattr(d, "slice_index", 0) for d in devices} if devices[0].platform == "tpu" else {0}


def parameter_sharding(
    mesh: Mesh | AbstractMesh,
    axes: tuple[str | None, ...],
    shape: tuple[int, ...],
    rules: dict[str, Placement] = PARAMETER_RULES,
) -> NamedSharding:
    """Sharding of a parameter from its logical axes; a dimension that its mesh axes do not divide is replicated.

    Raises ValueError when two dimensions claim one mesh axis.
    """
    wanted = [_names(rules[a]) if a else () for a in axes]
    used = [name for names in wanted for name in names]
    if len(used) != len(set(used)):
        raise ValueError(f"logical axes {axes} claim a mesh axis twice: {wanted}")
    return _divided(mesh, wanted, shape)


def shards(mesh: Mesh | None, axis: str, rules: dict[str, Placement] = ACTIVATION_RULES) -> int:
    """In how many parts `mesh` divides the logical `axis` by `rules`, where the size allows it; 1 without one."""
    return 1 if mesh is None else math.prod(mesh.shape[n] for n in _names(rules[axis]))


def _divided(mesh: Mesh | AbstractMesh, wanted: Sequence[tuple[str, ...]], shape: tuple[int, ...]) -> NamedSharding:
    """Each dimension over the mesh axes `wanted` for it, or replicated where these do not divide it."""
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


def device() -> jax.Device:
    """The first device of this process that the traced function will run on; of a topology, the first of all."""
    mesh = _MESH.get()
    if mesh is None:
        return jax.devices()[0]
    devices = mesh.devices.flat
    return next((one for one in devices if one.process_index == jax.process_index()), devices[0])


def platform() -> str:
    """What the traced function will run on: cpu, gpu or tpu."""
    return device().platform


def one_cpu() -> bool:
    """Whether what is traced runs on a single CPU device, where some products take another form."""
    return current() is None and platform() == "cpu"


def activation_spec(*axes: str | None) -> PartitionSpec:
    """Partition of an activation with these logical axes."""
    return PartitionSpec(*(ACTIVATION_RULES[a] if a else None for a in axes))


def constrain(x: Array, *axes: str | None) -> Array:
    """`x` with its dimensions placed by ACTIVATION_RULES; each of `axes` is a logical axis or None.

    A dimension that its mesh axes do not divide is replicated, such as fewer key/value heads than tensor has devices.
    """
    mesh = current()
    if mesh is None:
        return x
    return jax.lax.with_sharding_constraint(x, activation_sharding(mesh, axes, x.shape))


def activation_sharding(mesh: Mesh, axes: Sequence[str | None], shape: tuple[int, ...]) -> NamedSharding:
    """Where `constrain` places an activation of `shape`."""
    return _divided(mesh, [_names(ACTIVATION_RULES[a]) if a else () for a in axes], shape)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _moved(x: Array, there: NamedSharding, back: NamedSharding) -> Array:
    used = {name for names in there.spec for name in _names(names)}
    kept = [tuple(name for name in _names(names) if name not in used) for names in back.spec]
    # Axes move first and are left out then: of both at once the compiler makes a whole array on every device.
    wanted = [(*_names(names), *rest) for names, rest in zip(there.spec, kept, strict=True)]
    x = jax.lax.with_sharding_constraint(x, _divided(there.mesh, wanted, x.shape))
    return jax.lax.with_sharding_constraint(x, there)


# The cotangent goes straight to where the parameter lives: one fused reduce-scatter, and no all-reduce.
_moved.defvjp(
    lambda x, there, back: (_moved(x, there, back), None),
    lambda there, back, _, g: (jax.lax.with_sharding_constraint(g, back),),
)


def gather(weight: Array, axes: tuple[str | None, ...], dtype: np.dtype) -> Array:
    """A parameter of logical `axes` in `dtype`, whole but for tensor parallelism, for use in a matrix product; cast
    while still sharded, so that the gather moves the narrower type."""
    weight = weight.astype(dtype)
    mesh = current()
    if mesh is None:
        return weight
    stored = parameter_sharding(mesh, axes, weight.shape)
    return _moved(weight, parameter_sharding(mesh, axes, weight.shape, GATHERED_RULES), stored)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over all axes but tensor."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def batch_parts(mesh: Mesh | None) -> int:
    """In how many parts the mesh divides the rows of a batch; 1 without one."""
    return shards(mesh, "batch")


def local_rows(mesh: Mesh, rows: int) -> list[int]:
    """The rows of a micro-batch of `rows` rows that this process's devices hold, in order.

    Processes that share a tensor group hold the same rows. Raises UserError when the mesh does not divide `rows`.
    """
    parts = batch_parts(mesh)
    if rows % parts:
        shape = ", ".join(f"{axis}:{mesh.shape[axis]}" for axis in ("data", "fsdp"))
        raise FieldError(
            Field("data.rows"), f"={rows} is not a multiple of {parts}, the mesh's {shape}: no device may idle"
        )
    places = batch_sharding(mesh).addressable_devices_indices_map((rows,)).values()
    return sorted({row for index in places if index for row in range(rows)[index[0]]})


def place_batch(mesh: Mesh, batch: dict[str, np.ndarray], rows: int, held: Sequence[int]) -> dict[str, Array]:
    """The micro-batch of `rows` rows, on all processes' devices, of which `batch` has the rows `held` here."""
    where, first = batch_sharding(mesh), {row: number for number, row in enumerate(held)}

    def put(mine: np.ndarray) -> Array:
        def part(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(rows)
            return mine[first[start] : first[start] + stop - start]

        return jax.make_array_from_callback((rows, *mine.shape[1:]), where, part)

    return {name: put(value) for name, value in batch.items()}


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def place(value: Any, where: NamedSharding) -> Array:
    """`value`, which every process has in whole, on the devices of `where`; each copies its own part alone."""
    if where.is_fully_addressable or not getattr(value, "is_fully_addressable", True):
        return jax.device_put(value, where)  # a global value is moved by all processes together
    host = np.asarray(value)
    return jax.make_array_from_callback(host.shape, where, lambda index: host[index])
