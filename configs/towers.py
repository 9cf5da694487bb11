"""Stages of experiments whose models see images otherwise than EVEv2: an encoder, codes, EVEv1. No config of its own.

At demo size the encoder and the tokenizer are small ones, which the recipe itself pre-trains on images of the demo's
kind (`config.pretrain`): a ViT of four layers and width 128 with 32-pixel patches on 192^2 pixels, by a contrastive
loss; a VQGAN's encoder of 16-pixel codes on 96^2 pixels, 512 codes, by its reconstructions. An image is 36 tokens of
either. At real sizes they are CLIP ViT-L/14-336 and Kandinsky's movq, encoder=DIR and vq=DIR (configs/ve.py, dt.py).
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import base, baseline
from eve_jax.demo.pretrain_config import EncoderTask, TokenizerTask
from eve_jax.hf.clip_teacher import describe_teacher
from eve_jax.hf.vq_folder import vq_sizes
from eve_jax.model.clip_config import ClipConfig, EncoderConfig
from eve_jax.model.vq import VqConfig
from eve_jax.process.hub import local_model
from eve_jax.process.paths import WORKDIR, expand, fetch

ENCODER = EncoderTask.from_values(
    {"steps": 600, "batch": 64, "images": 6000, "checked": 512, "lr": 1e-3}
    | {"image_size": 192, "patch_size": 32, "hidden_size": 128, "num_layers": 4, "num_heads": 4}
)
TOKENIZER = TokenizerTask.from_values(
    {"steps": 400, "batch": 16, "images": 6000, "checked": 512, "lr": 1e-3}
    | {"image_size": 96, "channels": 32, "multipliers": (1, 1, 1, 2, 4), "code_dim": 8, "codes": 512}
)
TEACHER = ClipConfig(**asdict(ENCODER.sizes))
TINY: dict[str, Any] = {"steps": 4, "batch": 8, "images": 16, "checked": 8}
PLACE = {"encoder": f"{WORKDIR}/encoder", "tokenizer": f"{WORKDIR}/tokenizer"}
CODES = ("data/captions.jsonl", "data/questions.jsonl")
# Rows of a step, so that it has about as many samples as one of EVEv2's of the same kind: (slots of a row, rows).
DEMO_SQUARES, DEMO_V1 = (256, 3), (128, 5)
REAL_ROWS = {"stage1": 3328, "captions": 3328, "sft": 5120}
REAL_CLIP = {"stage1": 224, "captions": 224, "sft": 96}
REAL_CODES = {"stage1": 368, "captions": 368, "sft": 128}
REAL_V1 = {"stage1": 240, "captions": 240, "sft": 80}


def pretrain(tiny: bool, encoder: bool, tokenizer: bool) -> ConfigDict:
    """Return the section `pretrain` of a recipe at demo size."""
    values: dict[str, Any] = {"codes": CODES if tokenizer else ()}
    for name, task in (("encoder", ENCODER if encoder else None), ("tokenizer", TOKENIZER if tokenizer else None)):
        if task is not None:
            values[name] = task.to_dict() | (TINY if tiny else {})
    return ConfigDict(values)


def said(tiny: bool, encoder: bool, tokenizer: bool) -> tuple[str, ...]:
    """Return what a report of demo size says of pre-training."""
    seen, viewed = (replace(task, **TINY) if tiny else task for task in (ENCODER, TOKENIZER))
    sentences = (
        f"The encoder has seen {seen.seen:,} images with captions before, {seen.images:,} different ones of the "
        "demo's kind (a contrastive loss); CLIP's saw 400 M of the web's.",
        f"The tokenizer has seen {viewed.seen:,} images before, {viewed.images:,} different ones of the demo's kind "
        "(its reconstructions, without a critic).",
    )
    return tuple(text for text, there in zip(sentences, (encoder, tokenizer), strict=True) if there)


def demo_encoder(c: ConfigDict, kind: str) -> None:
    """Make a stage of the demo, from `stage1` on, that of a model with the encoder."""
    baseline.see_by_encoder(c, PLACE["encoder"] if kind == "stage1" else "", ENCODER.sizes)
    _demo_rows(c, *DEMO_SQUARES)


def demo_codes(c: ConfigDict, kind: str) -> None:
    """Make a stage of the demo, from `stage1` on, that of a model with the vocabulary."""
    sizes = TOKENIZER.sizes
    place = PLACE["tokenizer"] if kind == "stage1" else ""
    baseline.see_by_codes(c, place, sizes.codes, sizes.patch, sizes.image_size)
    c.data.records = f"{WORKDIR}/codes/{'questions' if kind == 'questions' else 'captions'}"
    c.data.images = ""
    _demo_rows(c, *DEMO_SQUARES)


def demo_v1(c: ConfigDict, kind: str) -> None:
    """Make a stage of the demo that of EVEv1, whose teacher is the encoder until questions come."""
    c.model.patch_embed = "v1"
    c.model.align_every = min(c.model.align_every, c.model.num_layers)  # of test size has two
    c.data.image_mode, c.data.max_size = "square", ENCODER.image_size
    c.data.teacher = (ENCODER.image_size, ENCODER.patch_size)
    if kind != "questions":
        teach(c, PLACE["encoder"] if kind == "stage1" else "", TEACHER)
    _demo_rows(c, *DEMO_V1)


def _demo_rows(c: ConfigDict, slots: int, rows: int) -> None:
    c.data.image_first = False
    c.data.max_tokens = c.data.row_tokens = slots
    c.data.rows = rows


def teach(c: ConfigDict, teacher: str, sizes: ClipConfig) -> None:
    """Give a stage of EVEv1 the aligning loss; teacher: its folder, "" = the one in `init`."""
    c.teacher = teacher
    c.model.teacher = ConfigDict(asdict(sizes))
    c.model.align_width, c.model.align_weight = sizes.hidden_size, 1.0
    c.data.teacher = (sizes.image_size, sizes.patch_size)


def real_encoder(c: ConfigDict, kind: str, encoder: str) -> None:
    """Make a stage of a real size that of a model with CLIP's encoder, in the folder `encoder`, "" = not known yet."""
    folder = local_model(expand(encoder, "encoder", fetch))
    sizes = EncoderConfig(**asdict(describe_teacher(folder))) if folder else EncoderConfig()
    baseline.see_by_encoder(c, folder if kind == "stage1" else "", sizes)
    _real_rows(c, kind, REAL_CLIP)


