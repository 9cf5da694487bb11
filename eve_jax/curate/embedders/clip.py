"""CLIP's image features by our own vision tower, from its Hugging Face folder."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float32, UInt8
from PIL import Image

from eve_jax.curate.embedders.form import Embedder, Images
from eve_jax.data.record import digest_of
from eve_jax.hf.clip_teacher import describe_teacher, load_teacher, tower_only
from eve_jax.hf.safetensors_io import open_tensors
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params, abstract_params, bind
from eve_jax.process.paths import no_folder
from eve_jax.sharding import AXES, make_mesh

PROJECTION = "visual_projection.weight"
ENDS = 1 << 20  # bytes of each end of a file of weights that stand for it


def clip_identity(folder: str) -> str:
    """Return a text that stands for the files of the folder: their names, sizes and ends. Raises UserError."""
    if not Path(folder).is_dir():
        raise no_folder(folder)
    parts: list[str | bytes] = []
    for path in sorted([*Path(folder).glob("*.json"), *Path(folder).glob("*.safetensors")]):
        size = path.stat().st_size
        with path.open("rb") as file:
            parts += [f"{path.name} {size}", file.read(ENDS)]
            file.seek(max(size - ENDS, 0))
            parts.append(file.read(ENDS))
    return digest_of(parts)


def clip_embedder(folder: str, batch: int) -> Embedder:
    """Return the embedder of a CLIP: its class token after the last norm, projected if the folder has the projection.

    folder: of Hugging Face, of a complete CLIP or of its vision tower. batch: images at a time on all devices together.
    Raises UserError when there is no CLIP.
    """
    clip = describe_teacher(folder)
    cfg = tower_only(clip)
    params: Params = {name: jnp.zeros(value.shape) for name, value in abstract_params(cfg).items()}
    params |= {name: jnp.asarray(value) for name, value in load_teacher(folder, clip).items()}
    projection = open_tensors(Path(folder)).get(PROJECTION)
    matrix = None if projection is None else jnp.asarray(projection.read(), jnp.float32).T
    mesh = make_mesh("")
    rows = NamedSharding(mesh, PartitionSpec(AXES))
    size = -(-batch // mesh.size) * mesh.size
    program = partial(jax.jit(_features, static_argnums=0), cfg, params, matrix)

    def embed(images: Images) -> Float32[np.ndarray, "n D"]:
        found = []
        for start in range(0, len(images), size):
            part = images[start : start + size]
            seen = np.zeros((size, clip.image_size, clip.image_size, 3), np.uint8)
            for number, image in enumerate(part):
                seen[number] = middle_square(image, clip.image_size)
            found.append(np.asarray(program(jax.device_put(seen, rows)))[: len(part)])
        return np.concatenate(found)

    return Embedder(embed, clip.image_size)


def middle_square(image: UInt8[np.ndarray, "H W 3"], side: int) -> UInt8[np.ndarray, "side side 3"]:
    """Return what CLIP sees: the shorter side becomes `side` pixels, bicubic, and the middle is cut out."""
    height, width = image.shape[:2]
    scale = side / min(height, width)
    sizes = max(round(width * scale), side), max(round(height * scale), side)
    whole = np.asarray(Image.fromarray(image).resize(sizes, Image.Resampling.BICUBIC))
    top, left = (whole.shape[0] - side) // 2, (whole.shape[1] - side) // 2
    return whole[top : top + side, left : left + side]


def _features(cfg: ModelConfig, params: Params, matrix: Array | None, images: Array) -> Array:
    tower = bind(cfg, params).teacher
    pooled = tower.post_norm(tower(images, drop=0)[:, 0])
    return pooled if matrix is None else pooled @ matrix
