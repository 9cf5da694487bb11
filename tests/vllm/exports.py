"""Small exported folders of every form, and the same conversations for vLLM and for the engine."""

import base64
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from tokenizers import processors

from eve_jax.data.text.templates import get_template
from eve_jax.data.text.tokenizer import FastTokenizer
from eve_jax.hf.export_config import hf_config
from eve_jax.hf.names import eve_names
from eve_jax.model.config import DELTA, TWICE, ModelConfig
from eve_jax.model.eve import abstract_params
from eve_jax.weights.import_export import export_checkpoint
from tests.data.synthetic import byte_tokenizer

BOS = "<|begin_of_text|>"
LLAMA = {"qkv_bias": False}
# What each form has of its own, and the options of its export. The vocabulary has no number that is not a token.
FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "qwen2_dac": ({"parts": TWICE}, {}),
    "llama3_dac_scaled": ({"parts": TWICE, "rope_scaling": (8.0, 1.0, 4.0, 128.0)} | LLAMA, {}),
    "qwen2_moe": ({"parts": ("mlp",)}, {}),
    "llama3_dense": ({"parts": ()} | LLAMA, {}),
    "llama3_rep_folded": ({"parts": (DELTA,)} | LLAMA, {"folded": True}),
    "qwen2_tied": ({"parts": TWICE, "tie_embeddings": True}, {}),
}
SIDE = 512  # 16 x 16 patches: 273 tokens, more than a chunk of 256


class Conversation(NamedTuple):
    """messages: for servers, with images as data URIs. texts, images: the same for `EVE.prompt`."""

    messages: list[dict[str, Any]]
    texts: list[dict[str, str]]
    images: list[Image.Image]


def write_export(folder: Path, form: str, pad: int = 0, **data: Any) -> Path:
    """An exported model of `form` with random weights; `pad` numbers of its vocabulary are no tokens."""
    own, options = FORMS[form]
    llama = not own.get("qkv_bias", True)
    template = "llama3" if llama else "qwen2"
    tokenizer = _tokenizer(get_template(template).end, llama)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2}
    cfg = ModelConfig(
        **{"vocab_size": tokenizer.vocab_size + pad, "head_dim": 32, "patch_hidden": 32, "qkv_bias": True}
        | sizes
        | {"rope_theta": 1e4, "rms_norm_eps": 1e-6}
        | own
    )
    settings = {"image_mode": "anyratio_ld", "max_size": SIDE, "max_aspect": 8.0, "fit": "shrink", "template": template}
    rng = np.random.default_rng(0)
    tensors: dict[str, np.ndarray] = {}
    for entry in eve_names(cfg):
        shape = entry.their_shape(abstract_params(cfg)[entry.ours].shape)
        center = 1.0 if "norm" in entry.ours else 0.0
        tensors |= {name: (center + 0.2 * rng.normal(size=shape)).astype(np.float32) for name in entry.names(cfg)}
    source = folder / "hf"
    source.mkdir(parents=True)
    config = hf_config(cfg, settings | data, {}, "float32") | {"max_position_embeddings": 2048}
    (source / "config.json").write_text(json.dumps(config))
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    tokenizer.save(source)
    return export_checkpoint(source, folder / form, quiet=True, **options)


def _tokenizer(end: str, with_bos: bool) -> FastTokenizer:
    made = byte_tokenizer([end, *([BOS] if with_bos else [])])
    assert isinstance(made, FastTokenizer)
    if not with_bos:
        return made
    bos = made.inner.token_to_id(BOS)
    made.inner.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, bos)])
    return FastTokenizer(made.inner)


def image(seed: int, width: int, height: int) -> Image.Image:
    """A reproducible image of blocks of colors."""
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)


def data_uri(picture: Image.Image) -> str:
    """The image as a PNG in a data URI."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def conversations() -> list[Conversation]:
    """Text of one and several turns, one image and two, before, between and after texts."""
    first, second = image(1, 320, 240), image(2, 160, 400)
    url = [{"type": "image_url", "image_url": {"url": data_uri(one)}} for one in (first, second)]

    def text(said: str) -> dict[str, str]:
        return {"type": "text", "text": said}

    def user(content: Any) -> dict[str, Any]:
        return {"role": "user", "content": content}

    turns = [
        {"role": "system", "content": "Answer in one word."},
        user("Where is the caf\u00e9?"),
        {"role": "assistant", "content": "Here."},
        user("And now, with <image> as text?"),
    ]
    return [
        Conversation([user("What is a bus?")], [user("What is a bus?")], []),
        Conversation(turns, turns, []),
        Conversation([user([url[0], text("What is it?")])], [user("<image>\nWhat is it?")], [first]),
        Conversation(
            [user([text("Look:"), url[0], text("The tag <image> is text.")])],
            [user("Look:\n<image>\nThe tag \\<image> is text.")],
            [first],
        ),
        Conversation(
            [user([url[0], url[1], text("Which is wider?")])],
            [user("<image>\n<image>\nWhich is wider?")],
            [first, second],
        ),
        Conversation(
            [user([url[0], text("First.")]), {"role": "assistant", "content": "Yes."}, user([text("Second:"), url[1]])],
            [user("<image>\nFirst."), {"role": "assistant", "content": "Yes."}, user("Second:\n<image>")],
            [first, second],
        ),
    ]
