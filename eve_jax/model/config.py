"""Sizes and switches of a model; `eve_jax.model.llms` is the table of base LLMs."""

from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from itertools import combinations
from typing import Any

from eve_jax.errors import Field, FieldError
from eve_jax.model.clip_config import DEEPEST, LARGEST, ClipConfig, EncoderConfig, refuse_ratio
from eve_jax.model.family_config import check_family, check_turns
from eve_jax.model.lora_config import Lora
from eve_jax.model.splash_blocks import Kernel, parse_blocks
from eve_jax.model.v1_config import V1Fields
from eve_jax.process.checks import hint, near_name, unexpected
from eve_jax.process.section import setting

ROUTINGS = ("split", "masked")
REMATS = ("full", "attention", "host", "none")
ATTENTIONS = ("auto", "chunked", "blocked", "splash", "flash", "cudnn")
# Kinds of layers: attention to all earlier tokens of the sample, to the last `window` of them, to all without rotary.
KINDS = ("full", "local", "nope")
ROPE_TYPES = {"llama3": 4, "linear": 1, "yarn": 6, "proportional": 1}  # and how many numbers `rope_scaling` has then
QK_NORMS = ("none", "head", "projection")
NORMS = ("before", "after", "both")
ACTIVATIONS = ("silu", "gelu_tanh")
# Parts of a layer that may exist once for text and once for vision (EVEv2 paper, Fig. 2); upstream's `moe_part`.
TWICE = ("layernorm", "self_attn", "mlp")
DELTA = "delta"  # gated deltas on the feed-forward's up and down weights, for all tokens (EVEv1.2, ReP)


@dataclass(frozen=True)
class Part:
    """A part of a layer with several sets of weights: `text` for text tokens, and for vision tokens those named here.

    of: which part, one of TWICE. patches, specials: the set for image patches and the one for the special tokens of an
    image; by default both have one set. A set is also a group (`eve_jax.model.weight.groups`) that trains or stays
    frozen, and starts as a copy of the text weights.
    """

    of: str
    patches: str = "vision"
    specials: str = "vision"

    def __post_init__(self) -> None:
        wrong = [name for name in self.sets if not name.isidentifier() or name == "text"]
        if self.of not in TWICE or wrong:
            raise ValueError(f"{self}: expected a part of {', '.join(TWICE)}, and sets with names other than text")

    @property
    def sets(self) -> tuple[str, ...]:
        """Names of the sets for vision tokens, each once."""
        return tuple(dict.fromkeys((self.patches, self.specials)))


# What `model.parts` may list, next to DELTA. An entry is all that another division of a part's weights takes.
PARTS: dict[str, Part] = {name: Part(name) for name in TWICE}
VARIANTS: dict[str, tuple[str, ...]] = {"dense": (), "rep": (DELTA,), "moe": ("mlp",), "dac": TWICE}


def parts_of(variant: Any) -> tuple[str, ...]:
    """Return the parts that exist twice in a `variant`. Raise FieldError for an unknown one."""
    if not isinstance(variant, str) or variant not in VARIANTS:
        raise unexpected(Field("model.variant"), variant, f"one of {', '.join(VARIANTS)}")
    return VARIANTS[variant]


def check_parts(parts: tuple[str, ...]) -> None:
    """Raise FieldError for unknown parts, two that divide the same weights, and DELTA next to others."""
    text, known = ",".join(parts), (*PARTS, DELTA)
    for name in parts:
        if name not in known:
            raise FieldError(
                Field("model.parts"),
                f"={text!r}: unknown part {name!r}; known: {', '.join(known)}",
                hint(near_name(name, known)),
            )
    if DELTA in parts and len(parts) > 1:
        raise FieldError(Field("model.parts"), f"={text!r}: {DELTA} goes with no other part")
    for one, other in combinations((name for name in parts if name in PARTS), 2):
        if PARTS[one].of == PARTS[other].of:
            text = f"={text!r}: {one} and {other} both divide {PARTS[one].of}; choose one of them"
            raise FieldError(Field("model.parts"), text)


def parse_parts(text: str) -> tuple[str, ...]:
    """Return the parts that `text` lists, "layernorm,mlp" or "none", in the order of PARTS; unknown ones come last."""
    if (names := [name.strip() for name in text.split(",")]) == ["none"]:
        return ()
    known = list(PARTS)
    return tuple(sorted(dict.fromkeys(names), key=lambda name: known.index(name) if name in PARTS else len(known)))


DTYPES = ("float32", "bfloat16", "float16")
TRAINED = ("float32", "bfloat16")  # of what trains: gradients in float16 would have to be scaled
V1_HEADS = 8  # of every attention of EVEv1's own


