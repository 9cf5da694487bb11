"""From JPEG to batches on one core: packed uint8 rows here, by Pillow alone as well, padded tensors in PyTorch."""

import importlib.util
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as InnerTokenizer

from eve_jax.data.image import jpeg, resample
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.plan.plan import PlanSettings, build_plan
from eve_jax.data.rows.bad_records import BadRecords
from eve_jax.data.rows.build import RowBuilder
from eve_jax.data.samples.measure import measure
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.sources.records import Records, open_records
from eve_jax.data.text.load import load_tokenizer
from eve_jax.data.text.tokenizer import Tokenizer

WEB, PHOTO = (1024, 768), (4000, 3000)  # pixels of every JPEG
RULE = ImageRule("anyratio_ld")  # about 800^2
BATCH = 8  # samples that PyTorch's collate pads to the longest


class Way(NamedTuple):
    """How images become rows: resized by own arithmetic or Pillow, decoded by simplejpeg or Pillow, in part or not."""

    own_resize: bool
    simplejpeg: bool
    draft: bool

    def take(self) -> None:
        """Take this way in this process from now on."""
        resample.FEW = 0 if self.own_resize else sys.maxsize
        jpeg.is_wanted = self.simplejpeg


WAYS = {
    "pillow": Way(False, False, False),
    "ours": Way(True, False, False),
    "ours_simplejpeg": Way(True, True, False),
    "ours_simplejpeg_draft": Way(True, True, True),
}
TORCH = "torch"
TITLES = {
    "pillow": "packed uint8 rows, by Pillow alone",
    "ours": "packed uint8 rows (eve_jax)",
    "ours_simplejpeg": "with the extra jpeg",
    "ours_simplejpeg_draft": "with the extra jpeg and config.data.draft, not exact",
    TORCH: "Pillow + CLIPImageProcessor + padding collate (PyTorch)",
}


def write_records(folder: Path, n: int, size: tuple[int, int] = WEB) -> Records:
    """`n` records of a JPEG (quality 90, 4:2:0, of the detail of a photograph) and a caption of about 100 words."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
        noisy = np.asarray(coarse).astype(np.int16) + rng.integers(-12, 13, (size[1], size[0], 3))
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(folder / "images" / f"{number}.jpg", quality=90)
        turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "word " * 100}]
        lines.append(json.dumps({"id": str(number), "image": f"{number}.jpg", "conversations": turns}))
    path = folder / "records.jsonl"
    path.write_text("\n".join(lines))
    return open_records(str(path), folder / "images")


def word_tokenizer(folder: Path) -> Tokenizer:
    """A tokenizer of bytes with a few merges, like a real one in kind."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("w", "o"), ("r", "d"), ("wo", "rd"), ("Ġ", "word")]
    vocab = {token: n for n, token in enumerate([*letters, *("".join(pair) for pair in merges)])}
    inner = InnerTokenizer(models.BPE(vocab=vocab, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    folder.mkdir(parents=True, exist_ok=True)
    inner.save(str(folder / "tokenizer.json"))
    return load_tokenizer(folder)


def ours(folder: Path, records: Records, tokenizer: Tokenizer, way: Way) -> Callable[[], None]:
    """Builds every row of a plan over the records."""
    rule = SampleRule(tokenizer, replace(RULE, draft=way.draft), "plain", max_tokens=4096)
    lengths = measure(records, rule)
    plan = build_plan(lengths, PlanSettings(8192, 1, rows=1, micro_batches=1, epochs=1, seed=0))
    builder = RowBuilder(records, lengths, rule, BadRecords(folder, 0))

    def run() -> None:
        way.take()
        for m in range(len(plan.batch_shape)):
            builder.build(plan.micro_batch(m))

    return run


def torch_way(records: Records, tokenizer: Tokenizer) -> Callable[[], None]:
    """Pillow decodes, CLIPImageProcessor resizes and normalizes to float32, the collate pads text and pixels."""
    import torch
    from transformers import CLIPImageProcessor

    torch.set_num_threads(1)
    processor = CLIPImageProcessor(do_center_crop=False)

    def sample(index: int) -> tuple[torch.Tensor, torch.Tensor]:
        record = records[index]
        image = Image.open(str(record.images[0])).convert("RGB")
        width, height = RULE.resized(*image.size)
        pixels = processor(image, size={"height": height, "width": width}, return_tensors="pt")["pixel_values"][0]
        return torch.tensor(tokenizer.encode(record.turns[-1].text)), pixels

    def collate(samples: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
        texts = torch.nn.utils.rnn.pad_sequence([text for text, _ in samples], batch_first=True)
        height, width = (max(pixels.shape[axis] for _, pixels in samples) for axis in (1, 2))
        padded = torch.zeros(len(samples), 3, height, width)
        for k, (_, pixels) in enumerate(samples):
            padded[k, :, : pixels.shape[1], : pixels.shape[2]] = pixels
        return texts, padded

    def run() -> None:
        for start in range(0, len(records), BATCH):
            collate([sample(index) for index in range(start, min(start + BATCH, len(records)))])

    return run


def measure_images(folder: Path, n: int, rounds: int, size: tuple[int, int] = WEB) -> dict[str, float]:
    """Images a second of CPU time by each of TITLES, all in turn in this one thread; the best of `rounds` each."""
    records, tokenizer = write_records(folder, n, size), word_tokenizer(folder / "tokenizer")
    has_simplejpeg = importlib.util.find_spec("simplejpeg") is not None
    ways = {name: way for name, way in WAYS.items() if has_simplejpeg or not way.simplejpeg}
    runs = {name: ours(folder, records, tokenizer, way) for name, way in ways.items()}
    runs[TORCH] = torch_way(records, tokenizer)
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - start)
    WAYS["ours_simplejpeg"].take()
    return {name: n / seconds for name, seconds in best.items()}
