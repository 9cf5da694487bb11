"""Decoder layers of EVEv2 on vLLM's parallel layers: every token through the weights of its modality."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from vllm.config import CacheConfig, VllmConfig
from vllm.distributed import get_tensor_model_parallel_world_size
from vllm.model_executor.layers.activation import SiluAndMul
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.linear import MergedColumnParallelLinear, QKVParallelLinear, RowParallelLinear
from vllm.model_executor.layers.quantization import QuantizationConfig
from vllm.model_executor.layers.rotary_embedding import get_rope

from .configuration_eve import EveConfig

Branch = Callable[[Tensor], Tensor]


class Modality(NamedTuple):
    """Which of a step's tokens are text and which are vision: int64 indices, None for none."""

    text: Tensor | None
    vision: Tensor | None

    @classmethod
    def of(cls, input_ids: Tensor, image_token_id: int) -> Modality:
        """The modalities of tokens [T]. The only place that waits for the device, once a step."""
        is_vision = input_ids == image_token_id
        vision = is_vision.nonzero()[:, 0]
        if len(vision) == 0:
            return cls(None, None)
        text = (~is_vision).nonzero()[:, 0]
        return cls(text if len(text) else None, vision)


def routed(text: Branch, vision: Branch | None, x: Tensor, tokens: Modality) -> Tensor:
    """Tokens x [T, ...], each through the branch of its modality; a step of text alone reads the text weights only."""
    if vision is None or tokens.vision is None:
        return text(x)
    if tokens.text is None:
        return vision(x)
    text_out = text(x[tokens.text])
    out = text_out.new_empty((len(x), *text_out.shape[1:]))
    out[tokens.text] = text_out
    out[tokens.vision] = vision(x[tokens.vision])
    return out


class EveMLP(nn.Module):
    """SwiGLU."""

    def __init__(self, config: EveConfig, quant: QuantizationConfig | None, prefix: str):
        super().__init__()
        d, f = config.hidden_size, config.intermediate_size
        self.gate_up_proj = MergedColumnParallelLinear(
            d, [f, f], bias=False, quant_config=quant, prefix=f"{prefix}.gate_up_proj"
        )
        self.down_proj = RowParallelLinear(f, d, bias=False, quant_config=quant, prefix=f"{prefix}.down_proj")
        self.act = SiluAndMul()

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act(self.gate_up_proj(x)[0]))[0]


class EveAttention(nn.Module):
    """Joint attention of both modalities; the projections may exist twice."""

    def __init__(self, config: EveConfig, cache: CacheConfig, quant: QuantizationConfig | None, prefix: str):
        super().__init__()
        d, size, bias = config.hidden_size, config.head_dim, config.attention_bias
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        shards = get_tensor_model_parallel_world_size()
        self.widths = [n * size for n in (heads // shards, *[max(kv_heads // shards, 1)] * 2)]
        self.twice = config.twice("self_attn")
        for moe in ("", "moe_") if self.twice else ("",):
            qkv = QKVParallelLinear(
                d, size, heads, kv_heads, bias=bias, quant_config=quant, prefix=f"{prefix}.{moe}qkv_proj"
            )
            o = RowParallelLinear(heads * size, d, bias=False, quant_config=quant, prefix=f"{prefix}.{moe}o_proj")
            setattr(self, f"{moe}qkv_proj", qkv)
            setattr(self, f"{moe}o_proj", o)
        rope = dict(config.rope_parameters or {"rope_type": "default"}) | {"rope_theta": config.rope_theta}
        self.rotary = get_rope(size, max_position=config.max_position_embeddings, rope_parameters=rope)
        self.attn = Attention(
            heads // shards,
            size,
            size**-0.5,
            num_kv_heads=max(kv_heads // shards, 1),
            cache_config=cache,
            quant_config=quant,
            prefix=f"{prefix}.attn",
        )

    def _project(self, name: str, x: Tensor, tokens: Modality) -> Tensor:
        text, vision = getattr(self, name), getattr(self, f"moe_{name}", None)
        return routed(lambda t: text(t)[0], None if vision is None else lambda t: vision(t)[0], x, tokens)

    def forward(self, positions: Tensor, x: Tensor, tokens: Modality) -> Tensor:
        q, k, v = self._project("qkv_proj", x, tokens).split(self.widths, dim=-1)
        q, k = self.rotary(positions, q, k)
        return self._project("o_proj", self.attn(q, k, v), tokens)


class EveLayer(nn.Module):
    """One decoder layer, each part by the token's modality (EVEv2 paper, equations 1-4)."""

    def __init__(self, config: EveConfig, vllm_config: VllmConfig, prefix: str):
        super().__init__()
        quant = vllm_config.quant_config
        self.self_attn = EveAttention(config, vllm_config.cache_config, quant, f"{prefix}.self_attn")
        self.mlp = EveMLP(config, quant, f"{prefix}.mlp")
        if config.twice("mlp"):
            self.moe_mlp = EveMLP(config, quant, f"{prefix}.moe_mlp")
        for moe in ("", "moe_") if config.twice("layernorm") else ("",):
            for name in ("input_layernorm", "post_attention_layernorm"):
                setattr(self, f"{moe}{name}", RMSNorm(config.hidden_size, eps=config.rms_norm_eps))

    def _part(self, name: str, x: Tensor, tokens: Modality) -> Tensor:
        return routed(getattr(self, name), getattr(self, f"moe_{name}", None), x, tokens)

    def forward(self, positions: Tensor, x: Tensor, tokens: Modality) -> Tensor:
        x = x + self.self_attn(positions, self._part("input_layernorm", x, tokens), tokens)
        return x + self._part("mlp", self._part("post_attention_layernorm", x, tokens), tokens)


def normalized(pixels: Tensor) -> Tensor:
    """uint8 pixels [H, W, 3] as float32 [3, H, W] with CLIP's mean and standard deviation."""
    mean = torch.tensor((0.48145466, 0.4578275, 0.40821073), device=pixels.device)
    std = torch.tensor((0.26862954, 0.26130258, 0.27577711), device=pixels.device)
    return ((pixels.float() / 255 - mean) / std).permute(2, 0, 1)
