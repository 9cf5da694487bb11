"""Switches between the members of the encoder-free family: what image tokens see, how they count, which layers are new.

docs/family.md has the table of members; a switch is free to combine with every variant, backbone and routing.
"""

from dataclasses import dataclass, fields
from typing import Any

from eve_jax.batch import INDEX_RULES, SEES, Layout
from eve_jax.errors import Field, FieldError
from eve_jax.process.checks import unexpected
from eve_jax.process.section import Section, setting

# Patch embeddings: EVEv2's two convolutions, EVEv1's convolution with attention within windows and images, NEO's two
# convolutions with rotary positions between them, SAIL's matrix, those with tables of rows and columns (the $100
# model's, Gemma 4 Unified's); of the baselines a vision encoder's projector (clip), and a table of codes (vq).
PLACED = ("ln_linear_pos", "ln_linear_pos_norm")
PATCH_EMBEDS = ("v2", "v1", "conv_gelu_rope", "linear", *PLACED, "clip", "vq")
# Rotary positions: one number a token; queries and keys with a further part for row and column; or the pairs of a head
# in two halves, by rows and by columns.
ROPES = ("1d", "thw", "sections")


# Kinds of layers whose values are their keys, and where an image sees itself.
KEY_VALUES = ("none", "full")
REACHES = ("all", "window")


@dataclass(frozen=True, kw_only=True)
class FamilyFields(Section):
    """The fields of a model by which members of the family differ.

    image_attention, index_rule: what a token sees besides those before it, and how rotary positions count
    (`eve_jax.batch.Layout`). place_theta: of the rows and columns of rope=thw. patch_theta: of those within
    patch_embed=conv_gelu_rope. patch_sides: the most rows, or columns, of patches of an image, those of the tables of
    patch_embed=ln_linear_pos; 0 for others. patch_token: the token whose embedding is added to every patch (SAIL), -1
    for none. close_token: the token behind the first image that image_attention=prefix counts to the prefix, -1 for
    none. longest_image: the most tokens of an image, 0 for as many as a row has room for: attention on TPUs and GPUs
    looks as far behind each query. extra_layers: how many of `num_layers`, the first ones, are new next to the base
    LLM's and train as a group of their own (NEO's pre-buffer).

    Gemma 4 Unified's: wide_head_dim, wide_kv_heads: size of a head and number of key/value heads in layers that see
    all, next to local ones; 0 where all layers are alike. key_values: of which kind of layers the values are the keys
    before their norm and rotary positions. value_norm: values are normed, without a weight. layer_scale: a layer's
    output is times a number of its own, which does not train. logit_cap: logits are cap tanh(l / cap), 0 for as they
    are. image_reach: an image sees itself in all layers, whatever their window, or in local layers within it.
    """

    PATH = "model."

    patch_embed: str = setting("v2", PATCH_EMBEDS)
    image_attention: str = setting("causal", SEES)
    rope: str = setting("1d", ROPES)
    index_rule: str = setting("token", INDEX_RULES)
    place_theta: float = setting(1e4, low=0, between=True)
    patch_theta: float = setting(1e4, low=0, between=True)
    patch_sides: int = setting(0, low=0)
    patch_token: int = setting(-1, low=-1)
    close_token: int = setting(-1, low=-1)
    longest_image: int = setting(0, low=0)
    extra_layers: int = setting(0, low=0)
    wide_head_dim: int = setting(0, low=0)
    wide_kv_heads: int = setting(0, low=0)
    key_values: str = setting("none", KEY_VALUES)
    value_norm: bool = False
    layer_scale: bool = False
    logit_cap: float = setting(0.0, low=0)
    image_reach: str = setting("all", REACHES)

    @property
    def in_turns(self) -> bool:
        """Whether layers of different kinds have weights of different shapes, and so take turns in a scan."""
        return self.wide_head_dim > 0

    @property
    def layout(self) -> Layout:
        """What the rows of this model hold of images."""
        return Layout.of(self)

    @property
    def whole_images(self) -> bool:
        """Whether an image, or what else sees all of itself, can only be read as a whole."""
        return self.patch_embed in ("v1", "clip") or self.image_attention != "causal"


