"""Tiny random LLaVAs of `transformers`, and prompts for both sides."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import load_file, save_file

from eve_jax.batch import Layout
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.image.square import padded
from eve_jax.infer.image_cache import Patches
from eve_jax.infer.prompt import Prompt
from eve_jax.model.patch_embed import PIXEL_MEAN, PIXEL_STD
from tests.data.synthetic import byte_tokenizer
from tests.weights.backbones import SIZES, scatter

IMAGE_ID = -200
ENDS = {"llama": "</s>", "qwen2": "<|im_end|>"}
VISION: dict[str, Any] = {
    "image_size": 56,
    "patch_size": 14,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "projection_dim": 32,
}
RULE = ImageRule("pad", max_size=56, max_aspect=0.0, patch=14)
PATCHES = 16  # tokens of an image


def write_llava(folder: Path, kind: str = "llama", vocabulary: int = 32_064) -> Any:
    """Write a LLaVA with a tokenizer of bytes, the end of the LLM's template and `<image>`; return the torch model.

    `vocabulary`: rows of the embedding, by which LLaMA's generation is told.
    """
    import torch
    import transformers

    text_class = {"llama": transformers.LlamaConfig, "qwen2": transformers.Qwen2Config}[kind]
    text = text_class(**SIZES | {"vocab_size": vocabulary, "num_hidden_layers": 2})
    tokenizer = byte_tokenizer([ENDS[kind], "<image>"])
    vision = transformers.CLIPVisionConfig(**VISION, initializer_factor=4.0)
    image_id = tokenizer.token_id("<image>")
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=image_id, image_seq_length=PATCHES
    )
    torch.manual_seed(0)
    model = transformers.LlavaForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    scatter(model)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "projector" in name and weight.ndim == 2:
                weight.copy_(torch.randn(weight.shape) * 0.2)
    model.save_pretrained(folder)
    tokenizer.save(folder)
    return model


def in_memory_names(folder: Path, model: Any) -> None:
    """Rewrite the folder's tensors under the names that the state of `model` has in memory."""
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    tied = json.loads((folder / "config.json").read_text()).get("tie_word_embeddings")
    save_file({n: v for n, v in state.items() if not (tied and n == "lm_head.weight")}, folder / "model.safetensors")


def old_names(folder: Path) -> None:
    """Rewrite the folder's tensors under the names of transformers 4."""

    def old(name: str) -> str:
        name = name.removeprefix("model.") if not name.startswith("lm_head") else f"language_model.{name}"
        if name.startswith("language_model.") and not name.startswith(("language_model.model.", "language_model.lm_")):
            name = name.replace("language_model.", "language_model.model.")
        if name.startswith("vision_tower.") and not name.startswith("vision_tower.vision_model."):
            name = name.replace("vision_tower.", "vision_tower.vision_model.")
        return name

    tensors = load_file(folder / "model.safetensors")
    save_file({old(name): value for name, value in tensors.items()}, folder / "model.safetensors")


def images() -> list[Image.Image]:
    """A wide and a high image."""
    rng = np.random.default_rng(3)
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8)) for h, w in ((40, 97), (83, 60))]


def prompt() -> Prompt:
    """Text around the two `images`."""
    rng = np.random.default_rng(5)
    texts = [rng.integers(0, 256, n) for n in (5, 7, 11)]
    ids = np.concatenate([texts[0], [IMAGE_ID], texts[1], [IMAGE_ID], texts[2]]).astype(np.int32)
    cut = [Patches.of(image, RULE) for image in images()]
    return Prompt(ids, [p.pixels for p in cut], [p.grid for p in cut], Layout(specials=False))


def torch_inputs(model: Any) -> dict[str, Any]:
    """The same prompt for transformers."""
    import torch

    ids: list[int] = []
    for token in prompt().ids.tolist():
        ids += [model.config.image_token_id] * PATCHES if token == IMAGE_ID else [token]
    pixels = np.stack([padded(image, VISION["image_size"]) for image in images()])
    values = (pixels.astype(np.float32) / 255 - PIXEL_MEAN) / PIXEL_STD
    return {
        "input_ids": torch.tensor([ids]),
        "pixel_values": torch.tensor(values.transpose(0, 3, 1, 2).astype(np.float32)),
    }
