"""Safetensors files read and written one tensor at a time.

The format is 8 bytes of header length, a JSON header (name -> dtype, shape, data_offsets) and the raw data. The
`safetensors` library maps files into memory, whose pages count as ours, and writes whole files from memory; a
conversion larger than memory needs plain reads and a writer that knows every offset beforehand.
"""

import json
import math
import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

from eve_jax.errors import UserError, amount, shorten, warn
from eve_jax.process.files import read_json
from eve_jax.process.hub import complete
from eve_jax.process.inside import is_plain_name
from eve_jax.process.strict_json import without_repeats

ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# Tables that old checkpoints hold next to the weights, computed from the config: positions, rotary frequencies, masks.
BUFFERS = re.compile(
    r"(.*\.)?(position_ids|rotary_emb\.(original_inv_freq|inv_freq|(cos|sin)(_cached)?)|(self_)?attn\.(masked_)?bias)"
)
MAX_HEADER = 100_000_000  # the format's own limit, bytes
MOST_SIDES = 32  # of a tensor; NumPy before version 2 has no more
DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(jnp.bfloat16)}
INTEGERS = {"I8": np.dtype(np.int8), "U8": np.dtype(np.uint8)}  # of quantized weights
CODES = {dtype: code for code, dtype in (DTYPES | INTEGERS).items()}


