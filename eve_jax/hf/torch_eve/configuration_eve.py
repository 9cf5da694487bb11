"""Configuration of EVEv2 and EVEv1 for `transformers`; travels with an exported checkpoint."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig

# How the base LLM differs from Qwen2 and LLaMA: what `eve_jax.llm` in config.json leaves out.
SWITCHES: dict[str, Any] = {
    "layer_kinds": ["full"],  # full | local | nope, which take turns
    "window": 0,  # tokens that a token sees in local layers
    "local_rope_theta": 0.0,  # of rotary positions in local layers, 0 = as in the others
    "norms": "before",  # attention and feed-forward are normed before | after | both
    "norm_plus_one": False,  # a norm's weight is its scale less one
    "qk_norm": "none",  # of queries and keys: none | head (each) | projection (all heads together)
    "attention_size": 0.0,  # scores are divided by its square root, 0 = the size of a head
    "activation": "silu",  # silu | gelu_tanh
    "scale_embeddings": False,  # word embeddings times sqrt(hidden_size)
}


class EveConfig(PretrainedConfig):
    """Sizes of the LLM (names of Qwen2's config) and what EVE adds: `mm_hidden_size`, `add_moe`, `moe_part`."""

    model_type = "eve-qwen2"
    keys_to_ignore_at_inference = ("past_key_values",)

    def __init__(
        self,
        vocab_size: int = 152064,
        hidden_size: int = 3584,
        intermediate_size: int = 18944,
        num_hidden_layers: int = 28,
        num_attention_heads: int = 28,
        num_key_value_heads: int | None = None,
        head_dim: int | None = None,
        max_position_embeddings: int = 32768,
        rms_norm_eps: float = 1e-6,
        rope_theta: float = 1e6,
        rope_scaling: dict[str, Any] | None = None,
        rope_parameters: dict[str, Any] | None = None,
        attention_bias: bool = True,
        initializer_range: float = 0.02,
        use_cache: bool = True,
        mm_hidden_size: int = 1024,
        add_moe: bool = True,
        moe_part: str | None = "layernorm-self_attn-mlp",
        tie_word_embeddings: bool = False,
        bos_token_id: int | None = None,
        eos_token_id: int | list[int] | None = None,
        pad_token_id: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads or num_attention_heads
        self.head_dim = head_dim or hidden_size // num_attention_heads
        self.max_position_embeddings = max_position_embeddings
        self.rms_norm_eps = rms_norm_eps
        self.rope_theta = rope_theta
        self.rope_parameters = rope_parameters or rope_scaling
        self.attention_bias = attention_bias
        self.initializer_range = initializer_range
        self.use_cache = use_cache
        self.mm_hidden_size = mm_hidden_size
        self.add_moe = add_moe
        self.moe_part = moe_part
        self.tie_word_embeddings = tie_word_embeddings
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self.pad_token_id = pad_token_id

    @property
    def gated_deltas(self) -> bool:
        """True when the feed-forward's up and down weights carry trained gated additions (the LLaMA-3 model's "moe")"""
        return bool(self.add_moe) and not self.moe_part

    def switch(self, name: str) -> Any:
        """One of SWITCHES."""
        return ((getattr(self, "eve_jax", None) or {}).get("llm") or {}).get(name, SWITCHES[name])

    def kind(self, layer: int) -> str:
        """The kind of a layer."""
        kinds = self.switch("layer_kinds")
        return kinds[layer % len(kinds)]

    def twice(self, part: str) -> bool:
        """True when `part` of a layer has weights of its own for vision tokens."""
        return bool(self.add_moe) and part in (self.moe_part or "").split("-")


class EveLlamaConfig(EveConfig):
    """The same on a LLaMA-3 backbone, whose projections have no biases; its `add_moe` means gated deltas."""

    model_type = "eve-llama3"

    def __init__(self, attention_bias: bool = False, moe_part: str | None = None, **kwargs: Any):
        super().__init__(attention_bias=attention_bias, moe_part=moe_part, **kwargs)


class EveSwitchedConfig(EveConfig):
    """EVEv2 on another base, which the switches describe."""

    model_type = "eve-switched"

    def __init__(self, attention_bias: bool = False, moe_part: str | None = None, **kwargs: Any):
        super().__init__(attention_bias=attention_bias, moe_part=moe_part, **kwargs)


class EveV1Config(EveConfig):
    """EVEv1 on LLaMA: one set of weights for both modalities, and a patch embedding of its own."""

    model_type = "eve"

    def __init__(
        self,
        attention_bias: bool = False,
        add_moe: bool = False,
        moe_part: str | None = None,
        mm_patch_size: int = 14,
        **kwargs: Any,
    ):
        super().__init__(attention_bias=attention_bias, add_moe=add_moe, moe_part=moe_part, **kwargs)
        self.mm_patch_size = mm_patch_size
