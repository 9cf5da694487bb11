"""Makes what the section `pretrain` asks for in the work folder, unless it is there."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from eve_jax.data.image.rule import CODES, ImageRule
from eve_jax.data.prepare.convert import Conversion, convert
from eve_jax.data.samples.sample_rule import with_vocabulary
from eve_jax.data.text.load import load_tokenizer
from eve_jax.demo.config import DemoConfig
from eve_jax.demo.pretrain.contrast import train_encoder
from eve_jax.demo.pretrain.images import drawn
from eve_jax.demo.pretrain.reconstruct import train_tokenizer
from eve_jax.demo.pretrain_config import PretrainConfig, Task
from eve_jax.demo.web import keep
from eve_jax.hf.vision_tokenizer import VisionCoder
from eve_jax.process.files import write_json

ENCODER, TOKENIZER, CODED = "encoder", "tokenizer", "codes"  # below the work folder
FIGURES = "pretrain.json"
VERSION = 1  # of how both are trained
SHARD = 4096  # records


def pretrain(config: PretrainConfig, demo: DemoConfig, workdir: Path) -> None:
    """Train the encoder and the tokenizer, and write the records with codes; the dataset is in `workdir`/data.

    What is there is kept, and made anew when settings differ. Raises UserError where a folder holds something else.
    """
    words = load_tokenizer(workdir / "data" / "tokenizer")

    def learned(name: str, task: Task, train: Callable[..., dict[str, Any]], *more: Any) -> None:
        made_of = {"version": VERSION, "seed": demo.seed, "demo": demo.dataset.to_dict(), "task": task.to_dict()}

        def write(folder: Path) -> None:
            shown = drawn(demo.dataset, demo.seed, name, task.images + task.checked, task.image_size)  # type: ignore[attr-defined]
            write_json(folder / FIGURES, train(folder, task, shown, *more, demo.seed), indent=1, sort_keys=False)

        keep(workdir / name, made_of, write)

    if config.encoder is not None:
        learned(ENCODER, config.encoder, train_encoder, words)
    if config.tokenizer is not None:
        learned(TOKENIZER, config.tokenizer, train_tokenizer)
        rule = ImageRule(CODES, max_size=config.tokenizer.image_size, patch=config.tokenizer.sizes.patch)
        rule = with_vocabulary(rule, workdir / TOKENIZER, VisionCoder(workdir / TOKENIZER))
        for file in config.codes:
            target = workdir / CODED / Path(file).stem
            convert(
                Conversion(str(workdir / file), str(workdir / "data/images"), str(target), SHARD, "headers", codes=rule)
            )


def lines(config: PretrainConfig) -> Iterator[str]:
    """Yield what pre-training takes, for people."""
    for name, task in ((ENCODER, config.encoder), (TOKENIZER, config.tokenizer)):
        if task is not None:
            images = f"{task.seen:,} images, {task.images:,} different ones"
            yield f"  before: the {name} sees {images}, in {task.steps:,} steps"
    if config.codes:
        yield f"  before: codes of the images of {', '.join(config.codes)}, once"
