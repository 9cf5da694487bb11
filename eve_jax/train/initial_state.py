"""Where a stage's training begins: its own last checkpoint, the one it is told to start from, or random weights."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eve_jax import sharding
from eve_jax.checkpoint.frozen_weights import FROZEN, Origin, frozen_origins
from eve_jax.checkpoint.named_step import check_step
from eve_jax.checkpoint.own_tokenizer import own_tokenizer
from eve_jax.checkpoint.stage_folder import Checkpoints, newest_step, read_config
from eve_jax.checkpoint.vision_copies import add_vision_copies, refuse_loss
from eve_jax.config.stage import Config
from eve_jax.config.stages import partition, trainable_names
from eve_jax.data.image.rule import ImageRule
from eve_jax.errors import Field, FieldError, UserError
from eve_jax.hf.clip_encoder import check_encoder, with_encoder
from eve_jax.hf.clip_teacher import RANDOM, no_teacher, open_teacher, with_aligning
from eve_jax.hf.config import PATCH_FIELDS, SIZES
from eve_jax.hf.family import MEMBERS, TRAINED_BY, exported_member, member_of
from eve_jax.hf.vision_tokenizer import check_vision_tokenizer
from eve_jax.model.clip_config import ClipConfig
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params, abstract_params, init_adapters, init_params, of_groups, parameter_shardings
from eve_jax.model.family_config import EVE_FIELDS
from eve_jax.process.at_step import folder_of
from eve_jax.process.connect import peers, print_once
from eve_jax.process.paths import WORKDIR
from eve_jax.process.peers import Peers
from eve_jax.train.frozen_base import base, check_base, describe
from eve_jax.train.optimizer import abstract_optimizer, optimizer_state
from eve_jax.train.stage_files import vision_tokenizer
from eve_jax.train.step import TrainState
from eve_jax.weights.base_facts import base_facts
from eve_jax.weights.open import Checkpoint, load_frozen, open_checkpoint
from eve_jax.weights.text_alone import text_alone


@dataclass
class Start:
    """State to train from, the weights that stay, after how many steps, and where the latter can be had again.

    `origins` is the list `frozen` of a partial checkpoint (`eve_jax.checkpoint.frozen_weights`); empty: all weights are
    stored.
    """

    state: TrainState
    frozen: Params
    step: int
    origins: list[dict[str, Any]]

    def stored(self, state: TrainState) -> tuple[Params, dict[str, Any]]:
        """The parameters that a checkpoint of `state` holds, and what it says about the others."""
        elsewhere = {name for origin in self.origins for name in origin["weights"]}
        frozen = {name: value for name, value in self.frozen.items() if name not in elsewhere}
        return {**state.trainable, **frozen}, {FROZEN: self.origins} if self.origins else {}


def start(
    config: Config, cfg: ModelConfig, mesh: jax.sharding.Mesh, tx: Any, checkpoints: Checkpoints, folder: Path
) -> Start:
    """What to resume from; a checkpoint without checksums that cannot be read is set aside for the one before."""
    abstract = _abstract(config, cfg, mesh)
    while (step := checkpoints.latest) is not None:
        if (local := checkpoints.local) is not None and local.step == step:
            print_once(f"{config.name}: resuming from the hosts' own copies of step {step}, {config.train.local_dir}")
        if not checkpoints.is_verified(step):
            print_once(
                f"checkpoint {step} has no checksums (manifest.json): it is taken as it is, unless it cannot be read"
            )
        try:
            return _resumed(config, cfg, mesh, tx, checkpoints, folder, abstract, step)
        except UserError:
            raise
        except Exception as error:
            if checkpoints.is_verified(step):
                raise
            checkpoints.set_aside(step, str(error).split("\n")[0])
    return _fresh_start(config, cfg, mesh, tx, folder, abstract)


def _abstract(config: Config, cfg: ModelConfig, mesh: jax.sharding.Mesh) -> Params:
    """Shape, dtype and sharding of every parameter while the stage trains."""
    shardings, shapes = parameter_shardings(cfg, mesh), abstract_params(cfg)
    train = trainable_names(cfg, config.factors)
    dtypes = {n: jnp.dtype(cfg.param_dtype if n in train else cfg.frozen_dtype) for n in shapes}
    return {n: jax.ShapeDtypeStruct(s.shape, dtypes[n], sharding=shardings[n]) for n, s in shapes.items()}


def _resumed(
    config: Config,
    cfg: ModelConfig,
    mesh: jax.sharding.Mesh,
    tx: Any,
    checkpoints: Checkpoints,
    folder: Path,
    abstract: Params,
    step: int,
) -> Start:
    origins = checkpoints.meta(step).get(FROZEN, [])
    elsewhere = {n for o in origins for n in o["weights"]}
    stored = {n: a for n, a in abstract.items() if n not in elsewhere}
    factors = config.factors
    trainable, _ = partition(cfg, abstract, factors)
    params, opt = checkpoints.restore(step, stored, abstract_optimizer(tx, trainable, mesh))
    places = {n: a.sharding for n, a in abstract.items()}
    for origin in origins:
        params |= load_frozen(Origin(**origin), folder, cfg, places)
    trainable, frozen = partition(cfg, {n: params[n] for n in abstract}, factors)
    kept = [] if config.train.whole else origins
    return Start(_state(step, trainable, opt, mesh), base(cfg, frozen, mesh), step, kept)


def _fresh_start(
    config: Config, cfg: ModelConfig, mesh: jax.sharding.Mesh, tx: Any, folder: Path, abstract: Params
) -> Start:
    params, origin = initial_params(config, cfg, {n: a.sharding for n, a in abstract.items()})
    params = {n: sharding.place(params[n].astype(a.dtype), a.sharding) for n, a in abstract.items()}
    factors = config.factors
    trainable, frozen = partition(cfg, params, factors)
    origins = []
    if origin is not None and (cfg.lora or not factors["text"]) and not config.train.whole:
        elsewhere = ("encoder", "patch_embed") if cfg.encoder else ("vocabulary",)  # perhaps from another folder
        others = of_groups(cfg, "teacher", *elsewhere)
        given = {n: v for n, v in frozen.items() if n not in others}
        origins = frozen_origins(given, folder, origin.folder, origin.step, config.seed, cfg.patch_hidden)
    if cfg.lora is not None:
        print_once(f"{config.name}: {describe(cfg, trainable, origins)}")
    begun = _state(0, trainable, optimizer_state(tx, trainable, mesh), mesh)
    return Start(begun, base(cfg, frozen, mesh), 0, origins)


def _state(step: int, trainable: Params, optimizer: Any, mesh: jax.sharding.Mesh) -> TrainState:
    """The state, its step placed as the compiled step returns it: placed otherwise, it would be compiled twice."""
    return TrainState(jax.device_put(np.int32(step), sharding.replicated(mesh)), trainable, optimizer)


def check_origins(config: Config, cfg: ModelConfig) -> None:
    """Raises UserError where `config.init`, its tokenizer or `config.teacher` is not there or does not fit.

    Reads no weights.
    """
    if config.init:
        open_init(config, cfg)
        if not config.data.tokenizer:
            own_tokenizer(folder_of(config.init))
    check_folders(config, cfg)
    check_vision_tokenizer(cfg, ImageRule.of(config.data), vision_tokenizer(config))
    check_encoder(cfg, config.encoder, _known(open_init(config, cfg)) if config.init and cfg.encoder else None)


def check_folders(config: Config, cfg: ModelConfig) -> None:
    """Raises UserError where a teacher or vision encoder that the config names is not there or does not fit."""
    for field, folder, sizes in (("teacher", config.teacher, cfg.teacher), ("encoder", config.encoder, cfg.encoder)):
        if sizes is None or folder in ("", RANDOM) or folder.startswith(WORKDIR):
            continue
        try:
            open_teacher(folder, ClipConfig(**asdict(sizes)))
        except UserError as error:
            raise FieldError(Field(field), f"={folder} is to be a folder of CLIP's: {error}") from error


def check_before(config: Config) -> None:
    """`check_origins` of a stage of a recipe whose earlier stages are not there yet: of what begins with none of them.

    Names that begin with WORKDIR are of what a recipe writes before it reads them.
    """
    cfg, codes = config.sizes, config.data.vision_tokenizer
    outside = bool(config.init) and not config.init.startswith(WORKDIR)
    if not outside or any(name.startswith(WORKDIR) for name in (config.teacher, config.encoder, codes)):
        check_folders(config, cfg)
        if codes and not codes.startswith(WORKDIR):
            check_vision_tokenizer(cfg, ImageRule.of(config.data), codes)
        return
    check_origins(config, cfg)
    if cfg.teacher and not config.teacher and not of_groups(cfg, "teacher") & _known(open_init(config, cfg)):
        raise no_teacher()


def _known(checkpoint: Checkpoint) -> set[str]:
    """Names of the parameters that a checkpoint has of its own, none of them made."""
    source = checkpoint.source
    return set(abstract_params(checkpoint.cfg) if source is None else getattr(source, "source", source).shapes)


def open_init(config: Config, cfg: ModelConfig, together: Peers | None = None) -> Checkpoint:
    """The checkpoint `config.init`; UserError when there is none, or when its model is another than `cfg`.

    That of a stage of text alone gets the patch embedding that `cfg` has. together: the processes that all call this.
    """
    patch = {field: getattr(cfg, field) for field in PATCH_FIELDS}
    checkpoint = text_alone(open_checkpoint(config.init, seed=config.seed, **patch), cfg, config.seed, together)
    for field in (*SIZES, *PATCH_FIELDS):
        if getattr(checkpoint.cfg, field) != getattr(cfg, field):
            raise UserError(
                f"config.init={config.init} has {field}={getattr(checkpoint.cfg, field)}, "
                f"config.model.{field} is {getattr(cfg, field)}; {_with_its_sizes(config, cfg, checkpoint.cfg, field)}"
            )
    refuse_loss(checkpoint.cfg, cfg)
    check_base(checkpoint.cfg, f"config.init={config.init}")
    return checkpoint


def _with_its_sizes(config: Config, cfg: ModelConfig, other: ModelConfig, field: str) -> str:
    """Return how the stage, of a model `cfg`, gets what `config.init`, whose model is `other`, has as `field`."""
    own, found, folder = member_of(cfg), exported_member(other), Path(folder_of(config.init))
    if found and found != own:
        return f"it is {MEMBERS[found]}: what trains it is {TRAINED_BY[found]}"
    if "model" not in read_config(folder):
        if config.init == config.model.llm:
            return "the folder, which llm= names as well, states it: leave that field out"
        return f"llm=FOLDER takes the sizes: --config={config.name}:llm={config.init}"
    if own and not member_of(other):
        return f"it is not {MEMBERS[own]}, which {config.name} trains"
    if field in EVE_FIELDS and field != "extra_layers":
        return f"give the value that it was trained with: --config.model.{field}={getattr(other, field)}"
    began = base_facts(folder).get("name", "")
    about = f" ({began})" if began else ""
    more = f",extra={other.extra_layers}" if other.extra_layers != cfg.extra_layers else ""
    return f"name the LLM that it began with{about}, which has the sizes: --config={config.name}:llm=FOLDER{more}"


def initial_params(config: Config, cfg: ModelConfig, shardings: dict[str, Any]) -> tuple[Params, Checkpoint | None]:
    """Parameters of `config.init`, with vision copies made from the text weights where it has none.

    Next to them, the checkpoint that they are of; None for random ones, when `config.init` is empty. Raises UserError.
    """
    if not config.init:
        print_once(f"{config.name}: config.init is empty, so training starts from random weights")
        params = init_params(cfg, config.seed)
        params = with_aligning(cfg, cfg, params, config.teacher, config.seed)
        return with_encoder(cfg, params, config.encoder), None
    checkpoint = open_init(config, cfg, peers())
    check_encoder(cfg, config.encoder, _known(checkpoint))
    if checkpoint.source is None:
        if checkpoint.step is None:
            checkpoint = replace(checkpoint, step=newest_step(checkpoint.folder, False, peers()))
        else:
            check_step(checkpoint.folder, checkpoint.step, peers())
    params = checkpoint.params(shardings)
    params = with_aligning(cfg, checkpoint.cfg, params, config.teacher, config.seed)
    params = with_encoder(cfg, params, config.encoder)
    return add_vision_copies(cfg, params) | init_adapters(cfg, shardings or None), checkpoint
