"""Golden sets D1 and D2 as Hugging Face folders of EVEv1, and a small random CLIP."""

from pathlib import Path
from typing import Any

from tests import reference as ref
from tests.weights import folders

HEADS = 4  # of the sets' teachers, which no tensor tells
ALIGNING = ("model.vision_clip.", "model.vision_tower_compressor.")


def golden(name: str, aligning: bool = True) -> tuple[folders.Tensors, dict[str, Any]]:
    """Weights and config.json of a set, with or without what aligning needs."""
    both = ref.read_json(f"{name}_config")
    p, vision = both["eve_preprocessor"], both["clip_vision_config"]
    patch = p["patch_stride"] * p["conv_stride"]
    ours: dict[str, Any] = {
        "max_size": p["image_size"],
        "patch": patch,
        "teacher": [p["image_size_clip"], p["patch_stride_clip"]],
    }
    weights = {k: v for k, v in ref.tensors(f"{name}_weights").items() if aligning or not k.startswith(ALIGNING)}
    if aligning:
        ours["teacher_sizes"] = {
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "hidden_size": vision["hidden_size"],
            "intermediate_size": vision["intermediate_size"],
            "num_layers": vision["num_hidden_layers"],
            "num_heads": vision["num_attention_heads"],
        }
    return weights, both["model"] | {"eve_jax": ours}


def write(folder: Path, name: str, aligning: bool = True) -> Path:
    """The set as a folder."""
    return folders.write_hf(folder, *golden(name, aligning))
