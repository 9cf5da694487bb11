"""Every field of a configuration, with its default and what it means. A stage file holds only what differs.

What values a field takes is stated where its section is checked: `eve_jax.config.stage`, `eve_jax.model.config` and
`eve_jax.data.config`.
"""

from dataclasses import asdict
from pathlib import Path

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import members
from eve_jax.errors import UserError
from eve_jax.hf.clip_teacher import RANDOM, describe_teacher
from eve_jax.hf.config import CONFIG
from eve_jax.hf.conventions import describe
from eve_jax.model.clip_config import ClipConfig
from eve_jax.model.llms import llm_sizes
from eve_jax.model.weight import trainable_groups
from eve_jax.process.hub import local_model
from eve_jax.process.paths import expand, fetch, no_folder


def get_config(llm: str = "qwen2.5-7b", variant: str = "dac") -> ConfigDict:
    """The defaults, with the sizes and the chat template of the base LLM `llm`.

    `llm` is a key of `eve_jax.model.llms.LLMS`, or a folder of Hugging Face's layout or a model of the hub: then `init`
    and `data.tokenizer` are that folder too.
    """
    llm = local_model(expand(llm, "llm", fetch))
    local = Path(llm, CONFIG).is_file()
    if "/" in llm and not Path(llm).is_dir():
        raise no_folder(llm)
    sizes, template = describe(Path(llm)) if local else (llm_sizes(llm), _template(llm))
    c = ConfigDict()
    c.name = "base"  # folder of the stage below the work folder
    c.stage = "3"  # which groups of weights train: llm | 1 | 2.1 | 2.2 | 3 (eve_jax/config/stages.py)
    c.seed = 0  # of initialization and of the data plan
    # Checkpoint to start from: a stage's folder (FOLDER@STEP: that step of it), an imported or a Hugging Face folder,
    # ORG/NAME[@REVISION] of the hub; "" = random weights.
    c.init = llm if local else ""
    # CLIP's folder or hub id, for EVEv1's teacher; "" = the one in `init`; random = of fixed random weights
    c.teacher = ""
    # CLIP's folder or hub id, for the encoder of patch_embed clip; "" = the one in `init`; random = of random weights
    c.encoder = ""

    c.model = m = ConfigDict()
    m.llm = llm
    m.update(_family_fields())
    m.update(sizes)  # and what else the LLM, or another member's folder, decides (docs/backbones.md#switches)
    m.variant = variant  # dense | rep | moe | dac: which parts of a layer exist twice; the short name of `parts`
    m.parts = placeholder(str)  # any of layernorm,self_attn,mlp exist twice ("none": no part), whatever `variant` is
    m.routing = "split"  # split (fast) | masked (both branches for every token, the reference)
    m.patch_hidden = sizes.get("patch_hidden", 1024)  # channels between the patch convolutions; EVEv1: of the patches
    m.codes = 0  # of patch_embed vq: size of the vision vocabulary
    m.sub_patch = sizes.get("sub_patch", 16)  # side in pixels of what the first convolution sees; a patch is 2x2
    m.align_weight = 0.0  # of EVEv1's aligning loss, next to the next-token loss; 0 = off
    m.align_width = 0  # width of the teacher, 0 = no patch aligning layer; its sizes are config.model.teacher
    m.dtype = "bfloat16"  # of the computation: bfloat16 | float32
    m.param_dtype = "float32"  # of the master weights of what trains: float32 | bfloat16 (rounded stochastically)
    m.frozen_dtype = "bfloat16"  # of weights that do not train
    m.remat = "attention"  # recomputed: full (each layer) | attention (all but it) | host (which keeps the rest) | none
    m.attention = "auto"  # kernel: auto (by processor) | chunked, blocked (any) | splash (TPU) | flash, cudnn (GPU)
    m.attention_blocks = ""  # splash: the most queries and keys of a tile, docs/tpu.md#tiles-of-attention; "" = 512

    c.data = _data_fields(llm if local else "", template)
    c.data.patch = 2 * m.sub_patch

    c.lora = _lora_fields()
    c.optim = _optim_fields()

    c.train = t = ConfigDict()
    t.steps = 0  # 0 = as many as the epochs give
    t.log_every = 1
    t.writers = "tensorboard,progress"  # next to metrics.jsonl: these, module:Class, or "none"
    t.metrics = ""  # of your own, module:NAME with commas (CONTRIBUTING.md)
    t.save_every = 500
    t.local_dir = ""  # folder on each host's own disk for copies of its shards between checkpoints; "" = none
    t.local_every = 50  # steps between these copies (docs/faults.md#local-copies)
    t.keep = 2  # newest checkpoints kept
    t.keep_every = 0  # of steps that this divides, checkpoints are kept for good; 0 = none
    t.keep_best = 0  # checkpoints kept for the best `best_by`
    t.best_by = "loss"  # loss (mean since the checkpoint before, lowest) | eval/loss | eval/loss/SOURCE | eval/TASK
    t.whole = False  # True: stages 1 and 2.1 store also what does not train, instead of where it is (docs/faults.md)
    t.timeout = 1800.0  # seconds without a finished step or other progress until a run ends, 0 = never (docs/faults.md)
    t.nan = "stop"  # when loss or gradient is not finite: stop (with a dump of the rows) | skip (the step, counted)

    c.eval = _eval_fields()
    c.compile = ConfigDict()
    # of XLA's compiler for the step, NAME=VALUE with commas; auto: those of the kind of chip, docs/compile.md
    c.compile.options = "auto"
    c.profile = ConfigDict()
    c.profile.steps = ""  # steps to trace, "10:12"; the trace is left in profile/ of the stage's folder

    c.track = ""  # services that get metrics and config: wandb, mlflow (extras of those names), with commas
    c.mesh = ""  # data:I,fsdp:J,tensor:K; -1 = the rest; "" = by the devices (docs/tpu.md)
    return c


