"""The model: patch embedding, word embedding, routed decoder, head; and its parameters as a flat dict.

Outside this package parameters are `Params`: {"layers.mlp.vision.up": array, ...}, layers' with a leading layer axis.
"""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jaxtyping import Array, Float

from eve_jax.errors import UserError
from eve_jax.model.config import ModelConfig
from eve_jax.model.decoder import (
    DecoderLayer,
    HeldGroup,
    TurnLayers,
    Turns,
    extend_layers,
    extra_layers,
    grouped,
    run_layers,
    run_tapped,
    stack_layers,
)
from eve_jax.model.layers import RMSNorm
from eve_jax.model.logit_cap import capped
from eve_jax.model.lora import ADAPTER_ROLES, add_adapters
from eve_jax.model.patch_embeds import PATCH_EMBEDS
from eve_jax.model.product import compared
from eve_jax.model.quantized import is_quantized, rows_of
from eve_jax.model.routing import TRAINING_ROWS, CachedRows, DecodingRows
from eve_jax.model.v1.align import PatchAlign
from eve_jax.model.v1.clip import ClipVision
from eve_jax.model.weight import Weight, declare, normal, param
from eve_jax.sharding import constrain, parameter_sharding

Params = dict[str, Any]
Batch = dict[str, Any]  # the arrays of docs/design.md#row-contract, of NumPy or JAX
Cache = tuple[Array, Array]  # keys [layers, R, K, H, C] and values [layers, R, K, C, E], in causal order
LAYERS = ("layers.", "extra.")  # how the names of the decoder layers' parameters begin


