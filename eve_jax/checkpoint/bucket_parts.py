"""Arrays of a checkpoint in a bucket, of which this process has a part: one index of all parts, and reading by it.

An item is a database of TensorStore (OCDBT) whose index refers to the parts ocdbt.process_N below the same folder. What
is here is read here, the other parts in the bucket, and of these no more than the shards of this process.
"""

import math
import shutil
from collections.abc import Collection, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts

from eve_jax.checkpoint.checksums import MANIFEST
from eve_jax.errors import UserError, shorten
from eve_jax.process import buckets, places
from eve_jax.process.fetched import writer_of
from eve_jax.process.files import read_json
from eve_jax.process.published import published

INDEX, DATA = "manifest.ocdbt", "d"  # of a database: its root, and the folder of what it refers to
ARRAY = "/.zarray"  # after an array's name: its description, next to its chunks
PART = "ocdbt.process_{}/"
AT_ONCE = 16  # arrays that are read at a time
# As Orbax writes them: descriptions of arrays lie in the index.
CONFIG = {"max_inline_value_bytes": 1024, "max_decoded_node_bytes": 100_000_000, "manifest_kind": "single"}


def in_parts(step: Path) -> bool:
    """Return whether this process may have a part alone of the checkpoint `step`."""
    work = published(step)
    return work is not None and work.others is not None


def merge(made: Path, url: str, files: Collection[str], processes: int) -> None:
    """Make the index of all parts of the checkpoint in `made`, of which those of other processes are at `url` already.

    files: the names of all of the parts. Raises OSError.
    """
    items = {name.split("/")[0] for name in files if name.split("/")[1:2] and name.split("/")[1].startswith("ocdbt.")}
    for item in sorted(items):
        (made / item / INDEX).unlink(missing_ok=True)  # which Orbax made of the part of this process
        shutil.rmtree(made / item / DATA, ignore_errors=True)
        base = _base(made / item, places.join(url, item), range(1, processes))
        with buckets.refusals(url):
            _merge(base, [PART.format(n) for n in range(processes) if f"{item}/{PART.format(n)}{INDEX}" in files])


def _merge(base: dict[str, Any], parts: Sequence[str]) -> None:
    context, transaction, patience = ts.Context(), ts.Transaction(atomic=True), buckets.PATIENCE * 5
    whole = {"driver": "ocdbt", "base": base, "config": CONFIG, "assume_config": True}
    parent = ts.KvStore.open(whole, context=context).result(timeout=patience).with_transaction(transaction)
    for part in parts:
        own = {"driver": "ocdbt", "base": base | {"path": part}}
        child = ts.KvStore.open(own, context=context).result(timeout=patience)
        child.experimental_copy_range_to(parent).result(timeout=patience)
    keys = {key.decode() for key in parent.list().result(timeout=patience)}
    described = {key.removesuffix(ARRAY) for key in keys if key.endswith(ARRAY)}
    if lacking := described ^ {key.rpartition("/")[0] for key in keys if not key.endswith(ARRAY)}:
        raise ValueError(f"no process has written all of {sorted(lacking)[0]}")
    transaction.commit_async().result(timeout=patience)


def _base(item: Path, url: str, elsewhere: Collection[int]) -> dict[str, Any]:
    """The files of `item` here, but for the parts of the processes `elsewhere`, which are below `url`."""
    here = {"base": {"driver": "file", "path": f"{item}/"}}
    layers = [{"prefix": p, "base": buckets.folder_spec(f"{url}/{p[:-1]}")} for p in map(PART.format, elsewhere)]
    return {"driver": "kvstack", "layers": [here, *layers]}


def read(step: Path, item: str, wanted: Any) -> Any:
    """Return the tree `wanted` of abstract arrays with shardings, read from `item` of the checkpoint `step`.

    Raises UserError where it lacks one or has it in another shape, and where it cannot be read.
    """
    folder, url = step.resolve() / item, places.join(str(places.url_of(step)), item)
    here: dict[int, bool] = {}  # whether all of a process's files are
    for name in read_json(step / MANIFEST)["files"]:
        if (writer := writer_of(name)) is not None and name.startswith(f"{item}/ocdbt."):
            here[writer] = here.get(writer, True) and (step / name).is_file()
    base = _base(folder, url, [number for number, all_here in here.items() if not all_here])
    context = ts.Context()
    names, leaves = (
        jax.tree.leaves(ocp.tree.get_param_names(wanted, include_empty_nodes=False)),
        jax.tree.leaves(wanted),
    )
    found: list[jax.Array] = []
    try:
        pairs = zip(names, leaves, strict=True)
        while some := list(islice(pairs, AT_ONCE)):
            patience = buckets.PATIENCE + sum(_bytes(leaf) for _, leaf in some) / buckets.SLOWEST
            with buckets.refusals(url):
                opening = [_opened(base, name, context) for name, _ in some]
                stores = [store.result(timeout=patience) for store in opening]
                reading = [_reading(step, store, leaf) for store, (_, leaf) in zip(stores, some, strict=True)]
                shards = [{key: part.result(timeout=patience) for key, part in parts.items()} for parts in reading]
            found += [_placed(leaf, parts) for (_, leaf), parts in zip(some, shards, strict=True)]
    except OSError as error:
        raise UserError(f"{places.shown(str(step))} cannot be read ({shorten(str(error.strerror))})") from error
    return jax.tree.unflatten(jax.tree.structure(wanted), found)


def _bytes(leaf: Any) -> int:
    """Bytes of the shards that this process has of an array."""
    shards = leaf.sharding.addressable_devices_indices_map(leaf.shape)
    return len(shards) * math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def _opened(base: dict[str, Any], name: str, context: ts.Context) -> Any:
    return ts.open(
        {"driver": "zarr", "kvstore": {"driver": "ocdbt", "base": base, "path": f"{name}/"}}, read=True, context=context
    )


def _reading(step: Path, store: Any, leaf: Any) -> dict[str, Any]:
    """The shards of this process of an array, each once, by their places, on their way."""
    if store.shape != leaf.shape:
        raise UserError(f"{places.shown(str(step))}: an array has the shape {store.shape}, not {leaf.shape}")
    shards = leaf.sharding.addressable_devices_indices_map(leaf.shape).values()
    return {str(index): store[index].read() for index in shards}


def _placed(leaf: Any, shards: dict[str, Any]) -> jax.Array:
    values = {key: np.asarray(value).astype(leaf.dtype, copy=False) for key, value in shards.items()}
    return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: values[str(index)])