# The values of EVEv2, and of a model without any member's switches.
EVE_FIELDS: dict[str, Any] = {field.name: field.default for field in fields(FamilyFields)}
# Fields that one value of another alone makes use of.
USED_WITH = {
    "close_token": ("image_attention", "prefix"),
    "place_theta": ("rope", "thw"),
    "patch_theta": ("patch_embed", "conv_gelu_rope"),
}


def check_family(cfg: FamilyFields, layers: int, head_dim: int, kinds: tuple[str, ...], aligning: bool) -> None:
    """Raise FieldError for switches that do not go with `layers` of `kinds`, heads of `head_dim`, or aligning."""
    if (cfg.patch_embed in PLACED) != (cfg.patch_sides > 0):
        kind = f"={cfg.patch_embed}: {' and '.join(PLACED)} have tables of that many rows and columns, others none"
        raise FieldError(Field("model.patch_sides"), f"={cfg.patch_sides}, and ", Field("model.patch_embed"), kind)
    for name, (other, needed) in USED_WITH.items():
        value, unused = getattr(cfg, name), EVE_FIELDS[name]
        if getattr(cfg, other) != needed and value != unused:
            needs, leaves = f"={value:g} needs {needed} as ", f"; without, leave it {unused:g}"
            raise FieldError(Field(f"model.{name}"), needs, Field(f"model.{other}"), leaves)
    if cfg.extra_layers >= layers:
        raise FieldError(
            Field("model.extra_layers"), f"={cfg.extra_layers}: expected fewer than ", Field("model.num_layers")
        )
    if cfg.rope != "1d" and head_dim % 4:
        raise FieldError(
            Field("model.rope"), f"={cfg.rope} requires a multiple of 4 as ", Field("model.head_dim"), f"={head_dim}"
        )
    if cfg.image_attention == "prefix" and "local" in kinds:
        raise FieldError(
            Field("model.image_attention"),
            "=prefix does not go with local layers in ",
            Field("model.layer_kinds"),
        )
    if cfg.image_reach == "window" and (cfg.image_attention != "image" or "local" not in kinds):
        raise FieldError(
            Field("model.image_reach"), "=window needs local layers, and image as ", Field("model.image_attention")
        )
    if aligning and cfg.extra_layers:
        raise FieldError(
            Field("model.extra_layers"),
            f"={cfg.extra_layers} does not go with a patch aligning layer (",
            Field("model.align_width"),
            ")",
        )


def check_turns(cfg: Any) -> None:
    """Raise FieldError for layers of two sizes that do not take turns, or whose caches could not be one.

    cfg: `eve_jax.model.config.ModelFields`.
    """
    wide, kinds = Field("model.wide_head_dim"), Field("model.layer_kinds")
    if not cfg.in_turns:
        if cfg.wide_kv_heads:
            raise FieldError(Field("model.wide_kv_heads"), f"={cfg.wide_kv_heads} needs the size of a head in ", wide)
        if cfg.key_values != "none" and set(cfg.layer_kinds) != {cfg.key_values}:
            raise FieldError(Field("model.key_values"), f"={cfg.key_values} is for all layers, but see ", kinds)
        return
    if set(cfg.layer_kinds) != {"local", "full"} or cfg.num_layers % len(cfg.layer_kinds):
        raise FieldError(wide, f"={cfg.wide_head_dim} needs local and full layers in ", kinds, ", in whole turns")
    for name, alone in (("rope", "1d"), ("extra_layers", 0), ("align_width", 0)):
        if (value := getattr(cfg, name)) != alone:
            goes = f"={value} does not go with layers of two sizes ("
            raise FieldError(Field(f"model.{name}"), goes, wide, f"={cfg.wide_head_dim}): expected {alone}")
    if not cfg.wide_kv_heads or cfg.num_heads % cfg.wide_kv_heads:
        wanted = f"a divisor of the {cfg.num_heads} heads"
        raise unexpected(Field("model.wide_kv_heads"), cfg.wide_kv_heads, wanted)
    most = cfg.num_kv_heads * cfg.head_dim
    if cfg.wide_head_dim % cfg.head_dim or cfg.wide_kv_heads * cfg.wide_head_dim > most:
        wanted = f"a multiple of the {cfg.head_dim} of local layers, keys of all heads together at most {most}"
        raise unexpected(wide, cfg.wide_head_dim, wanted)
