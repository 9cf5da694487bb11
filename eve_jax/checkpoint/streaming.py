"""Parameters of an Orbax checkpoint, written and read layer by layer.

Orbax saves trees of whole arrays. Here a leaf is a `Lazy`, whose pieces are made while it is written, so a conversion
holds a layer of one parameter where a plain save would hold the model.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts

from eve_jax.checkpoint.checksums import damage, write_manifest
from eve_jax.checkpoint.frozen_weights import Origin
from eve_jax.checkpoint.stage_folder import AGAIN, CHECKPOINTS
from eve_jax.checkpoint.stored import AVERAGE, OPTIMIZER, stored_averages, stored_shapes
from eve_jax.checkpoint.vision_copies import ParamSource
from eve_jax.checkpoint.weight_fingerprint import Fingerprint
from eve_jax.checkpoint.zero_weights import check_needed
from eve_jax.errors import UserError
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params, abstract_params, declared
from eve_jax.process.fetched import complete_step
from eve_jax.process.published import bring
from eve_jax.version import versioned

CHUNK_BYTES = 1 << 20  # of a stored chunk, which a host reads whole of whose rows it needs any
Done = Callable[[int], None]  # is told the bytes that were converted


class Lazy:
    """An array that is yet to be made: shape, dtype, and its pieces along the first axis when it is `stacked`."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, stacked: bool, pieces: Callable[[], Iterator[np.ndarray]]):
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self.stacked, self.pieces = stacked, pieces
        self.size = math.prod(self.shape)

    @property
    def chunk(self) -> list[int]:
        """Shape of a stored chunk: as many rows of one layer as fit, since `fsdp` divides rows."""
        layer = self.shape[self.stacked :]
        if not layer:
            return [1] * len(self.shape)
        room = max(1, CHUNK_BYTES // (math.prod(layer[1:]) * self.dtype.itemsize))
        rows = max(n for n in range(1, min(room, layer[0]) + 1) if layer[0] % n == 0)
        return [1] * self.stacked + [rows, *layer[1:]]


class _LazyHandler(ocp.type_handlers.NumpyHandler):
    """Writes `Lazy` leaves as Orbax writes NumPy arrays, one after the other and piece by piece."""

    def __init__(self, done: Done):
        super().__init__(deepcopy_host_arrays=False)
        self.done = done

    async def _background_serialize(self, values, infos, args=None):
        for value, info, arg in zip(values, infos, args, strict=True):
            await super()._background_serialize([value], [info], [arg])

    async def _open_and_write(self, value, tspec, ts_context):
        tspec["metadata"]["chunks"] = value.chunk
        store = await ts.open(ts.Spec(tspec), create=True, open=True, context=ts_context)
        for i, piece in enumerate(value.pieces()):
            target = store[i] if value.stacked else store
            await target.write(np.ascontiguousarray(piece), can_reference_source_data_indefinitely=True)
            self.done(piece.nbytes)


def write_checkpoint(folder: Path, source: ParamSource, done: Done, meta: dict[str, Any] | None = None) -> None:
    """Save every parameter of `source` as step 0 of the new stage folder `folder`, one layer in memory at a time.

    `meta` is what the training that made them had saved with them.
    """
    weights = declared(source.cfg)
    tree = {
        name: Lazy(s.shape, s.dtype, weights[name].stacked, partial(source.pieces, name))
        for name, s in source.shapes.items()
    }
    arrays = (jax.Array, ocp.type_handlers.ArrayHandler())  # unused, but Orbax warns when it is not there
    registry = ocp.type_handlers.create_type_handler_registry((Lazy, _LazyHandler(done)), arrays)
    handlers = {
        "params": ocp.PyTreeCheckpointHandler(type_handler_registry=registry),
        "meta": ocp.JsonCheckpointHandler(),
    }
    options = ocp.CheckpointManagerOptions(create=True, enable_async_checkpointing=False)
    target = (folder / CHECKPOINTS).resolve()
    with ocp.CheckpointManager(target, options=options, item_handlers=handlers) as manager:
        items = {
            "params": ocp.args.PyTreeSave(tree),
            "meta": ocp.args.JsonSave(versioned(meta or {"plan": "", "steps": 0})),
        }
        with _unlogged():
            manager.save(0, args=ocp.args.Composite(**items))
    write_manifest(target / "0")


@contextmanager
def _unlogged() -> Iterator[None]:
    """Keep the tracebacks of UserErrors out of Orbax's log: it logs each of them before it raises it here."""

    def wanted(record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], UserError))

    log = logging.getLogger("absl")
    log.addFilter(wanted)
    try:
        yield
    finally:
        log.removeFilter(wanted)