@dataclass(frozen=True)
class ModelFields(V1Fields):
    """The fields that the sizes of a model (`ModelConfig`) and a config's section `model` have in common.

    Letters as in docs/model.md#notation: D = hidden_size, F = intermediate_size, N = num_heads, K = num_kv_heads,
    H = head_dim, Q = vocab_size. docs/backbones.md#switches has what tells the base LLMs apart, from `rope_type` to
    `qk_norm`. A patch is 2x2 blocks of `sub_patch` pixels a side, whatever the `patch_embed`.
    `align_width` > 0 is the width of the teacher that the patch aligning layer, which is then there, learns from;
    `teacher` the teacher itself, when the model carries it. Both matter in training alone, with `align_weight` > 0.
    `encoder`: of `patch_embed` clip, whose patches are its patches. `codes` of `patch_embed` vq.
    """

    PATH = "model."

    vocab_size: int = setting(low=1, high=LARGEST)
    hidden_size: int = setting(low=1, high=LARGEST)
    intermediate_size: int = setting(low=1, high=LARGEST)
    num_layers: int = setting(low=1, high=DEEPEST)
    num_heads: int = setting(low=1, high=LARGEST)
    num_kv_heads: int = setting(low=1, high=LARGEST)
    head_dim: int = setting(low=1, high=LARGEST)
    rope_theta: float = setting(1e6, low=0, between=True)
    rope_scaling: tuple[float, ...] = setting((), low=0)
    rope_type: str = setting("llama3", tuple(ROPE_TYPES))
    local_rope_theta: float = setting(0.0, low=0)
    layer_kinds: tuple[str, ...] = setting(("full",), KINDS)
    window: int = setting(0, low=0)
    rms_norm_eps: float = setting(1e-6, low=0, between=True)
    norms: str = setting("before", NORMS)
    norm_plus_one: bool = False
    qk_norm: str = setting("none", QK_NORMS)
    attention_size: float = setting(0.0, low=0)
    activation: str = setting("silu", ACTIVATIONS)
    scale_embeddings: bool = False
    qkv_bias: bool = True
    tie_embeddings: bool = False
    parts: Any = None  # of a type that the subclass states
    routing: str = setting("split", ROUTINGS)
    patch_hidden: int = setting(1024, low=1, high=LARGEST)
    sub_patch: int = setting(16, low=1)
    align_weight: float = setting(0.0, low=0)
    align_width: int = setting(0, low=0, multiple=V1_HEADS)
    teacher: ClipConfig | None = None
    encoder: EncoderConfig | None = None
    codes: int = setting(0, low=0, high=1 << 16)
    dtype: str = setting("bfloat16", DTYPES)
    param_dtype: str = setting("float32", DTYPES)
    frozen_dtype: str = setting("bfloat16", DTYPES)
    remat: str = setting("full", REMATS)
    attention: str = setting("auto", ATTENTIONS)
    attention_blocks: str = ""

    def check(self) -> None:
        """Raise FieldError for fields that do not go together."""
        if self.patch_embed == "v1" and self.patch_hidden % V1_HEADS:
            wanted = f"a multiple of the {V1_HEADS} heads of patch_embed=v1"
            raise unexpected(Field("model.patch_hidden"), self.patch_hidden, wanted)
        self._check_encoder()
        parse_blocks(self.attention_blocks)
        self.check_v1()
        if self.align_width and self.num_layers < self.align_every:
            wanted = f"at least {self.align_every}, the layers between two that the aligning layer looks at"
            raise unexpected(Field("model.num_layers"), self.num_layers, wanted)
        if self.aligns and (self.teacher is None or self.align_width != self.teacher.hidden_size):
            raise FieldError(
                Field("model.align_weight"), " is above 0, but the model has no teacher, or another's aligning layer"
            )
        if self.rope_scaling and len(self.rope_scaling) != ROPE_TYPES[self.rope_type]:
            count = f"() or {ROPE_TYPES[self.rope_type]} numbers for rope_type={self.rope_type}"
            raise unexpected(Field("model.rope_scaling"), self.rope_scaling, count)
        if not self.layer_kinds:
            raise unexpected(Field("model.layer_kinds"), self.layer_kinds, f"some of {', '.join(KINDS)}")
        local = "local" in self.layer_kinds
        for field, value in (("window", self.window), ("local_rope_theta", self.local_rope_theta)):
            if value and not local:
                kinds = Field("model.layer_kinds")
                raise FieldError(Field(f"model.{field}"), f"={value:g} needs local layers in ", kinds)
        if local and not self.window:
            raise unexpected(Field("model.window"), self.window, "the tokens that a local layer sees")
        if self.num_heads % self.num_kv_heads:
            refuse_ratio(self, "num_heads", "num_kv_heads")
        for name in ("patch_token", "close_token"):
            if (token := getattr(self, name)) >= self.vocab_size:
                wanted = f"one of the {self.vocab_size} tokens of the vocabulary, or -1 for none"
                raise unexpected(Field(f"model.{name}"), token, wanted)
        check_family(self, self.num_layers, self.head_dim, self.layer_kinds, self.align_width > 0)
        check_turns(self)

    def _check_encoder(self) -> None:
        field, clip = Field("model.encoder"), Field("model.patch_embed")
        if (self.patch_embed == "clip") != (self.encoder is not None):
            is_given = "not given" if self.encoder is None else "given"
            raise FieldError(
                clip, f"={self.patch_embed}, and ", field, f" is {is_given}: clip has an encoder, others none"
            )
        if (self.patch_embed == "vq") != (self.codes > 0):
            raise FieldError(Field("model.codes"), f"={self.codes}, and ", clip, f"={self.patch_embed}: vq has codes")
        if self.encoder is not None and self.encoder.patch_size != 2 * self.sub_patch:
            wanted = f"half of the {self.encoder.patch_size} pixels of the encoder's patches"
            raise unexpected(Field("model.sub_patch"), self.sub_patch, wanted)
        if self.encoder is not None and self.align_width:
            raise FieldError(Field("model.align_width"), " is of EVEv1's aligning layer, which goes without an encoder")

    @property
    def aligns(self) -> bool:
        """True when training adds the aligning loss."""
        return self.align_weight > 0


