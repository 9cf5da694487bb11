"""The parts of EVEv2 in PyTorch: patch embedding, routed decoder layers; travels with an exported checkpoint."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .configuration_eve import EveConfig

GROUP = 128  # columns of an int4 weight that share a scale, as far as they divide it


def routed(text: nn.Module, vision: nn.Module | None, x: Tensor, is_vision: Tensor | None) -> Tensor:
    """Every token of x [B, T, ...] through the weights of its modality; `is_vision` [B, T] or None for text alone."""
    if vision is None or is_vision is None:
        return text(x)
    text_out, vision_out = text(x[~is_vision]), vision(x[is_vision])
    out = text_out.new_zeros((*is_vision.shape, *text_out.shape[1:]))
    out[~is_vision] = text_out
    out[is_vision] = vision_out
    return out


def rotary(position: Tensor, config: EveConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines, float32 [B, 1, T, H / 2]."""
    size = config.head_dim
    exponent = torch.arange(0, size, 2, dtype=torch.float32, device=position.device) / size
    frequency = config.rope_theta**-exponent
    scaling = config.rope_parameters or {}
    if scaling.get("rope_type") == "llama3":
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        turns = scaling["original_max_position_embeddings"] * frequency / (2 * torch.pi)
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        frequency = frequency * (kept + (1 - kept) / scaling["factor"])
    angles = position[:, None, :, None].float() * frequency
    return angles.cos(), angles.sin()


def rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions of heads [B, N, T, H]; the first and second half of a head form the pairs."""
    cos, sin = angles
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


class EveRMSNorm(nn.Module):
    """x / rms(x) * weight, in float32."""

    def __init__(self, config: EveConfig):
        super().__init__()
        self.eps = config.rms_norm_eps
        self.weight = nn.Parameter(torch.ones(config.hidden_size))

    def forward(self, x: Tensor) -> Tensor:
        x32 = x.float()
        return (x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype) * self.weight


class EveQuantizedLinear(nn.Module):
    """x @ weight.T + bias for answers alone; the weight is int8 with a scale a row, or int4 with one for a group of
    columns: two numbers in a byte, the earlier one in its lower half."""

    def __init__(self, d: int, f: int, bias: bool, weights: str):
        super().__init__()
        group = d if weights == "int8" else math.gcd(d, GROUP)
        kind, width = (torch.int8, d) if weights == "int8" else (torch.uint8, d // 2)
        self.register_buffer("weight", torch.zeros(f, width, dtype=kind))
        self.register_buffer("weight_scale", torch.ones(f, d // group))
        self.bias = nn.Parameter(torch.zeros(f)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dtype == torch.int8:
            out = F.linear(x, self.weight.to(x.dtype)) * self.weight_scale[:, 0].to(x.dtype)
        else:
            halves = torch.stack([self.weight & 15, self.weight >> 4], dim=-1).to(torch.int8)
            groups = ((halves ^ 8) - 8).view(*self.weight_scale.shape, -1).to(x.dtype)
            out = F.linear(x, (groups * self.weight_scale[..., None].to(x.dtype)).flatten(1))
        return out if self.bias is None else out + self.bias


def linear(config: EveConfig, d: int, f: int, bias: bool) -> nn.Module:
    """A projection of a layer, of weights as the folder has them."""
    weights = (getattr(config, "eve_jax", None) or {}).get("weights", "")
    return EveQuantizedLinear(d, f, bias, weights) if weights else nn.Linear(d, f, bias=bias)


class EveMLP(nn.Module):
    """SwiGLU; up and down may have gated additions, x @ moe_proj * tanh(10 gate), for all tokens (EVEv1.2)."""

    def __init__(self, config: EveConfig):
        super().__init__()
        d, f = config.hidden_size, config.intermediate_size
        self.gate_proj = linear(config, d, f, bias=False)
        self.up_proj = linear(config, d, f, bias=False)
        self.down_proj = linear(config, f, d, bias=False)
        self.gated_deltas = config.gated_deltas
        if self.gated_deltas:
            self.moe_up_proj = nn.Parameter(torch.zeros(d, f))
            self.moe_down_proj = nn.Parameter(torch.zeros(f, d))
            self.moe_up_gate = nn.Parameter(torch.zeros(1))
            self.moe_down_gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        up = self.up_proj(x)
        if self.gated_deltas:
            up = up + x @ self.moe_up_proj * torch.tanh(10 * self.moe_up_gate)
        hidden = F.silu(self.gate_proj(x)) * up
        out = self.down_proj(hidden)
        if self.gated_deltas:
            out = out + hidden @ self.moe_down_proj * torch.tanh(10 * self.moe_down_gate)
        return out


class EveAttention(nn.Module):
    """Joint attention of both modalities; the projections may exist twice."""

    def __init__(self, config: EveConfig, layer: int):
        super().__init__()
        self.config, self.layer, self.twice = config, layer, config.twice("self_attn")
        d, size, bias = config.hidden_size, config.head_dim, config.attention_bias
        widths = {"q": config.num_attention_heads, "k": config.num_key_value_heads, "v": config.num_key_value_heads}
        for moe in ("", "moe_") if self.twice else ("",):
            for name, heads in widths.items():
                setattr(self, f"{moe}{name}_proj", linear(config, d, heads * size, bias=bias))
            setattr(self, f"{moe}o_proj", linear(config, widths["q"] * size, d, bias=False))

    def _project(self, name: str, x: Tensor, is_vision: Tensor | None) -> Tensor:
        vision = getattr(self, f"moe_{name}_proj") if self.twice else None
        return routed(getattr(self, f"{name}_proj"), vision, x, is_vision)

    def forward(
        self, x: Tensor, is_vision: Tensor | None, mask: Tensor, angles: tuple[Tensor, Tensor], cache: Any
    ) -> Tensor:
        rows, length = x.shape[:2]
        q, k, v = (
            self._project(name, x, is_vision).view(rows, length, -1, self.config.head_dim).transpose(1, 2)
            for name in "qkv"
        )
        q, k = rotate(q, angles), rotate(k, angles)
        if cache is not None:
            k, v = cache.update(k, v, self.layer)
        groups = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self._project("o", out.transpose(1, 2).reshape(rows, length, -1), is_vision)


class EveLayer(nn.Module):
    """One decoder layer, each part by the token's modality (EVEv2 paper, equations 1-4)."""

    def __init__(self, config: EveConfig, layer: int):
        super().__init__()
        self.self_attn = EveAttention(config, layer)
        self.mlp = EveMLP(config)
        self.input_layernorm = EveRMSNorm(config)
        self.post_attention_layernorm = EveRMSNorm(config)
        if config.twice("mlp"):
            self.moe_mlp = EveMLP(config)
        if config.twice("layernorm"):
            self.moe_input_layernorm = EveRMSNorm(config)
            self.moe_post_attention_layernorm = EveRMSNorm(config)

    def _part(self, name: str, x: Tensor, is_vision: Tensor | None) -> Tensor:
        return routed(getattr(self, name), getattr(self, f"moe_{name}", None), x, is_vision)

    def forward(
        self, x: Tensor, is_vision: Tensor | None, mask: Tensor, angles: tuple[Tensor, Tensor], cache: Any
    ) -> Tensor:
        x = x + self.self_attn(self._part("input_layernorm", x, is_vision), is_vision, mask, angles, cache)
        return x + self._part("mlp", self._part("post_attention_layernorm", x, is_vision), is_vision)


