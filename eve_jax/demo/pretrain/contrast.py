"""A vision encoder that learns which caption is of which image: CLIP's loss, at the demo's size.

An image is the mean over its patches after the tower's last layer and norm, a caption the mean over its tokens after a
convolution over five of them; both go through a linear layer and are compared by their angle. The tower is kept.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8

from eve_jax.data.text.tokenizer import Tokenizer
from eve_jax.demo.pretrain.images import Drawn, batches
from eve_jax.demo.pretrain_config import EncoderTask
from eve_jax.hf.clip_teacher import tower_only
from eve_jax.hf.config import CONFIG, THEIR_NAMES
from eve_jax.hf.names import clip
from eve_jax.hf.safetensors_io import SINGLE, TensorWriter
from eve_jax.model.clip_config import EncoderConfig
from eve_jax.model.v1.clip import ClipVision
from eve_jax.process.files import write_json
from eve_jax.process.progress import ProgressBar

LONGEST = 64  # tokens of a caption that are looked at
WIDTH = 64  # of the space in which images and captions are compared
FIRST_SCALE, MOST_SCALE = 10.0, 100.0  # of the cosines in the softmax


class Pair(nnx.Module):
    """The two towers and the scale of their cosines."""

    def __init__(self, sizes: EncoderConfig, vocabulary: int, rngs: nnx.Rngs):
        width = sizes.hidden_size
        self.tower = ClipVision(tower_only(sizes), sizes, rngs)
        self.of_image = nnx.Linear(width, WIDTH, use_bias=False, rngs=rngs)
        self.words = nnx.Embed(vocabulary, width, rngs=rngs)
        self.read = nnx.Conv(width, width, (5,), padding="SAME", rngs=rngs)
        self.of_caption = nnx.Linear(width, WIDTH, use_bias=False, rngs=rngs)
        self.scale = nnx.Param(jnp.log(FIRST_SCALE))

    def images(self, images: UInt8[Array, "B S S 3"]) -> Float[Array, "B W"]:
        """Return what images are compared by, of length 1."""
        return _unit(self.of_image(self.tower.post_norm(self.tower(images, drop=0)[:, 1:]).mean(axis=1)))

    def captions(self, ids: Int[Array, "B T"]) -> Float[Array, "B W"]:
        """Return what captions are compared by, of length 1; ids below 0 are no tokens."""
        real = (ids >= 0)[..., None]
        read = jax.nn.gelu(self.read(jnp.where(real, self.words(jnp.maximum(ids, 0)), 0)))
        return _unit(self.of_caption((read * real).sum(axis=1) / real.sum(axis=1)))

    def __call__(self, images: UInt8[Array, "B S S 3"], ids: Int[Array, "B T"]) -> Float[Array, "B B"]:
        """Return the score of each image (row) with each caption."""
        scale = jnp.minimum(jnp.exp(self.scale[...]), MOST_SCALE)
        return scale * self.images(images) @ self.captions(ids).T


def _unit(x: Float[Array, "B W"]) -> Float[Array, "B W"]:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-6)


def token_ids(tokenizer: Tokenizer, captions: list[str]) -> Int[np.ndarray, "n T"]:
    """Return the first LONGEST tokens of each caption, -1 behind shorter ones."""
    out = np.full((len(captions), LONGEST), -1, np.int32)
    for row, text in zip(out, captions, strict=True):
        ids = tokenizer.encode(text)[:LONGEST]
        row[: len(ids)] = ids
    return out


def train_encoder(folder: Path, task: EncoderTask, shown: Drawn, tokenizer: Tokenizer, seed: int) -> dict[str, Any]:
    """Write the trained tower into `folder` and return its figures.

    shown: the images of the task, then those that are checked. Figures: the mean loss of the last tenth of the steps,
    and how often an image's caption, of those of a batch of the images that are checked, is found.
    """
    ids = token_ids(tokenizer, shown.captions)
    pair = Pair(task.sizes, tokenizer.vocab_size, nnx.Rngs(seed))
    graph, params, *rest = nnx.split(pair, nnx.Param, ...)
    tx = optax.adam(optax.warmup_cosine_decay_schedule(0.0, task.lr, max(task.steps // 20, 1), task.steps))
    step = jax.jit(partial(_step, graph, rest, tx), donate_argnums=(0, 1))
    state, losses = tx.init(params), []
    with ProgressBar("the encoder learns", task.steps, unit="steps") as bar:
        for chosen in batches(task.images, task.batch, task.steps, seed):
            params, state, loss = step(params, state, shown.images[chosen], ids[chosen])
            losses.append(loss)
            bar.advance()
    pair = nnx.merge(graph, params, *rest)
    checked = np.arange(task.images, task.images + task.checked)
    found = []
    for some in np.array_split(checked, -(-len(checked) // task.batch)):
        scores = pair(jnp.asarray(shown.images[some]), jnp.asarray(ids[some]))
        best = np.asarray(scores.argmax(axis=1))
        found += [shown.captions[some[one]] == shown.captions[at] for one, at in zip(best, some, strict=True)]
    write_tower(folder, task.sizes, pair.tower)
    last = np.asarray(losses[-max(task.steps // 10, 1) :])
    return {"loss": float(last.mean()), "found": float(np.mean(found)), "among": task.batch, "seen": task.seen}


def _step(
    graph: Any, rest: Any, tx: optax.GradientTransformation, params: Any, state: Any, images: Array, ids: Array
) -> tuple[Any, Any, Array]:
    def loss_of(params: Any) -> Array:
        scores = nnx.merge(graph, params, *rest)(images, ids)
        labels = jnp.arange(len(scores))
        both = (optax.softmax_cross_entropy_with_integer_labels(s, labels).mean() for s in (scores, scores.T))
        return sum(both) / 2

    loss, gradient = jax.value_and_grad(loss_of)(params)
    updates, state = tx.update(gradient, state, params)
    return optax.apply_updates(params, updates), state, loss


def write_tower(folder: Path, sizes: EncoderConfig, tower: ClipVision) -> None:
    """Write a vision tower as `CLIPVisionModel` of transformers keeps it: config.json, model.safetensors."""
    values = {".".join(map(str, path)): np.asarray(v[...]) for path, v in nnx.to_flat_state(nnx.state(tower))}
    cfg, tensors = tower_only(sizes), {}
    for entry in clip(sizes):
        pieces = values[entry.ours] if entry.stacked else [values[entry.ours]]
        for name, piece in zip(entry.names(cfg), pieces, strict=True):
            tensors[name] = entry.to_theirs(piece)
    folder.mkdir(parents=True, exist_ok=True)
    specs = [(name, value.dtype, value.shape) for name, value in tensors.items()]
    with TensorWriter(folder, specs, sum(value.nbytes for value in tensors.values())) as writer:
        for name, value in tensors.items():
            writer.write(name, np.ascontiguousarray(value))
    assert (folder / SINGLE).is_file(), "one file"
    own = {THEIR_NAMES.get(name, name): value for name, value in json.loads(json.dumps(sizes.to_dict())).items()}
    write_json(folder / CONFIG, {"model_type": "clip_vision_model", "architectures": ["CLIPVisionModel"], **own})