@dataclass(frozen=True)
class ModelConfig(ModelFields):
    """Sizes and switches of one model; hashable, so that it may be closed over by compiled functions.

    parts: those of TWICE that exist for text and for vision, or DELTA alone. lora: the adapters of a run that trains
    them.
    """

    parts: tuple[str, ...] = VARIANTS["dac"]
    lora: Lora | None = None

    def divided(self, of: str) -> Part | None:
        """Return how the part `of` (one of TWICE) is divided into sets of weights; None when it has a single one."""
        return next((PARTS[name] for name in self.parts if name in PARTS and PARTS[name].of == of), None)

    def check(self) -> None:
        """Raise FieldError for fields that do not go together, and for parts that no layer has."""
        super().check()
        check_parts(self.parts)

    @property
    def kernel(self) -> Kernel:
        """The kernel of attention, with the sizes of its tiles."""
        return Kernel(self.attention, tuple(parse_blocks(self.attention_blocks).items()))

    @property
    def qk_dim(self) -> int:
        """Size of a head of queries and keys; values have `head_dim`."""
        return 2 * self.head_dim if self.rope == "thw" else self.head_dim

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of layers that there are, each once."""
        return tuple(dict.fromkeys(self.layer_kinds[: self.num_layers]))

    @property
    def kind_numbers(self) -> tuple[int, ...]:
        """Of each layer the place of its kind in `kinds`: those of `layer_kinds` take turns."""
        repeated = self.layer_kinds
        return tuple(self.kinds.index(repeated[i % len(repeated)]) for i in range(self.num_layers))

    @property
    def align_levels(self) -> int:
        """How many layers' hidden states the patch aligning layer looks at: the last, and those in steps below it."""
        return self.num_layers // self.align_every + 1 if self.align_width else 0

    @property
    def patch_bytes(self) -> int:
        """Bytes of a patch: 2x2 blocks of RGB pixels, or the number of a code."""
        return 2 if self.codes else 12 * self.sub_patch**2

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """From the section `model` of a config.json; `variant` names the parts where `parts` is unset.

        Raises FieldError for values that are missing or wrong; other names, of another version, are ignored.
        """
        known = {f.name for f in fields(cls)}
        kept = {k: v for k, v in values.items() if k in known}
        if isinstance(kept.get("parts"), str):
            kept["parts"] = parse_parts(kept["parts"])
        if kept.get("parts") is None:
            kept["parts"] = parts_of(values.get("variant", "dac"))
        for f in fields(cls):
            if f.name not in kept and f.default is MISSING:
                raise FieldError("the section `model` has no field ", Field(cls.PATH + f.name))
        return cls.from_values({f.name: f.default for f in fields(cls)} | kept)


@dataclass(frozen=True)
class ModelSection(ModelFields):
    """The section `model` of a stage's config, which names the parts that exist twice as a text, or by `variant`."""

    llm: str = ""
    variant: str = setting("dac", VARIANTS)
    parts: str | None = None
    dtype: str = setting("bfloat16", TRAINED)
    param_dtype: str = setting("float32", TRAINED)

    def check(self) -> None:
        """Raise FieldError for fields that do not go together."""
        super().check()
        check_parts(self.twice)

    @property
    def twice(self) -> tuple[str, ...]:
        """Return the parts that exist twice."""
        return parts_of(self.variant) if self.parts is None else parse_parts(self.parts)

    @cached_property
    def sizes(self) -> ModelConfig:
        """Return what the model is made from."""
        values = {f.name: getattr(self, f.name) for f in fields(ModelFields)}
        return ModelConfig(**values | {"parts": self.twice})
