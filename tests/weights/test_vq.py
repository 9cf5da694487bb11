"""The encoder of a VQGAN: codes of random patches equal to those of transformers' classes, in every layout."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from eve_jax.errors import UserError
from eve_jax.hf.vq_folder import read_vq
from eve_jax.model.vq import codes_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
Tensors = dict[str, np.ndarray]

SMALL: dict[str, Any] = {"base_channels": 32, "num_res_blocks": 1, "num_embeddings": 64}
SBER: dict[str, Any] = {"channel_multiplier": [1, 2, 2], "embed_dim": 4, "latent_channels": 4, "num_res_blocks": 2}
SIDE = 32


def chameleon(**fields: Any) -> Any:
    """transformers' class, with attention in the last level where `attends`."""
    from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAE

    config = transformers.ChameleonVQVAEConfig(**SMALL | {"resolution": SIDE, **fields})
    return drawn(ChameleonVQVAE(config))


def janus(**fields: Any) -> Any:
    from transformers.models.janus.modeling_janus import JanusVQVAE

    return drawn(JanusVQVAE(transformers.JanusVQVAEConfig(**SMALL | fields)))


def drawn(model: Any) -> Any:
    """`model` with random weights by which many codes occur."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn(weight.shape) * (2 / weight[0].numel()) ** 0.5)
            else:
                weight.add_(0.2 * torch.randn(weight.shape))
        model.quantize.embedding.weight.copy_(torch.randn(model.quantize.embedding.weight.shape))
    return model.eval()


def tensors_of(model: Any) -> Tensors:
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def as_kandinsky(tensors: Tensors) -> Tensors:
    """The names of diffusers, whose attention has linear layers."""
    pairs = {
        "encoder.mid.block_1": "encoder.mid_block.resnets.0",
        "encoder.mid.attn_1": "encoder.mid_block.attentions.0",
        "encoder.mid.block_2": "encoder.mid_block.resnets.1",
        "encoder.norm_out": "encoder.conv_norm_out",
        "encoder.down.": "encoder.down_blocks.",
        ".block.": ".resnets.",
        ".attn.": ".attentions.",
        ".downsample.": ".downsamplers.0.",
        "nin_shortcut": "conv_shortcut",
    }
    parts = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
    out = {}
    for name, value in tensors.items():
        for old, new in pairs.items():
            name = name.replace(old, new)
        if ".attentions." in name:
            head, part, kind = name.rsplit(".", 2)
            name, value = f"{head}.{parts[part]}.{kind}", value.reshape(value.shape[:2]) if value.ndim == 4 else value
        out[name] = value
    return out


def as_llamagen(tensors: Tensors) -> Tensors:
    pairs = {"encoder.mid.block_1": "encoder.mid.0", "encoder.mid.attn_1": "encoder.mid.1"}
    pairs |= {"encoder.mid.block_2": "encoder.mid.2", "encoder.down.": "encoder.conv_blocks.", ".block.": ".res."}
    out = {}
    for name, value in tensors.items():
        for old, new in pairs.items():
            name = name.replace(old, new)
        out[name] = value
    return out


def write(folder: Path, config: dict[str, Any], tensors: Tensors) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file({n: np.ascontiguousarray(v) for n, v in tensors.items()}, folder / "model.safetensors")
    return folder


def layouts() -> dict[str, Any]:
    """name -> what makes the model, its config.json here, and its names here."""
    kandinsky = {
        "_class_name": "VQModel",
        "block_out_channels": [32, 64, 64],
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
        "layers_per_block": 2,
        "latent_channels": 4,
        "num_vq_embeddings": 64,
        "vq_embed_dim": 4,
    }
    ours = {"channels": 32, "multipliers": [1, 2, 2], "codes": 64, "image_size": SIDE}
    with_attention = {"attn_resolutions": [SIDE // 4], **SBER}
    llamagen = {"model_type": "llamagen_vq", **ours, "blocks": 1, "latent": 16}
    return {
        "sber": (lambda: chameleon(**with_attention), {"model_type": "sber_movqgan", **ours}, dict),
        "kandinsky": (lambda: chameleon(**with_attention), kandinsky, as_kandinsky),
        "chameleon": (lambda: chameleon(embed_dim=16, latent_channels=8), None, dict),
        "llamagen": (lambda: janus(channel_multiplier=[1, 2, 2], latent_channels=16), llamagen, as_llamagen),
        "janus": (lambda: janus(channel_multiplier=[1, 1, 2], latent_channels=16), None, dict),
    }


@pytest.mark.parametrize("name", layouts())
def test_codes_of_a_thousand_random_patches(name, tmp_path):
    """In images whose grids have 1,000 codes and more."""
    make, config, rename = layouts()[name]
    model = make()
    if name == "llamagen":  # whose codes are compared by their angle
        with torch.no_grad():
            model.quantize.embedding.weight.div_(model.quantize.embedding.weight.norm(dim=1, keepdim=True))
    folder = write(tmp_path / "vq", config or model.config.to_dict(), rename(tensors_of(model)))
    cfg, params = read_vq(folder)
    rng = np.random.default_rng(1)
    side = 16 * cfg.patch
    images = rng.integers(0, 256, (4, side, side, 3), np.uint8)
    ours = np.asarray(codes_of(cfg, params, images)).reshape(-1)
    pixels = torch.tensor(images.transpose(0, 3, 1, 2) / 127.5 - 1, dtype=torch.float32)
    with torch.no_grad():
        theirs = model.encode(pixels).image_tokens.numpy().reshape(-1)
    assert len(ours) == 1024 and len(np.unique(theirs)) > 20
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "vae"}, "'vae' is no VQGAN"),
        ({"attn_resolutions": [16]}, r"attn_resolutions is \[16\]"),
        ({"double_latent": True}, "double_latent"),
        ({"base_channels": 33}, "channels=33"),
        ({"channel_multiplier": 4}, "channel_multiplier=4: expected a list of whole numbers"),
        ({"resolution": None}, "resolution=None: expected a whole number"),
        ({"model_type": "sber_movqgan"}, "there is no field "),
        ({"num_embeddings": 65}, r"quantize.embedding.weight has shape \(64, 16\)"),
    ],
)
def test_what_is_no_such_encoder(tmp_path, change, says):
    model = chameleon(embed_dim=16, latent_channels=8)
    config = model.config.to_dict() | change
    with pytest.raises(UserError, match=says):
        read_vq(write(tmp_path / "vq", config, tensors_of(model)))