class Eve(nnx.Module):
    """EVEv2 (and, with fewer `parts`, its ablations) or EVEv1 on a Qwen2- or LLaMA-like backbone."""

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs):
        self.cfg = cfg
        self.patch_embed = declare(PATCH_EMBEDS[cfg.patch_embed](cfg, rngs), "patch_embed")
        shape = (cfg.vocab_size, cfg.hidden_size)
        head = "targets"  # only positions that predict a target meet the LM head
        self.embed = param(cfg, rngs, shape, ("vocab", "table"), normal(0.02), "table", group="text")
        own = cfg.num_layers - cfg.extra_layers
        self.layers: Any = TurnLayers(cfg, rngs) if cfg.in_turns else stack_layers(cfg, rngs, own)
        self.norm = declare(RMSNorm(cfg, rngs), "text")
        if cfg.align_width:
            self.align = declare(PatchAlign(cfg, rngs), "align")
        if cfg.teacher:
            self.teacher = declare(ClipVision(cfg, cfg.teacher, rngs), "teacher")
        if cfg.tie_embeddings:
            declare(self.embed, "text", works_on=head)
        else:
            self.head = param(cfg, rngs, shape, ("vocab", "table"), normal(0.02), "table", group="text", works_on=head)
        if cfg.extra_layers:
            self.extra = extra_layers(cfg, rngs)
        add_adapters(cfg, self, rngs)  # last: what is random about the other weights stays the same

    @property
    def stacks(self) -> list[list[DecoderLayer]]:
        """The layers from the first to the last, new ones before the base LLM's; those of a list take turns."""
        if self.cfg.in_turns:
            return [self.layers.each]
        return [[self.extra], [self.layers]] if self.cfg.extra_layers else [[self.layers]]

    @property
    def head_weight(self) -> Float[Array, "Q D"]:
        """Rows of the LM head: its own weights, or the word embedding's when tied; they may be quantized."""
        return (self.embed if self.cfg.tie_embeddings else self.head)[...]

    def embed_slots(self, batch: Batch) -> tuple[Array, Array]:
        """Embeddings of the vision slots [R, P + S, D] and of the text slots [R, T, D], zeros in empty text slots.

        Empty slots have the id 0: were its row of the table NaN, attention would spoil the others by `0 * NaN`.
        """
        vision = self.patch_embed(batch)
        if self.cfg.patch_token >= 0:
            vision = vision + self._words(jnp.int32(self.cfg.patch_token))
        # Looked up while the table is sharded over its columns: otherwise the backward pass gathers the whole table.
        ids = constrain(batch["text_ids"], "id_batch", None)
        text = self._words(ids)
        text = constrain(constrain(text, "id_batch", None, "table"), "batch", None, None)
        return vision, jnp.where(batch["segment"][:, vision.shape[1] :, None] > 0, text, 0)

    def _words(self, ids: Array) -> Array:
        """The word embeddings of `ids`, times sqrt(D) where the backbone has them so (Gemma)."""
        table, dtype = self.embed[...], jnp.dtype(self.cfg.dtype)
        words = rows_of(table, dtype, ids) if is_quantized(table) else table.astype(dtype)[ids]
        return words * jnp.asarray(self.cfg.hidden_size**0.5, words.dtype) if self.cfg.scale_embeddings else words

    def hidden(self, batch: Batch, keep: bool = False) -> tuple[Array, Array | None]:
        """Residual stream after the last layer, [R, L, D] in slot order, before the final norm.

        `batch` is a packed micro-batch (docs/design.md#row-contract). With `keep`, also every layer's output
        [layers, R, L, D].
        """
        vision, text = self.embed_slots(batch)
        rows = TRAINING_ROWS[self.cfg.routing].of(self.cfg, batch, vision.shape[1])
        x, kept = run_layers(self.stacks, rows.enter(vision, text), rows, self.cfg.remat, keep)
        return rows.leave(x), kept

    def hidden_and_features(self, batch: Batch) -> tuple[Array, Array, Array]:
        """Residual stream as `hidden` has it, and the teacher's features [R, A, C] as predicted and as they are.

        `batch` holds what `eve_jax.data.rows.align_arrays` adds to the rows; A is the number of the teacher's patches
        of a row.
        """
        vision, text = self.embed_slots(batch)
        rows = TRAINING_ROWS[self.cfg.routing].of(self.cfg, batch, vision.shape[1])

        def tap(weights: nnx.State, x: Any) -> Array:
            return self.align.read(weights, rows.leave(x), batch)

        lower, every = self.align.weights()[1], self.cfg.align_every
        x, taps = run_tapped(self.layers, rows.enter(vision, text), rows, self.cfg.remat, every, tap, lower)
        hidden = rows.leave(x)
        predicted = self.align.predict(self.norm(hidden), taps, batch)
        seen = batch["teacher_images"]
        features = self.teacher(seen.reshape(-1, *seen.shape[2:]))[:, 1:]
        features = constrain(features.reshape(seen.shape[0], -1, features.shape[-1]), "batch", None, None)
        return hidden, predicted, jnp.take_along_axis(features, batch["teacher_idx"][..., None], axis=1)

    def logits(self, hidden: Float[Array, "*B D"]) -> Float[Array, "*B Q"]:
        """Final norm and LM head; float32 logits."""
        return capped(compared(self.norm(hidden), self.head_weight), self.cfg.logit_cap)

    def __call__(self, batch: Batch) -> Float[Array, "R L Q"]:
        """Logits of every slot, float32; training uses `hidden` and the loss at the targets alone."""
        return self.logits(self.hidden(batch)[0])

    def layer_groups(self, groups: int) -> list[list[Turns]]:
        """The layers as `extend` takes them, in one group or in a group for each (`groups`)."""
        return grouped(self.stacks, self.cfg.kind_numbers if self.cfg.in_turns else (), groups)

    def extend(
        self,
        batch: Batch,
        caches: list[Cache],
        start: Array,
        weights: list[list[Turns]],
        first: bool = False,
        held: list[HeldGroup] | None = None,
    ) -> tuple[Array, list[Cache]]:
        """Append one sample's new tokens a row (slot order) to the caches, whose rows hold `start` [R] tokens.

        `caches` and `weights` are those of groups of layers. `first`: no row holds any, and `batch` has segments.
        Returns the residual stream of the new slots [R, L, D] and the caches, which must have room for `start` + L
        entries; entries that pads write are overwritten by the next call. With `held`, that has the `start` tokens, and
        the caches get the new ones alone.
        """
        vision, text = self.embed_slots(batch)
        rows = CachedRows.of(self.cfg, batch, vision.shape[1], start, first)
        x, caches = extend_layers(weights, caches, rows.enter(vision, text), rows, held)
        return rows.leave(x), caches

    def decode(
        self,
        token: Array,
        held: list[HeldGroup],
        recent: list[Cache],
        length: Array,
        step: Array,
        weights: list[list[Turns]],
        number: Array | None = None,
    ) -> tuple[Array, list[Cache]]:
        """One text token a row, int32 [R], after `length` [R] tokens in the caches `held` and `step` in `recent`.

        number: what rotary positions count of the first token in `recent`, [R], where that is not `length`. Returns
        the residual stream [R, D] and `recent` with the token; all are those of groups of layers.
        """
        x = self._words(token[:, None])
        if number is None or self.cfg.index_rule == "token":
            number = length
        rows = DecodingRows.of(self.cfg, length, step, number)
        x, recent = extend_layers(weights, recent, x, rows, held)
        return x[:, 0], recent


@cache
def _abstract(cfg: ModelConfig) -> tuple[nnx.GraphDef, dict[tuple, nnx.Variable]]:
    graph, state = nnx.split(nnx.eval_shape(lambda: Eve(cfg, nnx.Rngs(0))))
    return graph, dict(nnx.to_flat_state(state))


