"""Tiny random models of Gemma 4 Unified in transformers, and our prompts as their inputs."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from eve_jax.batch import RowShape
from eve_jax.data.image.patches import patchify, unpatchify
from eve_jax.data.rows.build import Batch, lay_out
from eve_jax.data.rows.spell import Sample
from eve_jax.data.text.encode import IMAGE_ID
from eve_jax.hf.gemma import gemma_config
from eve_jax.infer.prompt import Prompt
from eve_jax.model.config import ModelConfig
from tests.data.synthetic import byte_tokenizer

VOCABULARY, IMAGE = 320, 300
SIDE = 8  # pixels of a patch: two of four
TOKENS = ("<bos>", "<|turn>", "<turn|>", "<|image>", "<image|>", "<|image|>")
TURN = ["sliding_attention"] * 2 + ["full_attention"]
SIZES: dict[str, Any] = {
    **{"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "attention_k_eq_v": True},
    **{"sliding_window": 5, "final_logit_softcapping": 30.0, "layer_types": TURN * 2, "max_position_embeddings": 512},
}
GLOBAL = {"global_head_dim": 16, "num_global_key_value_heads": 1}
UNSET = {"bos_token_id": None, "eos_token_id": None, "initializer_range": 0.2}
ROW = RowShape(40, 0, 88)
PACKED: tuple[list[tuple[int, int]], ...] = (
    [(2, 3)],
    [],
    [(3, 4), (1, 2)],
)  # an image of 12 tokens, of which a window of 5 would hide some
VISION = {"patch_size": 4, "pooling_kernel_size": 2, "mm_embed_dim": 24, "mm_posemb_size": 40, "output_proj_dims": 24}


def tiny_gemma(**changes: Any) -> ModelConfig:
    """Sizes of the model, float32."""
    cfg = gemma_config({"text_config": SIZES | GLOBAL, "vision_config": VISION})
    return replace(cfg, **{"dtype": "float32", "frozen_dtype": "float32", "remat": "none"} | changes)


def write_gemma(folder: Path, old: bool = False, audio: bool = False, **changes: Any) -> Any:
    """Write a model to `folder`, with `old` the sizes of its global layers as fields of their own; return it.

    changes: of the LLM's section. Weights that start at zero or one are drawn, too.
    """
    import torch
    from transformers.models.gemma4_unified import configuration_gemma4_unified as configuration
    from transformers.models.gemma4_unified.modeling_gemma4_unified import Gemma4UnifiedForConditionalGeneration

    torch.set_num_threads(1)
    text = configuration.Gemma4UnifiedTextConfig(**SIZES | GLOBAL | UNSET | changes)
    vision = configuration.Gemma4UnifiedVisionConfig(**VISION)
    heard = configuration.Gemma4UnifiedAudioConfig(audio_embed_dim=16) if audio else None
    ids = {"image_token_id": IMAGE, "boi_token_id": IMAGE + 1, "eoi_token_id": IMAGE + 2}
    others = {"video_token_id": IMAGE + 3, "audio_token_id": IMAGE + 4}
    config = configuration.Gemma4UnifiedConfig(
        text_config=text, vision_config=vision, audio_config=heard, **ids, **others
    )
    torch.manual_seed(0)
    config._attn_implementation = "eager"
    model = Gemma4UnifiedForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, weight in [*model.named_parameters(), *model.named_buffers()]:
            if weight.ndim == 1 and "inv_freq" not in name:
                weight.add_(0.3 * torch.randn(weight.shape))
            elif name.endswith("embed_tokens.weight"):
                weight.copy_(torch.randn(weight.shape) * 0.2)
            elif "pos_embedding" in name:
                weight.copy_(torch.randn(weight.shape))
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    stated = json.loads((folder / "config.json").read_text())
    if old:
        section = stated["text_config"]
        first = next(iter(section.pop("per_layer_config").values()))
        section["global_head_dim"] = first["head_dim"]
        section["num_global_key_value_heads"] = first.get("num_key_value_heads")
        (folder / "config.json").write_text(json.dumps(stated))
    byte_tokenizer(TOKENS).save(folder)
    return model


def prompt(cfg: ModelConfig, grids: Sequence[tuple[int, int]], text: int = 7, seed: int = 1) -> Prompt:
    """Random text with images of `grids` between, of random pixels."""
    rng = np.random.default_rng(seed)
    ids = [rng.integers(1, IMAGE, text)]
    images = []
    for h, w in grids:
        images.append(patchify(rng.integers(0, 256, (h * SIDE, w * SIDE, 3), np.uint8), SIDE))
        ids += [np.array([IMAGE_ID]), rng.integers(1, IMAGE, text)]
    return Prompt(np.concatenate(ids).astype(np.int32), images, list(grids), cfg.layout)


def their_inputs(given: Prompt) -> dict[str, Any]:
    """A prompt as transformers' model takes it, pixels of each patch row by row with their channels together."""
    import torch

    counts = iter([h * w for h, w in given.grids])
    ids = [[IMAGE] * next(counts) if id == IMAGE_ID else [id] for id in given.ids.tolist()]
    flat = np.array([id for part in ids for id in part], np.int64)[None]
    inputs = {"input_ids": torch.tensor(flat), "mm_token_type_ids": torch.tensor((flat == IMAGE).astype(np.int64))}
    if not given.grids:
        return inputs
    most = max(h * w for h, w in given.grids)
    pixels = np.zeros((len(given.grids), most, SIDE * SIDE * 3), np.float32)
    positions = np.full((len(given.grids), most, 2), -1, np.int64)
    for number, (patches, (h, w)) in enumerate(zip(given.patches, given.grids, strict=True)):
        image = unpatchify(patches, h, w).reshape(h, SIDE, w, SIDE, 3).swapaxes(1, 2)
        pixels[number, : h * w] = image.reshape(h * w, -1) / np.float32(255)
        positions[number, : h * w] = np.stack(np.divmod(np.arange(h * w), w)[::-1], axis=1)
    return inputs | {"pixel_values": torch.tensor(pixels), "image_position_ids": torch.tensor(positions)}


def samples() -> list[Sample]:
    rng = np.random.default_rng(0)
    found = []
    for grids in PACKED:
        ids = rng.integers(1, 300, 14).astype(np.int32)
        ids[2 : 2 + 2 * len(grids) : 2] = -200
        found.append(Sample(ids, np.where(np.arange(14) > 7, ids, -100).astype(np.int32), grids))
    return found


def packed_row(cfg: ModelConfig, which: list[int], seed: int = 1) -> Batch:
    """A row of samples, each image's pixels its own whatever else is in the row."""
    every = samples()
    rows = lay_out([every[i] for i in which], ROW, cfg.layout)
    patches, at = np.zeros((ROW.patches, cfg.patch_bytes), np.uint8), 0
    for i in which:
        count = sum(h * w for h, w in every[i].grids)
        patches[at : at + count] = np.random.default_rng(seed + i).integers(0, 256, (count, cfg.patch_bytes))
        at += count
    return {name: value[None] for name, value in (rows | {"patches": patches}).items()}
