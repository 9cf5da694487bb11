"""A tiny $100 model: its sizes, its patch embedding written out, a folder of it."""

from typing import Any

import numpy as np

from eve_jax.model.config import ModelConfig

SIDES = 5


def hundred(**changes: Any) -> ModelConfig:
    """Sizes of a tiny one on a Qwen3, float32."""
    own: dict[str, Any] = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_layers": 2}
    own |= {"num_heads": 4, "num_kv_heads": 2, "head_dim": 8, "qk_norm": "head", "qkv_bias": False, "parts": ()}
    own |= {"patch_embed": "ln_linear_pos", "patch_hidden": 32, "patch_sides": SIDES, "sub_patch": 4}
    own |= {"dtype": "float32", "frozen_dtype": "float32", "remat": "none", "tie_embeddings": True}
    return ModelConfig(**own | changes)


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """As PyTorch's."""
    centered = x - x.mean(-1, keepdims=True)
    return centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5) * weight + bias


def patch_tokens(image: np.ndarray, tensors: dict[str, np.ndarray], patch: int) -> np.ndarray:
    """Tokens of an image uint8 [H, W, 3] by the article's words, with tensors by the names of an export; float64."""
    own = {name.rpartition("model.vision_embedder.")[2]: value.astype(np.float64) for name, value in tensors.items()}
    last = "model.embed_vision.embedding_projection"
    rows, columns = image.shape[0] // patch, image.shape[1] // patch
    found = []
    for r in range(rows):
        for c in range(columns):
            pixels = image[r * patch : (r + 1) * patch, c * patch : (c + 1) * patch] / 255.0
            x = layer_norm(pixels.transpose(2, 0, 1).ravel(), own["patch_ln1.weight"], own["patch_ln1.bias"])
            x = own["patch_dense.weight"] @ x + own["patch_dense.bias"]
            x = layer_norm(x, own["patch_ln2.weight"], own["patch_ln2.bias"])
            x = x + own["pos_embedding"][r, 1] + own["pos_embedding"][c, 0]
            x = layer_norm(x, own["pos_norm.weight"], own["pos_norm.bias"])
            found.append(own[f"{last}.weight"] @ x + own[f"{last}.bias"])
    return np.stack(found)