def _family_fields() -> ConfigDict:
    """The defaults of the fields of `config.model` by which members of the family differ (docs/family.md)."""
    m = ConfigDict()
    # v2 | v1 (EVEv1's) | conv_gelu_rope (NEO's) | linear (SAIL's) | ln_linear_pos (the $100 model's) |
    # ln_linear_pos_norm (Gemma 4 Unified's) | clip (an encoder) | vq (codes)
    m.patch_embed = "v2"
    m.image_attention = "causal"  # what a token sees besides those before it: causal | image (its own) | prefix
    m.rope = "1d"  # 1d | thw (queries and keys with a part for row and column) | sections (half a head by each)
    m.index_rule = "token"  # rotary positions count every token (token), an image as one (thw), as its side (max+1)
    m.place_theta = 1e4  # of rows and columns, with rope=thw
    m.patch_theta = 1e4  # of rows and columns within patch_embed=conv_gelu_rope
    m.patch_sides = 0  # most rows or columns of patches of an image, of the tables of patch_embed=ln_linear_pos
    m.patch_token = -1  # token whose embedding is added to each patch (SAIL), -1 = none
    m.close_token = -1  # token behind the first image that image_attention=prefix counts to the prefix, -1 = none
    m.longest_image = 0  # most tokens of an image that trains, 0 = any; attention that sees whole images costs less
    m.extra_layers = 0  # of num_layers, the first ones that the base LLM does not have (NEO's pre-buffer)
    # Gemma 4 Unified's, which its folder and name decide.
    m.wide_head_dim = m.wide_kv_heads = 0  # heads of layers that see all, next to local ones; 0 = all are alike
    m.key_values = "none"  # none | full: of layers of that kind the values are the keys
    m.value_norm = False  # True: values are normed, without a weight
    m.layer_scale = False  # True: a layer's output is times a number, which does not train
    m.logit_cap = 0.0  # logits are cap tanh(l / cap); 0 = as they are
    m.image_reach = "all"  # where an image sees itself: all (layers) | window (local layers, within it)
    m.update(_v1_fields())
    return m


def _v1_fields() -> ConfigDict:
    """The defaults of the fields of `config.model` by which EVEv1's ablations differ (docs/evev1.md#the-model)."""
    m = ConfigDict()
    m.window_pool = "attention"  # of patch_embed v1, what the patches of a window become: attention | mean
    m.image_token = "attention"  # of patch_embed v1, what an image begins with: attention | learned
    m.align_every = 4  # layers between those that the patch aligning layer looks at
    m.align_target = "own"  # the teacher's feature of the patch itself (own) | of the next one in the image (next)
    return m