class OrbaxSource:
    """The parameters that a checkpoint of ours holds itself, read by layers as far as they are stored by layers.

    average: those that train as their moving average, in the dtypes of the weights. Raise UserError when it has none.
    """

    def __init__(self, folder: Path, step: int, cfg: ModelConfig, average: bool = False):
        self.cfg, self.folder, self.step = cfg, folder, step
        bring(folder / CHECKPOINTS / str(step), lambda name: average or name.split("/")[0] != OPTIMIZER)
        self.shapes: Params = stored_shapes(folder, step)
        if average:
            complete_step(folder / CHECKPOINTS / str(step))
        self.averages = stored_averages(folder, step) if average else set()
        if average and not self.averages:
            raise UserError(f"{folder}, step {step}: there is no average of the weights (config.optim.ema was 0)")
        if average and (wrong := damage(folder / CHECKPOINTS / str(step), (OPTIMIZER,), needed=OPTIMIZER)):
            raise UserError(f"{folder}: the average of the weights of step {step} is damaged: {wrong}; {AGAIN}")

    def _open(self, name: str) -> ts.TensorStore:
        item, path = (OPTIMIZER, f"{AVERAGE}.{name}/") if name in self.averages else ("params", f"{name}/")
        base = (self.folder / CHECKPOINTS / str(self.step) / item).resolve()
        kvstore = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{base}/"}, "path": path}
        return ts.open({"driver": "zarr", "kvstore": kvstore}, read=True).result()

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Parameter `name`: its layers in order when it is stacked, else the one array.

        Raises UserError for one that is zero everywhere, without which there is no answer.
        """
        array, dtype = self._open(name), self.shapes[name].dtype
        if not declared(self.cfg)[name].stacked:
            value = array.read().result().astype(dtype, copy=False)
            check_needed(f"{self.folder}, step {self.step}", {name: value})
            yield value
            return
        chunk = array.chunk_layout.read_chunk.shape
        layers, step = array.shape[0], (chunk and chunk[0]) or 1
        for start in range(0, layers, step):  # a stored chunk is decoded once, however many layers it holds
            yield from array[start : start + step].read().result().astype(dtype, copy=False)


def check_shapes(folder: Path, cfg: ModelConfig, found: Params) -> None:
    """Raise UserError unless the parameters `found` in `folder` have the names and shapes of a model `cfg`."""
    wanted = abstract_params(cfg)
    for name in sorted(wanted.keys() | found.keys()):
        have, want = found.get(name), wanted.get(name)
        if have is None or want is None or tuple(have.shape) != want.shape:
            raise UserError(
                f"{folder}: parameter {name} is {have and have.shape}, its config says {want and want.shape}"
            )


class Referring:
    """The parameters of a partial checkpoint in `folder`: `own`, and those that it refers to, from their origins."""

    def __init__(self, folder: Path, own: OrbaxSource, others: Sequence[tuple[Origin, ParamSource]]):
        self.folder, self.own, self.cfg = folder, own, own.cfg
        self.origins = {name: (origin, source) for origin, source in others for name in origin.weights}
        self.shapes: Params = dict(own.shapes)
        for name, (origin, source) in self.origins.items():
            dtype = jnp.dtype(origin.weights[name][0])
            self.shapes[name] = jax.ShapeDtypeStruct(source.shapes[name].shape, dtype)
        check_shapes(folder, self.cfg, self.shapes)

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Parameter `name`: its layers in order when it is stacked, else the one array.

        One that is referred to is compared with its fingerprint; UserError, at the end, when it is another.
        """
        if name in self.own.shapes:
            yield from self.own.pieces(name)
            return
        origin, source = self.origins[name]
        total = Fingerprint()
        for piece in source.pieces(name):
            cast = piece.astype(self.shapes[name].dtype, copy=False)
            total.add(cast)
            yield cast
        origin.check(self.folder, {name: total.value})
