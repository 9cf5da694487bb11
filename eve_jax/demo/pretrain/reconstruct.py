"""A vision tokenizer that learns to give images back: a VQGAN's encoder without its critic, at the demo's size.

The loss is that of VQ-VAE (arXiv 1711.00937, equation 3): squared error of the pixels in [-1, 1], of the codes to the
latents, and a quarter of that of the latents to the codes. The table begins as latents of the first images, and codes
that nothing was near for a while become latents again. The decoder is small and not kept.
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8

from eve_jax.demo.pretrain.images import Drawn, batches
from eve_jax.demo.pretrain_config import TokenizerTask
from eve_jax.hf.config import CONFIG
from eve_jax.hf.safetensors_io import TensorWriter
from eve_jax.hf.vq_folder import names_of
from eve_jax.model.vq import VqConfig, VqEncoder
from eve_jax.process.files import write_json
from eve_jax.process.progress import ProgressBar

COMMITMENT = 0.25  # of the latents' own error
REVIVE = 25  # steps after which codes that were not used become latents
WIDTH = 128  # of the decoder


class Autoencoder(nnx.Module):
    """The encoder that is kept, and a decoder: two convolutions over the codes, then pixels of each."""

    def __init__(self, cfg: VqConfig, rngs: nnx.Rngs):
        self.cfg, pixels = cfg, 3 * cfg.patch**2
        self.encoder = VqEncoder(cfg, rngs)
        conv = partial(nnx.Conv, kernel_size=(3, 3), padding="SAME", rngs=rngs)
        self.first, self.second = conv(cfg.code_dim, WIDTH), conv(WIDTH, WIDTH)
        self.pixels = nnx.Linear(WIDTH, pixels, rngs=rngs)

    def decode(self, codes: Float[Array, "B h w C"]) -> Float[Array, "B S S 3"]:
        """Return pixels in about [-1, 1]."""
        x = nnx.swish(self.first(codes))
        x = self.pixels(x + nnx.swish(self.second(x)))
        batch, rows, columns, _ = x.shape
        x = x.reshape(batch, rows, columns, self.cfg.patch, self.cfg.patch, 3)
        return x.swapaxes(2, 3).reshape(batch, rows * self.cfg.patch, columns * self.cfg.patch, 3)

    def __call__(self, images: UInt8[Array, "B S S 3"]) -> tuple[Array, Array, Array, Array]:
        """Return the loss, the squared error of the pixels, latents [B h w, C] and codes [B h w]."""
        z = self.encoder.latents(images)
        table = self.encoder.table[...]
        codes = nearest(z, table)
        chosen, hold = table[codes], jax.lax.stop_gradient
        given = self.decode(z + hold(chosen - z))  # the gradient of the codes is that of the latents
        error = jnp.mean((given - (images.astype(jnp.float32) / 127.5 - 1)) ** 2)
        loss = error + jnp.mean((chosen - hold(z)) ** 2) + COMMITMENT * jnp.mean((z - hold(chosen)) ** 2)
        return loss, error, z.reshape(-1, z.shape[-1]), codes.reshape(-1)


def nearest(z: Float[Array, "B h w C"], table: Float[Array, "Q C"]) -> Int[Array, "B h w"]:
    """Return the number of the row of `table` that is nearest to each latent."""
    squares = jnp.sum(z**2, axis=-1, keepdims=True) + jnp.sum(table**2, axis=-1)
    return jnp.argmin(squares - 2 * jnp.einsum("BhwC,QC->BhwQ", z, table), axis=-1)


def train_tokenizer(folder: Path, task: TokenizerTask, shown: Drawn, seed: int) -> dict[str, Any]:
    """Write the trained encoder and its table into `folder` and return its figures.

    shown: the images of the task, then those that are checked. Figures are of these: the mean squared error of pixels
    in [-1, 1], that of the mean color of all, and how many of the codes are used.
    """
    model = Autoencoder(task.sizes, nnx.Rngs(seed))
    graph, params, *rest = nnx.split(model, nnx.Param, ...)
    first = shown.images[: min(task.batch, task.images)]
    latents = np.asarray(model.encoder.latents(jnp.asarray(first))).reshape(-1, task.code_dim)
    rng = np.random.default_rng(seed)
    params = _with_rows(params, np.arange(task.codes), latents, rng)
    tx = optax.adam(optax.warmup_cosine_decay_schedule(0.0, task.lr, max(task.steps // 20, 1), task.steps))
    step = jax.jit(partial(_step, graph, rest, tx), donate_argnums=(0, 1))
    state, used = tx.init(params), np.zeros(task.codes, np.int64)
    with ProgressBar("the tokenizer learns", task.steps, unit="steps") as bar:
        for number, chosen in enumerate(batches(task.images, task.batch, task.steps, seed), 1):
            params, state, z, codes = step(params, state, shown.images[chosen])
            used += np.bincount(np.asarray(codes), minlength=task.codes)
            if number % REVIVE == 0 and number <= task.steps // 2:
                params = _with_rows(params, np.flatnonzero(used == 0), np.asarray(z), rng)
                used[:] = 0
            bar.advance()
    model = nnx.merge(graph, params, *rest)
    figures = _checked(model, shown.images[task.images :], task)
    write_vq(folder, task.sizes, model.encoder)
    return figures


def _with_rows(params: Any, rows: np.ndarray, latents: np.ndarray, rng: np.random.Generator) -> Any:
    """`params` with those rows of the table as latents that are drawn, a little apart from each other."""
    if not len(rows):
        return params
    drawn = latents[rng.integers(len(latents), size=len(rows))]
    drawn = drawn + rng.normal(0, 1e-2 * latents.std() + 1e-6, drawn.shape)
    flat = dict(nnx.to_flat_state(params))
    table = flat["encoder", "table"]
    flat["encoder", "table"] = table.replace(table.get_value().at[rows].set(drawn.astype(np.float32)))
    return nnx.from_flat_state(list(flat.items()))


def _step(
    graph: Any, rest: Any, tx: optax.GradientTransformation, params: Any, state: Any, images: Array
) -> tuple[Any, Any, Array, Array]:
    def loss_of(params: Any) -> tuple[Array, tuple[Array, Array]]:
        loss, _, z, codes = nnx.merge(graph, params, *rest)(images)
        return loss, (z, codes)

    gradient, (z, codes) = jax.grad(loss_of, has_aux=True)(params)
    updates, state = tx.update(gradient, state, params)
    return optax.apply_updates(params, updates), state, z, codes


def _checked(model: Autoencoder, images: np.ndarray, task: TokenizerTask) -> dict[str, Any]:
    errors, used = [], np.zeros(task.codes, np.int64)
    for some in np.array_split(images, -(-len(images) // task.batch)):
        _, error, _, codes = model(jnp.asarray(some))
        errors.append(float(error) * len(some))
        used += np.bincount(np.asarray(codes), minlength=task.codes)
    values = images.astype(np.float32) / 127.5 - 1
    plain = float(np.mean((values - values.mean(axis=(0, 1, 2))) ** 2))
    return {
        "error": sum(errors) / len(images),
        "error_of_mean_color": plain,
        "codes_used": int((used > 0).sum()),
        "seen": task.seen,
    }


def write_vq(folder: Path, sizes: VqConfig, encoder: VqEncoder) -> None:
    """Write the encoder and its table under SBER-MoVQGAN's names: config.json, model.safetensors."""
    values = {
        ".".join(map(str, path)): np.asarray(v[...]) for path, v in nnx.to_flat_state(nnx.state(encoder, nnx.Param))
    }
    tensors = {}
    for ours, theirs in names_of(sizes, "chameleon"):
        value = values[ours]
        tensors[theirs] = np.ascontiguousarray(value.transpose(3, 2, 0, 1) if value.ndim == 4 else value)
    folder.mkdir(parents=True, exist_ok=True)
    specs = [(name, value.dtype, value.shape) for name, value in tensors.items()]
    with TensorWriter(folder, specs, sum(value.nbytes for value in tensors.values())) as writer:
        for name, value in tensors.items():
            writer.write(name, value)
    write_json(folder / CONFIG, {"model_type": "sber_movqgan", **sizes.to_dict()})