def adapt(c: ConfigDict, rank: str) -> ConfigDict:
    """Return `c` with adapters of `rank`, and the learning rate that these are usually trained with; "" or 0 = none."""
    if rank and not rank.isdecimal():
        raise UserError(f"lora={rank}: expected the rank of the adapters, a whole number")
    if int(rank or 0):
        c.lora.rank, c.optim.lr = int(rank), 2e-4
    return c


def _lora_fields() -> ConfigDict:
    """The defaults of `config.lora`: low-rank adapters in place of the weights (docs/lora.md)."""
    a = ConfigDict()
    a.rank = 0  # of the adapters, up to 1024; 0 = none, the weights themselves train
    a.alpha = 0.0  # adapters count alpha / rank times; 0 = twice the rank
    a.on = ""  # matrices that have one, some of text,vision,patches; "" = of the groups that `stage` trains
    a.dropout = 0.0  # share of the adapters' inputs that is left out in training
    a.base = ""  # of the layers' matrices: "" = as model.frozen_dtype | int8
    return a


def _optim_fields() -> ConfigDict:
    """The defaults of `config.optim`: the update rule and what goes with it (docs/train.md#optimizer)."""
    o = ConfigDict()
    o.rule = "adamw"  # adamw | muon: matrices of the layers by Muon, the rest by AdamW (docs/train.md#optimizer)
    o.lr = 1e-5  # peak
    o.min_lr = 0.0  # where the schedule ends
    o.schedule = "cosine"  # after the warm-up: cosine | constant | wsd (constant, then a decay)
    o.warmup = 0.03  # share of the steps
    o.warmup_steps = 0  # steps instead of a share, with warmup = 0
    o.decay = placeholder(float)  # of wsd: share of the steps at the end; unset = 0.2
    o.decay_shape = placeholder(str)  # of wsd: linear | cosine | sqrt | exponential; unset = linear
    o.b1, o.b2, o.eps = 0.9, 0.999, 1e-8
    o.momentum = placeholder(float)  # of muon; unset = 0.95
    o.moments = "float32"  # of matrices and tables: float32 | bfloat16 | int8 (by blocks)
    o.weight_decay = 0.0
    o.clip = 1.0  # global gradient norm, 0 = off
    o.ema = 0.0  # decay of a moving average of what trains, 0 = none
    o.loss_weights = "token"  # what counts alike: token | sample | sqrt (a sample by the square root of its targets)
    # Learning rate of a group of weights as a factor of `lr`, 0 = frozen; unset = 1 where `stage` trains it, else 0.
    o.groups = ConfigDict({group: placeholder(float) for group in trainable_groups()})
    return o


def _eval_fields() -> ConfigDict:
    """The defaults of `config.eval`: what is measured while a stage trains (docs/train.md#evaluation)."""
    v = ConfigDict()
    v.records = ""  # held-out records whose mean loss is measured, in the forms of data.records; "" = none
    v.images = ""  # folder that image paths of these and of own questions are relative to; "" = data.images
    v.tasks = ""  # benchmarks, files of own questions (.jsonl) and of text (.txt), with commas; "" = none
    v.data = ""  # folder with the data of the benchmarks (docs/eval.md#data)
    v.protocol = "eve"  # of the benchmarks: eve | lmms | lmms_static | lmms_ocr
    v.every = 0  # steps; 0 = after the last step alone, which is evaluated in any case
    v.at_start = False  # True: also before the first step
    v.limit = 0  # questions of a task, its first ones; 0 = all
    v.rows = 16  # questions that are answered at a time
    v.fit = "fill"  # of the images of questions: fill (inference rule) | shrink (training rule)
    v.ema = False  # True: of the moving average of the weights (optim.ema)
    v.max_new_tokens = 0  # longest answer, 0 = the task's own
    return v


