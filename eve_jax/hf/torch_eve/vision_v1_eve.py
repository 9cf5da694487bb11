"""EVEv1's patch embedding in PyTorch; travels with an exported checkpoint."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .configuration_eve import EveConfig
from .modules_eve import EveModel

HEADS = 8
WINDOW = 2  # patches along a side of a window


class EvePatchAttention(nn.Module):
    """Each query attends over its own few patches; scores are scaled by the full width."""

    def __init__(self, width: int):
        super().__init__()
        self.scale = width**-0.5
        self.q = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width, bias=False))
        self.kv = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width, bias=False))
        self.proj = nn.Linear(width, width)

    def forward(self, query: Tensor, context: Tensor) -> Tensor:
        """query [n, C], context [n, m, C]; returns the query and what it found [n, C]."""
        n, m, width = context.shape
        q = self.q(query).view(n, HEADS, 1, -1)
        k, v = self.kv(context).view(n, m, 2, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) * self.scale).softmax(dim=-1)
        return query + self.proj((weights @ v).reshape(n, width))


class EveV1VisionTower(nn.Module):
    """An image [3, H, W] to a class token and rows of windows, each ended by a split token."""

    def __init__(self, config: EveConfig):
        super().__init__()
        width, patch = config.mm_hidden_size, config.mm_patch_size
        self.patch_embedding = nn.Conv2d(3, width, patch, patch, bias=False)
        self.local_attention = EvePatchAttention(width)
        self.global_attention = EvePatchAttention(width)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.split_embedding = nn.Parameter(torch.zeros(width))

    def forward(self, image: Tensor) -> Tensor:
        weight = self.patch_embedding.weight
        x = self.patch_embedding(image[None].to(weight.device, weight.dtype))[0].permute(1, 2, 0)
        h, w, width = x.shape[0] // WINDOW, x.shape[1] // WINDOW, x.shape[2]
        patches = x.view(h, WINDOW, w, WINDOW, width).transpose(1, 2).reshape(h * w, WINDOW**2, width)
        windows = self.local_attention(patches.mean(dim=1), patches)
        first = self.global_attention(self.class_embedding[None], windows[None])
        split = self.split_embedding.expand(h, 1, -1)
        return torch.cat([first, torch.cat([windows.view(h, w, width), split], dim=1).flatten(0, 1)])


class EveV1Model(EveModel):
    """The decoder with EVEv1's patch embedding and projector."""

    def __init__(self, config: EveConfig):
        super().__init__(config)
        width, d = config.mm_hidden_size, config.hidden_size
        self.vision_tower = EveV1VisionTower(config)
        self.mm_projector = nn.Sequential(nn.Linear(width, d), nn.GELU(), nn.Linear(d, d))

    def image_tokens(self, image: Tensor) -> Tensor:
        return self.mm_projector(self.vision_tower(image))
