"""The parts of EVEv2 in PyTorch: patch embedding, routed decoder layers; travels with an exported checkpoint."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .configuration_eve import EveConfig
from .rotary_eve import rotary, rotate

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


class EveRMSNorm(nn.Module):
    """x / rms(x) * weight, in float32; with `norm_plus_one` the scale is 1 + weight."""

    def __init__(self, config: EveConfig, width: int = 0):
        super().__init__()
        self.eps, self.plus_one = config.rms_norm_eps, config.switch("norm_plus_one")
        self.weight = nn.Parameter(torch.full((width or config.hidden_size,), 1.0 - self.plus_one))

    def forward(self, x: Tensor) -> Tensor:
        x32 = x.float()
        normed = x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + self.eps)
        if self.plus_one:
            return (normed * (1 + self.weight.float())).to(x.dtype)
        return normed.to(x.dtype) * self.weight


class EveScaledEmbedding(nn.Embedding):
    """Word embeddings times sqrt(D)."""

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) * torch.tensor(self.embedding_dim**0.5).to(self.weight.dtype)


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


class EveQuantizedEmbedding(nn.Module):
    """Word embeddings of int8 with a scale a row, times `factor`; `compare` has them as the LM head."""

    def __init__(self, rows: int, d: int, factor: float):
        super().__init__()
        self.register_buffer("weight", torch.zeros(rows, d, dtype=torch.int8))
        self.register_buffer("weight_scale", torch.ones(rows, 1))
        self.factor = factor

    def forward(self, ids: Tensor) -> Tensor:
        scale = self.weight_scale[ids]
        return self.weight[ids].to(scale.dtype) * scale * torch.tensor(self.factor).to(scale.dtype)

    def compare(self, x: Tensor) -> Tensor:
        """x @ weight.T."""
        return F.linear(x, self.weight.to(x.dtype)) * self.weight_scale[:, 0].to(x.dtype)


def quantized(config: EveConfig) -> str:
    """What the matrices of the layers are in the folder: int8, int4, or "" for whole weights."""
    return (getattr(config, "eve_jax", None) or {}).get("weights", "")


def embedding(config: EveConfig) -> nn.Module:
    """The word embeddings; with quantized weights those that are the LM head, too, are int8."""
    rows, d, scaled = config.vocab_size, config.hidden_size, config.switch("scale_embeddings")
    if quantized(config) and config.tie_word_embeddings:
        return EveQuantizedEmbedding(rows, d, d**0.5 if scaled else 1.0)
    return (EveScaledEmbedding if scaled else nn.Embedding)(rows, d)


def linear(config: EveConfig, d: int, f: int, bias: bool) -> nn.Module:
    """A projection of a layer, of weights as the folder has them."""
    weights = quantized(config)
    return EveQuantizedLinear(d, f, bias, weights) if weights else nn.Linear(d, f, bias=bias)


class EveMLP(nn.Module):
    """SwiGLU or GeGLU; up and down may have gated additions, x @ moe_proj * tanh(10 gate), for all tokens (EVEv1.2)."""

    def __init__(self, config: EveConfig):
        super().__init__()
        d, f = config.hidden_size, config.intermediate_size
        self.gate_proj = linear(config, d, f, bias=False)
        self.up_proj = linear(config, d, f, bias=False)
        self.down_proj = linear(config, f, d, bias=False)
        self.gelu = config.switch("activation") == "gelu_tanh"
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
        gate = self.gate_proj(x)
        hidden = (F.gelu(gate, approximate="tanh") if self.gelu else F.silu(gate)) * up
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
            for name in "qk" if config.switch("qk_norm") != "none" else "":
                together = config.switch("qk_norm") == "projection"
                setattr(self, f"{moe}{name}_norm", EveRMSNorm(config, widths[name] * size if together else size))
        self.scale = (config.switch("attention_size") or size) ** -0.5

    def _part(self, name: str, x: Tensor, is_vision: Tensor | None) -> Tensor:
        vision = getattr(self, f"moe_{name}") if self.twice else None
        return routed(getattr(self, name), vision, x, is_vision)

    def _heads(self, name: str, x: Tensor, is_vision: Tensor | None) -> Tensor:
        """Queries, keys or values [B, T, N, H], normed as the base has it."""
        y = self._part(f"{name}_proj", x, is_vision)
        heads, norm = (*y.shape[:2], -1, self.config.head_dim), self.config.switch("qk_norm")
        if norm == "none" or name == "v":
            return y.view(heads)
        y = self._part(f"{name}_norm", y if norm == "projection" else y.view(heads), is_vision)
        return y.view(heads)

    def forward(
        self, x: Tensor, is_vision: Tensor | None, mask: Tensor, angles: tuple[Tensor, Tensor], cache: Any
    ) -> Tensor:
        rows, length = x.shape[:2]
        q, k, v = (self._heads(name, x, is_vision).transpose(1, 2) for name in "qkv")
        q, k = rotate(q, angles), rotate(k, angles)
        if cache is not None:
            k, v = cache.update(k, v, self.layer)
        groups = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)
        return self._part("o_proj", out.transpose(1, 2).reshape(rows, length, -1), is_vision)


# The norms of a layer before and after attention, before and after the feed-forward.
NORMS: dict[str, tuple[str | None, ...]] = {
    "before": ("input_layernorm", None, "post_attention_layernorm", None),
    "after": (None, "post_attention_layernorm", None, "post_feedforward_layernorm"),
    "both": (
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ),
}


class EveLayer(nn.Module):
    """One decoder layer, each part by the token's modality (EVEv2 paper, equations 1-4)."""

    def __init__(self, config: EveConfig, layer: int):
        super().__init__()
        self.self_attn = EveAttention(config, layer)
        self.mlp = EveMLP(config)
        self.norms = NORMS[config.switch("norms")]
        for name in filter(None, self.norms):
            setattr(self, name, EveRMSNorm(config))
        if config.twice("mlp"):
            self.moe_mlp = EveMLP(config)
        for name in filter(None, self.norms if config.twice("layernorm") else ()):
            setattr(self, f"moe_{name}", EveRMSNorm(config))

    def _part(self, name: str | None, x: Tensor, is_vision: Tensor | None) -> Tensor:
        return x if name is None else routed(getattr(self, name), getattr(self, f"moe_{name}", None), x, is_vision)

    def forward(
        self, x: Tensor, is_vision: Tensor | None, mask: Tensor, angles: tuple[Tensor, Tensor], cache: Any
    ) -> Tensor:
        before_attn, after_attn, before_mlp, after_mlp = self.norms
        y = self.self_attn(self._part(before_attn, x, is_vision), is_vision, mask, angles, cache)
        x = x + self._part(after_attn, y, is_vision)
        y = self._part("mlp", self._part(before_mlp, x, is_vision), is_vision)
        return x + self._part(after_mlp, y, is_vision)


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
        self.embed_tokens = embedding(config)
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
        near = queries - keys < (self.config.switch("window") or past + length)
        seen = {"full": mask, "nope": mask, "local": mask & near}
        angles = {kind: rotary(position_ids, self.config, kind) for kind in self.config.switch("layer_kinds")}
        states = []
        for number, layer in enumerate(self.layers):
            states.append(x)
            kind = self.config.kind(number)
            if self.gradient_checkpointing and self.training:
                x = checkpoint(layer, x, is_vision, seen[kind], angles[kind], None, use_reentrant=False)
            else:
                x = layer(x, is_vision, seen[kind], angles[kind], cache)
        return self.norm(x), tuple(states)