def _data_fields(tokenizer: str, template: str) -> ConfigDict:
    """The defaults of `config.data`."""
    d = ConfigDict()
    # .json, .jsonl, .parquet, .tar, folders, prepared records, hf:ORG/NAME[:CONFIG[:SPLIT]], tfds:NAME[:SPLIT],
    # module:Class; commas
    d.records = ""
    d.images = ""  # folder that image paths of the records are relative to
    d.tokenizer = tokenizer  # folder or hub id with tokenizer.json or tokenizer.model; "" = that of `init`
    # plain | qwen2 | llama3 | v1 | plain_v1 | chatml ... (docs/data.md#templates), own: that of the tokenizer's folder
    d.template = template
    d.image_first = False  # True moves the images of a turn to its front, as the original does
    d.special_text = False  # True: what reads like a special token in texts of records is one, as for the original
    # anyratio_ld | anyratio_hd | anyratio_maxl | anyresolution | square (EVEv1) | neo | sail | gemma |
    # pad (encoder) | codes
    d.image_mode = "anyratio_hd"
    d.max_size = 0  # side of the largest image area (pixels), 0 = the mode's own
    d.fit = "shrink"  # shrink (training rule) | fill (inference rule)
    d.max_aspect = 8.0  # longest side over shortest; more is squeezed to this
    d.area = (0, 0)  # smallest and largest area of an image in pixels for image_mode=neo; (0, 0) = the mode's own
    d.image_tokens = 0  # of an image, at most, for image_mode=gemma: 70 | 140 | 280 | 560 | 1120; 0 = 280
    d.max_pixels = 64_000_000  # of an image file; larger ones are bad images and not decoded
    d.draft = False  # True: JPEG is decoded to 1/2, 1/4 or 1/8 where that leaves enough pixels; faster, not exact
    d.patch = 32  # side of a patch in pixels, twice model.sub_patch
    d.teacher = (336, 14)  # side of the image and of a patch that EVEv1's teacher sees, for image_mode square
    d.vision_tokenizer = ""  # of image_mode codes: folder of a VQGAN; "" = that in `init`
    d.repeats = ""  # how often an epoch holds each of the records, "2,0.5,1"; "" = once
    d.weights = ""  # in what ratio their samples are mixed instead, "7,2,1"
    d.max_tokens = 5000  # longest sample, image tokens included; at most the positions of the LLM
    d.long = "drop"  # samples longer than that are left out (drop), or made to fit: truncate_text | shrink_image
    d.row_tokens = 8192  # slots of a row, a multiple of 128
    d.max_shapes = 6  # row shapes in the menu
    d.rows = 64  # rows of a micro-batch, all hosts together
    d.micro_batches = 2  # of a step
    d.epochs = 1
    # Records that may break while training before the run stops: a share of those seen, and 1,000 in any case; a
    # whole number: as many, whatever was seen.
    d.max_bad = 0.01
    d.workers = 0  # processes that build batches, on each host's process that trains; 0 = that one itself
    # Threads that build batches in each of them: -1 = by the machine, its cores but at most 16; 0 = when asked for.
    d.threads = -1
    d.prefetch = 4  # micro-batches built ahead
    d.timeout = 600.0  # seconds without a batch until the run stops with a message, 0 = waits for ever
    return d


def _template(llm: str) -> str:
    """The chat template that goes with a base LLM known by name."""
    if llm.startswith("gemma"):
        return "gemma4" if llm.startswith("gemma4") else "gemma"
    if llm.startswith("sail"):
        return "sail"
    return "v1" if llm.startswith(("vicuna", "mistral")) else "llama3" if llm.startswith("llama3") else "qwen2"


def get_v1_config(llm: str = "vicuna-7b") -> ConfigDict:
    """The defaults of EVEv1: its patch embedding, its square images, and no aligning loss (`align`)."""
    c = get_config(llm, "dense")
    members.refuse_others(c, "EVEv1")
    c.model.patch_embed = "v1"
    c.model.sub_patch = 14
    c.data.image_mode = "square"
    c.data.max_size = 672
    c.data.patch = 28
    c.data.max_tokens = c.data.row_tokens = 2048
    c.data.micro_batches = 1
    return c


def align(c: ConfigDict, teacher: str = "", weight: float = 1.0) -> ConfigDict:
    """`c` with EVEv1's aligning loss; `teacher` is CLIP's folder, "" = ViT-L/14-336 as it is in `init`, random = of
    that size with random weights."""
    teacher = local_model(expand(teacher, "teacher", fetch))
    sizes = describe_teacher(teacher) if teacher not in ("", RANDOM) else ClipConfig()
    c.teacher = teacher
    c.model.teacher = ConfigDict(asdict(sizes))
    c.model.align_width = sizes.hidden_size
    c.model.align_weight = weight
    c.data.teacher = (sizes.image_size, sizes.patch_size)
    return c