class EveVisionTower(nn.Module):
    """Patch embedding: an image [3, 32 h, 32 w] to a class token and h rows of w patches and a split token."""

    def __init__(self, config: EveConfig):
        super().__init__()
        width, d = config.mm_hidden_size, config.hidden_size
        self.patch_embedding = nn.Sequential(nn.Conv2d(3, width, 16, 16), nn.GELU(), nn.Conv2d(width, d, 2, 2))
        self.class_embedding = nn.Parameter(torch.zeros(d))
        self.split_embedding = nn.Parameter(torch.zeros(d))

    def forward(self, image: Tensor) -> Tensor:
        weight = self.patch_embedding[0].weight
        x = self.patch_embedding(image[None].to(weight.device, weight.dtype))[0].permute(1, 2, 0)
        split = self.split_embedding.expand(x.shape[0], 1, -1)
        return torch.cat([self.class_embedding[None], torch.cat([x, split], dim=1).flatten(0, 1)])


class EveModel(nn.Module):
    """Embeddings, decoder layers and final norm."""

    def __init__(self, config: EveConfig):
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(EveLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = EveRMSNorm(config)
        self.vision_tower = EveVisionTower(config)

    def image_tokens(self, image: Tensor) -> Tensor:
        """Embeddings [n, D] of an image's tokens."""
        return self.vision_tower(image)

    def forward(
        self,
        x: Tensor,
        is_vision: Tensor | None,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        cache: Any,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Normed hidden states [B, T, D] of embeddings `x`, and the residual stream before each layer."""
        rows, length = x.shape[:2]
        past = cache.get_seq_length() if cache is not None else 0
        if attention_mask is None:
            attention_mask = torch.ones(rows, past + length, dtype=torch.long, device=x.device)
        if position_ids is None:
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, past:]
        keys = torch.arange(past + length, device=x.device)
        queries = keys[past:, None]
        # A pad attends to itself, so that no softmax is over nothing.
        mask = (keys <= queries) & attention_mask.bool()[:, None, None, :] | (keys == queries)
        angles = rotary(position_ids, self.config)
        states = []
        for layer in self.layers:
            states.append(x)
            if self.gradient_checkpointing and self.training:
                x = checkpoint(layer, x, is_vision, mask, angles, None, use_reentrant=False)
            else:
                x = layer(x, is_vision, mask, angles, cache)
        return self.norm(x), tuple(states)
