"""What a user of PyTorch would run: the model that an export carries, with both branches computed for every token."""

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eve_jax.data.image.patches import unpatchify
from eve_jax.data.rows.spell import Sample
from eve_jax.data.text.encode import IGNORE
from eve_jax.hf.names import eve_v2
from eve_jax.hf.torch_eve import modules_eve
from eve_jax.hf.torch_eve.configuration_eve import EveConfig
from eve_jax.hf.torch_eve.modeling_eve import PIXEL_MEAN, PIXEL_STD, EveForCausalLM
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params


def masked(text: nn.Module, vision: nn.Module | None, x: Tensor, is_vision: Tensor | None) -> Tensor:
    """Both branches for every token, of which a mask picks one: how the original routes (see `modules_eve.routed`)."""
    if vision is None or is_vision is None:
        return text(x)
    return torch.where(is_vision[..., None], vision(x), text(x))


def use_threads() -> None:
    """As many threads as cores."""
    torch.set_num_threads(os.cpu_count() or 1)


def build(cfg: ModelConfig, params: Params) -> EveForCausalLM:
    """The exported model, float32, masked mixing, with the weights `params`."""
    modules_eve.routed = masked
    config = EveConfig(
        vocab_size=cfg.vocab_size,
        hidden_size=cfg.hidden_size,
        intermediate_size=cfg.intermediate_size,
        num_hidden_layers=cfg.num_layers,
        num_attention_heads=cfg.num_heads,
        num_key_value_heads=cfg.num_kv_heads,
        head_dim=cfg.head_dim,
        rms_norm_eps=cfg.rms_norm_eps,
        rope_theta=cfg.rope_theta,
        mm_hidden_size=cfg.patch_hidden,
        add_moe=bool(cfg.parts),
        moe_part="-".join(cfg.parts),
    )
    state = {}
    for entry in eve_v2(cfg):
        value = np.asarray(params[entry.ours])
        pieces = value if entry.stacked else value[None]
        for name, piece in zip(entry.names(cfg), pieces, strict=True):
            state[name] = torch.tensor(np.ascontiguousarray(entry.to_theirs(piece)))
    model = EveForCausalLM(config)
    model.load_state_dict(state)
    return model


def pixels(patches: np.ndarray, grid: tuple[int, int]) -> Tensor:
    """Normalized pixels float32 [3, 32 h, 32 w] of patches uint8 [h w, 3072]."""
    rgb = torch.tensor(unpatchify(patches, *grid)).float() / 255
    return ((rgb - torch.tensor(PIXEL_MEAN)) / torch.tensor(PIXEL_STD)).permute(2, 0, 1).contiguous()


def padded(samples: list[Sample], patches: list[np.ndarray]) -> dict[str, Any]:
    """Arguments of the model: the samples as one batch, padded to the longest."""
    width = max(len(s.ids) for s in samples)
    ids, labels = (torch.full((len(samples), width), value) for value in (0, IGNORE))
    mask = torch.zeros_like(ids)
    for row, sample in enumerate(samples):
        n = len(sample.ids)
        ids[row, :n], labels[row, :n], mask[row, :n] = torch.tensor(sample.ids), torch.tensor(sample.labels), 1
    images = [pixels(p, s.grids[0]) for p, s in zip(patches, samples, strict=True)]
    return {"input_ids": ids, "labels": labels, "attention_mask": mask, "images": images}


class TrainStep:
    """Forward with float32 logits for every token, backward, gradient clipping, torch's AdamW."""

    def __init__(self, model: EveForCausalLM, inputs: dict[str, Any], lr: float):
        self.model, self.inputs = model.train(), inputs
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)

    def __call__(self) -> float:
        """One step; the loss before it."""
        self.optimizer.zero_grad()
        loss = self.model(**self.inputs).loss
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()