class TensorInfo(NamedTuple):
    """Where a tensor is: file, dtype, shape, and the byte at which its data starts."""

    file: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def nbytes(self) -> int:
        """Bytes of data."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, first: int = 0, stop: int | None = None) -> np.ndarray:
        """The tensor, or its rows from `first` to before `stop`, in memory of its own."""
        shape = self.shape if stop is None else (stop - first, *self.shape[1:])
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        size = math.prod(shape) * self.dtype.itemsize
        with self.file.open("rb") as f:
            f.seek(self.start + first * row)
            flat = np.fromfile(f, np.uint8, size)
        if flat.size != size:
            raise UserError(f"{self.file} has become shorter while it was read")
        return flat.view(self.dtype).reshape(shape)


def _read_header(path: Path, known: Mapping[str, np.dtype]) -> dict[str, TensorInfo]:
    size = path.stat().st_size
    with path.open("rb") as f:
        head = f.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 0 < length <= MAX_HEADER:
            raise UserError(f"{path} is no safetensors file{'; fetch it again' if size else ': it is empty'}")
        raw = f.read(length)
    if len(raw) < length:
        raise UserError(f"{path} is truncated: its header ends after {amount(size, 'byte')}; fetch it again")
    try:
        header = json.loads(raw, object_pairs_hook=without_repeats)
        header.pop("__metadata__", None)
        spans = {name: (v["dtype"], tuple(v["shape"]), *v["data_offsets"]) for name, v in header.items()}
        valid = all(
            isinstance(code, str) and all(type(n) is int and n >= 0 for n in (*shape, start, end)) and _is_shape(shape)
            for code, shape, start, end in spans.values()
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        valid = False
    if not valid:
        raise UserError(f"{path} is no safetensors file: its header cannot be read")
    promised = 8 + length + max((s[3] for s in spans.values()), default=0)
    if size < promised:
        raise UserError(f"{path} is truncated: {amount(size, 'byte')} of {promised:,}; fetch it again")
    _check_layout(path, spans, size - 8 - length)
    return {
        name: _tensor(path, name, span, 8 + length, known)
        for name, span in spans.items()
        if not BUFFERS.fullmatch(name)
    }


def _is_shape(shape: tuple[int, ...]) -> bool:
    """Whether an array can have the shape, also where it is empty and a side is not."""
    return len(shape) <= MOST_SIDES and math.prod(n for n in shape if n) < 1 << 60


def _check_layout(path: Path, spans: Mapping[str, tuple[str, tuple[int, ...], int, int]], size: int) -> None:
    """Raise UserError unless the tensors fill the `size` bytes of data without overlap or gap, as the format has it."""
    at = 0
    for name, (_, _, start, end) in sorted(spans.items(), key=lambda item: item[1][2:]):
        if start != at:
            raise UserError(
                f"{path} is damaged: tensor {name} begins at byte {start} of the data, the one before it ends at {at}; "
                "fetch it again"
            )
        at = end
    if size != at:
        raise UserError(f"{path} is damaged: {size - at} bytes after its last tensor; fetch it again")


def _tensor(
    path: Path, name: str, span: tuple[str, tuple[int, ...], int, int], data: int, known: Mapping[str, np.dtype]
) -> TensorInfo:
    code, shape, start, end = span
    if code not in known:
        raise UserError(f"{path}: tensor {name} is of type {code}; known: {', '.join(known)}")
    info = TensorInfo(path, known[code], shape, data + start)
    if info.nbytes != end - start:
        raise UserError(f"{path}: tensor {name} of shape {shape} cannot be {end - start} bytes long")
    return info


def open_tensors(folder: Path, quantized: bool = False) -> dict[str, TensorInfo]:
    """Every tensor of a Hugging Face folder: model.safetensors, or the shards of model.safetensors.index.json.

    Types are DTYPES, of `quantized` weights also INTEGERS. Reads headers alone, and leaves out BUFFERS; other files are
    not looked at. Raises UserError naming what is missing, truncated, or in two shards, and when the folder holds a
    PEFT adapter or two sets of weights.
    """
    refuse_adapter(folder)
    known = DTYPES | INTEGERS if quantized else DTYPES
    index, single = folder / INDEX, folder / SINGLE
    if not index.is_file():
        if not single.is_file():
            complete(folder)
        if not single.is_file():
            hint = "; save it again as safetensors" if any(folder.glob("*.bin")) else ""
            raise UserError(f"{folder} has neither {SINGLE} nor {INDEX}{hint}")
        return _read_header(single, known)
    where = read_json(index).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(name, str) for name in where.values()):
        raise UserError(f"{index} is no index of safetensors files")
    for name in where.values():
        if not is_plain_name(name):
            raise UserError(f"{index}: names the shard {shorten(repr(name), 100)}, which is no file of its folder")
    shards = sorted(set(where.values()))
    if single.is_file() and SINGLE not in shards:
        raise UserError(
            f"{folder} has both {SINGLE} and {INDEX} with other files: remove the one that is not the model"
        )
    for path in sorted(folder.glob("model*.safetensors")):
        if path.name not in shards:
            warn(f"{path} is not read: {INDEX} does not name it")
    if not all((folder / name).is_file() for name in shards):
        complete(folder)
    found: dict[str, TensorInfo] = {}
    for name in shards:
        path = folder / name
        if not path.is_file():
            raise UserError(f"{folder}: shard {name} is missing, which {INDEX} names")
        for tensor, info in _read_header(path, known).items():
            if tensor in found:
                raise UserError(f"{folder}: tensor {tensor} is in two shards, {found[tensor].file.name} and {name}")
            if where.get(tensor) != name:
                raise UserError(f"{path}: tensor {tensor} is here, but not according to {INDEX}")
            found[tensor] = info
    lost = sorted(name for name in where.keys() - found.keys() if not BUFFERS.fullmatch(name))
    if lost:
        raise UserError(f"{folder}: tensor {lost[0]} is in {INDEX}, but not in shard {where[lost[0]]}")
    return found


def refuse_adapter(folder: Path) -> None:
    """Raise UserError when a PEFT adapter is in the folder: `transformers` would add it to the weights there."""
    for name in ADAPTER:
        if (folder / name).is_file():
            raise UserError(
                f"{folder / name}: this is a PEFT adapter (LoRA or the like); merge it into its base model first "
                "(merge_and_unload, save_pretrained) and take that folder"
            )


class TensorWriter:
    """Writes the tensors `specs` (name, dtype, shape), in any order, into shards laid out beforehand.

    With one shard the file is model.safetensors, else model-0000i-of-0000n.safetensors and the index. A shard holds
    at most `max_bytes` unless a single tensor is larger.
    """

    def __init__(self, folder: Path, specs: Sequence[tuple[str, np.dtype, tuple[int, ...]]], max_bytes: int):
        shards: list[list[tuple[str, np.dtype, tuple[int, ...], int]]] = []
        room = 0
        for name, dtype, shape in specs:
            size = math.prod(shape) * dtype.itemsize
            if not shards or size > room:
                shards.append([])
                room = max_bytes
            shards[-1].append((name, dtype, shape, size))
            room -= size
        self.places: dict[str, tuple[BinaryIO, int, np.dtype, tuple[int, ...]]] = {}
        self.files: list[BinaryIO] = []
        where: dict[str, str] = {}
        for i, shard in enumerate(shards, 1):
            name = SINGLE if len(shards) == 1 else f"model-{i:05d}-of-{len(shards):05d}.safetensors"
            self._lay_out(folder / name, shard)
            where |= {tensor: name for tensor, *_ in shard}
        if len(shards) > 1:
            total = sum(size for shard in shards for *_, size in shard)
            index = {"metadata": {"total_size": total}, "weight_map": where}
            (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")

    def _lay_out(self, path: Path, shard: list[tuple[str, np.dtype, tuple[int, ...], int]]) -> None:
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers refuses files without it
        end = 0
        for name, dtype, shape, size in shard:
            header[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [end, end + size]}
            end += size
        raw = json.dumps(header, separators=(",", ":")).encode()
        raw += b" " * (-len(raw) % 8)
        file = path.open("wb")
        self.files.append(file)
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)
        for name, dtype, shape, _ in shard:
            self.places[name] = (file, 8 + len(raw) + header[name]["data_offsets"][0], dtype, shape)

    def write(self, name: str, value: np.ndarray) -> None:
        """Write one tensor; each is written once."""
        file, at, dtype, shape = self.places.pop(name)
        if (value.dtype, value.shape) != (dtype, shape):
            raise ValueError(f"{name}: {value.dtype} {value.shape} in the place of {dtype} {shape}")
        file.seek(at)
        file.write(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)

    def __enter__(self) -> "TensorWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for file in self.files:
            file.close()
        if kind is None and self.places:
            raise ValueError(f"{len(self.places)} tensors were never written, {min(self.places)} first")


def check_names(
    where: str,
    expected: Iterable[tuple[str, tuple[int, ...]]],
    found: Mapping[str, tuple[int, ...]],
    ignored: Callable[[str], bool] = lambda name: False,
) -> None:
    """UserError unless `found` (name -> shape) is exactly what is `expected`, apart from the `ignored`."""
    wanted: dict[str, tuple[int, ...]] = {}
    for name, shape in expected:
        if name in wanted:
            raise ValueError(f"the table of names has {name} twice")
        wanted[name] = shape
    missing = [n for n in wanted if n not in found]
    if missing:
        raise UserError(f"{where}: tensor {missing[0]} is missing ({len(missing)} such)")
    unknown = sorted(n for n in found if n not in wanted and not ignored(n))
    if unknown:
        raise UserError(f"{where}: tensor {unknown[0]} is unknown to this model ({len(unknown)} such)")
    for name, shape in wanted.items():
        if tuple(found[name]) != shape:
            raise UserError(f"{where}: tensor {name} has shape {tuple(found[name])}, the model requires {shape}")
