"""Fine-tune a model on your own records, with a configuration written in Python.

    python examples/finetune_own_data.py MODEL RECORDS IMAGES WORKDIR

MODEL: the Hugging Face folder of an EVE model, or of a plain LLM, which gets a patch embedding and vision weights.
RECORDS: JSON, JSONL, Parquet or tar. IMAGES: the folder that image paths start from. Rerun it to resume.
"""

import sys
from pathlib import Path

from ml_collections import ConfigDict

from configs import stage3
from eve_jax import EVE
from eve_jax.errors import UserError
from eve_jax.train.trainer import train


def config(model: str, records: str, images: str) -> ConfigDict:
    """Return stage 3 of the recipe, made small enough for a single device; every field is in configs/base.py."""
    c = stage3.get_config(f"llm={model}")  # sizes, weights, tokenizer and chat template of the model
    c.name = "finetuned"  # folder below WORKDIR
    c.data.records, c.data.images = records, images
    c.data.image_mode = "anyratio_ld"  # images up to 800^2
    c.data.max_tokens = c.data.row_tokens = 1024
    c.data.rows, c.data.micro_batches, c.data.max_shapes = 2, 1, 1
    c.data.epochs = 3
    c.optim.lr = 1e-4
    c.optim.groups.text = 0.1  # the LLM learns at a tenth of the rate; 0 freezes it
    return c


def main(model: str, records: str, images: str, workdir: str) -> None:
    """Train, then ask the result about the first image."""
    folder = train(config(model, records, images), Path(workdir))
    eve = EVE.from_pretrained(folder, fit="shrink")
    image = next(file for file in sorted(Path(images).iterdir()) if file.is_file())
    print(eve.generate("What is it?", images=[image], max_new_tokens=16))


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except UserError as error:  # bad input; the message says what to do
        sys.exit(f"error: {error}")
