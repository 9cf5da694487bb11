"""Rotary positions of EVEv2 in PyTorch; travels with an exported checkpoint."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .configuration_eve import EveConfig


def rotary(position: Tensor, config: EveConfig, kind: str = "full") -> tuple[Tensor, Tensor]:
    """Cosines and sines, float32 [B, 1, T, H / 2], in layers of a `kind`."""
    frequency, factor = frequencies(config, kind)
    angles = position[:, None, :, None].float() * frequency.to(position.device)
    return angles.cos() * factor, angles.sin() * factor


def frequencies(config: EveConfig, kind: str) -> tuple[Tensor, float]:
    """Angle per position of each pair [H / 2], and a factor of cosines and sines."""
    size, theta, scaling = config.head_dim, config.rope_theta, config.rope_parameters or {}
    if kind == "nope":
        return torch.zeros(size // 2), 1.0
    if kind == "local" and config.switch("local_rope_theta"):
        theta, scaling = config.switch("local_rope_theta"), {}
    frequency = theta ** -(torch.arange(0, size, 2, dtype=torch.float32) / size)
    form = scaling.get("rope_type", "default")
    if form == "default":
        return frequency, 1.0
    if form == "linear":
        return frequency / scaling["factor"], 1.0
    original = scaling["original_max_position_embeddings"]
    if form == "llama3":
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        kept = ((original * frequency / (2 * torch.pi) - low) / (high - low)).clamp(0, 1)
    elif form == "yarn":
        ends = [
            size * math.log(original / (2 * math.pi * scaling[turns])) / (2 * math.log(theta))
            for turns in ("beta_fast", "beta_slow")
        ]
        if scaling["truncate"]:
            ends = [math.floor(ends[0]), math.ceil(ends[1])]
        first, last = max(ends[0], 0), min(ends[1], size - 1)
        kept = 1 - ((torch.arange(size // 2) - first) / max(last - first, 0.001)).clamp(0, 1)
    else:
        raise ValueError(f"rotary positions of type {form!r} are not implemented")
    return frequency * (kept + (1 - kept) / scaling["factor"]), scaling.get("attention_factor", 1.0)


def rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions of heads [B, N, T, H]; the first and second half of a head form the pairs."""
    cos, sin = angles
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)