def real_codes(c: ConfigDict, kind: str, tokenizer: str, data: str) -> None:
    """Make a stage of a real size that of a model with a vision vocabulary, of the VQGAN in the folder `tokenizer`."""
    folder = expand(tokenizer, "vq", fetch)
    sizes = vq_sizes(Path(folder)) if folder else VqConfig()
    baseline.see_by_codes(c, folder if kind == "stage1" else "", sizes.codes, sizes.patch, sizes.image_size)
    c.data.records, c.data.images = f"{data or 'DATA'}/codes/{kind}", ""
    _real_rows(c, kind, REAL_CODES)


def real_v1(c: ConfigDict, kind: str, teacher: str) -> None:
    """Make a stage of a real size that of EVEv1, whose teacher is CLIP's encoder until fine-tuning."""
    given = base.get_v1_config("tiny")
    for field in ("patch_embed", "sub_patch"):
        c.model[field] = given.model[field]
    for field in ("image_mode", "max_size", "patch"):
        c.data[field] = given.data[field]
    if kind != "sft":
        folder = local_model(expand(teacher, "encoder", fetch))
        teach(c, folder if kind == "stage1" else "", describe_teacher(folder) if folder else ClipConfig())
    _real_rows(c, kind, REAL_V1)


def _real_rows(c: ConfigDict, kind: str, rows: dict[str, int]) -> None:
    c.data.row_tokens, c.data.rows, c.data.micro_batches = REAL_ROWS[kind], rows[kind], 1
    c.data.max_tokens = min(c.data.max_tokens, c.data.row_tokens)