def abstract_params(cfg: ModelConfig) -> Params:
    """Shape and dtype of every parameter."""
    return {".".join(map(str, path)): jax.ShapeDtypeStruct(v.shape, v.dtype) for path, v in _abstract(cfg)[1].items()}


def logical_axes(cfg: ModelConfig) -> dict[str, tuple[str | None, ...]]:
    """Logical axis names of every parameter, one a dimension; stacked layers have "layer" first."""
    axes = {}
    for path, v in _abstract(cfg)[1].items():
        stacked = len(v.shape) - len(v.axes)
        axes[".".join(map(str, path))] = ("layer",) * stacked + tuple(v.axes)
    return axes


def parameter_shardings(cfg: ModelConfig, mesh: Mesh | AbstractMesh) -> dict[str, NamedSharding]:
    """Sharding of every parameter on `mesh`."""
    axes = logical_axes(cfg)
    return {n: parameter_sharding(mesh, axes[n], v.shape) for n, v in abstract_params(cfg).items()}


@cache
def declared(cfg: ModelConfig) -> dict[str, Weight]:
    """Return what every parameter is, by its name in `Params`."""
    found = {}
    for path, v in _abstract(cfg)[1].items():
        weight: Weight = v.weight
        if weight.works_on is None:
            weight = weight._replace(works_on="")
        names = tuple(map(str, path))
        if weight.branch:
            weight = weight._replace(copy_of=".".join("text" if n == weight.branch else n for n in names))
        if weight.taken_from:
            weight = weight._replace(made_of=".".join((*names[:-3], weight.taken_from, *names[-2:])))
        if weight.adds_to:
            weight = weight._replace(delta_of=".".join((*names[:-2], weight.adds_to)))
        found[".".join(names)] = weight._replace(stacked=len(v.shape) > len(v.axes))
    return found


def of_groups(cfg: ModelConfig, *groups: str) -> set[str]:
    """Return the names of the parameters of `groups` (`eve_jax.model.weight.groups`)."""
    return {name for name, weight in declared(cfg).items() if weight.group in groups}


def adapters(cfg: ModelConfig) -> set[str]:
    """Return the names of the parameters that are adapters' (`eve_jax.model.lora`)."""
    return {name for name, weight in declared(cfg).items() if weight.role in ADAPTER_ROLES}


def quantizable(cfg: ModelConfig) -> set[str]:
    """Return the names of the parameters that `eve_jax.model.quantized` is for: matrices of the decoder layers."""
    return {n for n, weight in declared(cfg).items() if weight.role == "matrix" and n.startswith(LAYERS)}


def head_name(cfg: ModelConfig) -> str:
    """Return the name of the parameter that holds the rows of the LM head."""
    return "embed" if cfg.tie_embeddings else "head"


def layer_matrices(cfg: ModelConfig) -> set[str]:
    """Return the names of the matrices of the decoder layers, and of the two of each of their adapters."""
    of_layers = {name for name in adapters(cfg) if name.startswith(LAYERS)}
    return quantizable(cfg) | of_layers


def init_params(cfg: ModelConfig, seed: int, *groups: str) -> Params:
    """Return random parameters, the same on every machine for a seed (jit-compiled): all, or those of `groups`."""
    return _random(cfg, seed, of_groups(cfg, *groups) if groups else set(declared(cfg)))


def init_adapters(cfg: ModelConfig, shardings: dict[str, Any] | None = None) -> Params:
    """Return the adapters that training of `cfg` begins with, from the seed in `cfg.lora`.

    `shardings`: where each lies.
    """
    return {} if cfg.lora is None else _random(cfg, cfg.lora.seed, adapters(cfg), shardings)


def _random(cfg: ModelConfig, seed: int, wanted: set[str], shardings: dict[str, Any] | None = None) -> Params:
    places = None if shardings is None else {name: shardings[name] for name in sorted(wanted)}

    @partial(jax.jit, out_shardings=places)
    def make(key: Array) -> Params:
        state = nnx.state(Eve(cfg, nnx.Rngs(key)))
        every = {".".join(map(str, path)): v[...] for path, v in nnx.to_flat_state(state)}
        return {name: every[name] for name in sorted(wanted)}

    return make(jax.random.key(seed))


def bind(cfg: ModelConfig, params: Params) -> Eve:
    """The module with `params` in place; cheap, meant to be called inside compiled functions."""
    graph, abstract = _abstract(cfg)
    names = {".".join(map(str, path)): path for path in abstract}
    if names.keys() != params.keys():
        missing, unknown = names.keys() - params.keys(), params.keys() - names.keys()
        lists = f"missing {sorted(missing)[:3]}, unknown {sorted(unknown)[:3]}"
        raise UserError(f"parameters do not fit the model: {lists}")
    flat = [(names[n], abstract[names[n]].replace(v)) for n, v in params.items()]
    return nnx.merge(graph, nnx.from_flat_state(flat))
