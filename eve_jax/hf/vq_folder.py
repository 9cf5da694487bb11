"""The encoder of a VQGAN in a folder with a config.json and safetensors, in one of the layouts that it is spread in.

chameleon   transformers' `ChameleonVQVAE`, also SBER-MoVQGAN's own names: encoder.down.N.block.J, encoder.mid.block_1
janus       transformers' `JanusVQVAE`, the same names
llamagen    LlamaGen's: encoder.conv_blocks.N.res.J, encoder.mid.0
kandinsky   diffusers' `VQModel` (Kandinsky's movq): encoder.down_blocks.N.resnets.J, encoder.mid_block.attentions.0

Only the encoder and the table are read; the decoder's tensors are ignored.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eve_jax.errors import UserError, name_fields
from eve_jax.hf.config import CONFIG
from eve_jax.hf.safetensors_io import check_names, open_tensors
from eve_jax.model.clip_config import LARGEST
from eve_jax.model.vq import VqConfig, vq_shapes
from eve_jax.process.checks import of_type, unexpected, whole
from eve_jax.process.files import read_json

Params = dict[str, np.ndarray]
IGNORED = re.compile(r"(decoder|post_quant_conv|loss)\..*|quantize\.(?!embedding\.weight$).*")

PREFIXES = ("model.vqmodel.", "vqmodel.")  # of the encoder within a complete Chameleon or Janus
OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # of early files of diffusers


class Names(NamedTuple):
    """How a layout spells parts; {n} is a level, {j} a block of it."""

    block: str
    attention: str
    halve: str
    middle: tuple[str, str, str]
    norm: str = "encoder.norm_out"
    shortcut: str = "nin_shortcut"
    attends: tuple[str, str, str, str, str] = ("norm", "q", "k", "v", "proj_out")


FLAT = Names(
    "encoder.down.{n}.block.{j}",
    "encoder.down.{n}.attn.{j}",
    "encoder.down.{n}.downsample.conv",
    ("encoder.mid.block_1", "encoder.mid.attn_1", "encoder.mid.block_2"),
)
LAYOUTS = {
    "chameleon": FLAT,
    "janus": FLAT,
    "llamagen": Names(
        "encoder.conv_blocks.{n}.res.{j}",
        "encoder.conv_blocks.{n}.attn.{j}",
        "encoder.conv_blocks.{n}.downsample.conv",
        ("encoder.mid.0", "encoder.mid.1", "encoder.mid.2"),
    ),
    "kandinsky": Names(
        "encoder.down_blocks.{n}.resnets.{j}",
        "encoder.down_blocks.{n}.attentions.{j}",
        "encoder.down_blocks.{n}.downsamplers.0.conv",
        ("encoder.mid_block.resnets.0", "encoder.mid_block.attentions.0", "encoder.mid_block.resnets.1"),
        norm="encoder.conv_norm_out",
        shortcut="conv_shortcut",
        attends=("group_norm", "to_q", "to_k", "to_v", "to_out.0"),
    ),
}


def names_of(cfg: VqConfig, layout: str) -> Iterator[tuple[str, str]]:
    """Yield our name of each weight and its name in the `layout`."""
    names = LAYOUTS[layout]

    def pair(ours: str, theirs: str, kind: str = "kernel") -> Iterator[tuple[str, str]]:
        yield f"{ours}.{kind}", f"{theirs}.weight"
        yield f"{ours}.bias", f"{theirs}.bias"

    def residual(ours: str, theirs: str, changes: bool) -> Iterator[tuple[str, str]]:
        for number in (1, 2):
            yield from pair(f"{ours}.norm{number}", f"{theirs}.norm{number}", "scale")
            yield from pair(f"{ours}.conv{number}", f"{theirs}.conv{number}")
        if changes:
            yield from pair(f"{ours}.shortcut", f"{theirs}.{names.shortcut}")

    def attention(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
        norm, *parts = names.attends
        yield from pair(f"{ours}.norm", f"{theirs}.{norm}", "scale")
        for own, part in zip(("q", "k", "v", "out"), parts, strict=True):
            yield from pair(f"{ours}.{own}", f"{theirs}.{part}")

    yield from pair("first", "encoder.conv_in")
    multiples = (1, *cfg.multipliers)
    last = len(cfg.multipliers) - 1
    for n in range(last + 1):
        for j in range(cfg.blocks):
            changes = j == 0 and multiples[n] != multiples[n + 1]
            yield from residual(f"levels.{n}.blocks.{j}", names.block.format(n=n, j=j), changes)
            if cfg.attention and n == last:
                yield from attention(f"levels.{n}.attention.{j}", names.attention.format(n=n, j=j))
        if n < last:
            yield from pair(f"levels.{n}.halve", names.halve.format(n=n))
    yield from residual("middle.0", names.middle[0], False)
    yield from attention("middle.1", names.middle[1])
    yield from residual("middle.2", names.middle[2], False)
    yield from pair("norm", names.norm, "scale")
    yield from pair("last", "encoder.conv_out")
    yield from pair("project", "quant_conv")
    yield "table", "quantize.embedding.weight"


def vq_sizes(folder: Path) -> VqConfig:
    """Return the sizes of the encoder in `folder`. Raises UserError naming the file and the field that is wrong."""
    return _described(folder)[1]


def _described(folder: Path) -> tuple[str, VqConfig]:
    """The layout and the sizes of what is in `folder`."""
    file = folder / CONFIG
    hf = read_json(file)
    try:
        with name_fields(lambda field: field.removeprefix("vq."), f"{file}: "):
            return _sizes(hf)
    except KeyError as error:
        raise UserError(f"{file} has no field {error.args[0]!r}") from error


def read_vq(folder: Path) -> tuple[VqConfig, Params]:
    """Return sizes and weights (float32, by the names of `vq_shapes`) of the encoder in `folder`.

    Raises UserError naming the file and the field or tensor that is missing, unknown or of another shape.
    """
    layout, cfg = _described(folder)
    tensors = _own(open_tensors(folder), layout)
    shapes, pairs = vq_shapes(cfg), dict(names_of(cfg, layout))
    # Attention of diffusers has linear layers, of early versions convolutions of one pixel.
    linear = {n for n in pairs.values() if layout == "kandinsky" and n in tensors and len(tensors[n].shape) == 2}
    expected = ((theirs, _their_shape(ours, shapes[ours].shape, theirs in linear)) for ours, theirs in pairs.items())
    check_names(str(folder), expected, {n: t.shape for n, t in tensors.items()}, lambda n: bool(IGNORED.fullmatch(n)))
    return cfg, {ours: _to_ours(tensors[theirs].read(), shapes[ours].shape) for ours, theirs in pairs.items()}


def _own(tensors: Mapping[str, Any], layout: str) -> dict[str, Any]:
    """The encoder's tensors under the names that it has alone."""
    for prefix in PREFIXES:
        if any(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    if layout != "kandinsky":
        return dict(tensors)
    out = {}
    for name, tensor in tensors.items():
        head, _, kind = name.rpartition(".")
        before, _, part = head.rpartition(".")
        out[f"{before}.{OLD[part]}.{kind}" if part in OLD else name] = tensor
    return out


def _their_shape(ours: str, shape: tuple[int, ...], linear: bool) -> tuple[int, ...]:
    if ours == "table" or len(shape) == 1:
        return shape
    kernel = (shape[3], shape[2], shape[0], shape[1])
    return kernel[:2] if linear else kernel


def _to_ours(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    value = value.astype(np.float32)
    if len(shape) < 4:
        return value
    return value.reshape(*value.shape[:2], *shape[:2]).transpose(2, 3, 1, 0)


def _sizes(hf: Mapping[str, Any]) -> tuple[str, VqConfig]:
    """The layout that config.json is of, and the sizes; raises KeyError for a field that is missing."""
    if hf.get("_class_name") == "VQModel":
        _check_kinds(hf)
        return "kandinsky", _kandinsky(hf)
    kind = str(hf.get("model_type"))
    own = hf.get("vq_config") if kind in ("chameleon", "janus") else hf
    if not isinstance(own, dict):
        raise UserError(f"vq_config is {own!r}: expected the sizes of the encoder")
    _check_kinds(own)
    if kind in ("chameleon", "chameleon_vqgan"):
        return "chameleon", _chameleon(own)
    if kind in ("janus", "janus_vqgan"):
        patch = 2 ** (len(own.get("channel_multiplier", JANUS["channel_multiplier"])) - 1)
        return "janus", VqConfig(own.get("num_patches", 32) * patch, attention=True, **_named(JANUS | own))
    if kind in ("sber_movqgan", "llamagen_vq"):
        given = {name: value for name, value in own.items() if name != "model_type"}
        defaults = VqConfig(cosine=True, latent=256, code_dim=8) if kind == "llamagen_vq" else VqConfig()
        cfg = VqConfig.from_values(defaults.to_dict() | given)
        return "llamagen" if kind == "llamagen_vq" else "chameleon", cfg
    known = "chameleon, chameleon_vqgan, janus, janus_vqgan, sber_movqgan, llamagen_vq, or diffusers' VQModel"
    raise UserError(f"model_type {kind!r} is no VQGAN that eve_jax reads; known: {known}")


NUMBERS = ("resolution", "num_patches")  # fields that sizes are computed from
LISTS = ("channel_multiplier", "block_out_channels")


def _check_kinds(hf: Mapping[str, Any]) -> None:
    """Raise UserError for fields that are not of the kind that sizes are computed from."""
    for name in NUMBERS:
        if name in hf:
            whole(name, hf[name], f"a whole number from 1 to {LARGEST}", 1, LARGEST)
    for name in LISTS:
        value = hf.get(name, [1])
        if not isinstance(value, list) or not value or not all(type(one) is int and one > 0 for one in value):
            raise unexpected(name, value, "a list of whole numbers above 0")
    of_type("down_block_types", hf.get("down_block_types", []), "a list of names", list)


# What the classes of transformers take for absent fields.
CHAMELEON: dict[str, Any] = {
    "base_channels": 128,
    "channel_multiplier": [1, 1, 2, 2, 4],
    "num_res_blocks": 2,
    "latent_channels": 256,
    "embed_dim": 256,
    "num_embeddings": 8192,
}
JANUS = CHAMELEON | {"embed_dim": 8, "num_embeddings": 16_384}


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    if values.get("double_latent"):
        raise UserError("double_latent is true, which eve_jax does not have")
    return {
        "channels": values["base_channels"],
        "multipliers": tuple(values["channel_multiplier"]),
        "blocks": values["num_res_blocks"],
        "latent": values["latent_channels"],
        "code_dim": values["embed_dim"],
        "codes": values["num_embeddings"],
    }


def _chameleon(hf: Mapping[str, Any]) -> VqConfig:
    if hf.get("attn_type", "vanilla") != "vanilla":
        raise UserError(f"attn_type is {hf['attn_type']!r}: eve_jax has 'vanilla'")
    side, sizes = hf.get("resolution", 512), _named(CHAMELEON | dict(hf))
    attends = hf.get("attn_resolutions") or []
    last = side // 2 ** (len(sizes["multipliers"]) - 1)
    if attends not in ([], [last]):
        raise UserError(f"attn_resolutions is {attends!r}: eve_jax has attention in the last level ([{last}]) or none")
    return VqConfig(side, attention=bool(attends), **sizes)


def _kandinsky(hf: Mapping[str, Any]) -> VqConfig:
    channels, kinds = hf["block_out_channels"], hf["down_block_types"]
    plain, attends = "DownEncoderBlock2D", "AttnDownEncoderBlock2D"
    if kinds[:-1] != [plain] * (len(kinds) - 1) or kinds[-1] not in (plain, attends) or len(kinds) != len(channels):
        raise UserError(f"down_block_types is {kinds!r}: eve_jax has {plain}, and {attends} as the last")
    if any(width % channels[0] for width in channels) or hf.get("norm_num_groups", 32) != 32:
        raise UserError(f"block_out_channels is {channels!r}: expected multiples of the first, in 32 groups")
    return VqConfig(
        channels=channels[0],
        multipliers=tuple(width // channels[0] for width in channels),
        blocks=hf["layers_per_block"],
        attention=kinds[-1] == attends,
        latent=hf["latent_channels"],
        code_dim=hf.get("vq_embed_dim") or hf["latent_channels"],
        codes=hf["num_vq_embeddings"],
    )
