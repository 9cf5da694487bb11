"""The tokenizers in the folder of a model, if they are those that the model was trained with."""

from pathlib import Path

from eve_jax.checkpoint.stage_folder import read_meta, steps_in
from eve_jax.data.samples.sample_rule import VISION_TOKENIZER, tokenizer_hash
from eve_jax.data.text.load import load_tokenizer
from eve_jax.data.text.tokenizer import MODEL_FILE, TOKENIZER_FILE, Tokenizer
from eve_jax.errors import UserError


def own_tokenizer(folder: str | Path) -> Tokenizer:
    """Return the tokenizer in the folder of a model, ours or Hugging Face's.

    Raise UserError when there is none, or when it is another than the checkpoints of a stage were trained with.
    """
    folder = Path(folder)
    tokenizer = load_tokenizer(folder)
    trained = _trained_with(folder, "tokenizer")
    if trained and trained != tokenizer_hash(tokenizer):
        name = TOKENIZER_FILE if (folder / TOKENIZER_FILE).is_file() else MODEL_FILE
        raise UserError(
            f"{folder / name} is not the tokenizer that the checkpoints next to it were trained with; copy that one "
            "back, or rerun the training, which writes it again"
        )
    return tokenizer


def check_own_vision_tokenizer(folder: Path, digest: str) -> None:
    """Raise UserError when the vision tokenizer in the folder of a model, of the `digest`, is not that of its training.

    Of a stage's checkpoints, that is; others say nothing of it.
    """
    trained = _trained_with(folder, VISION_TOKENIZER)
    if trained and trained != digest:
        raise UserError(
            f"{folder / VISION_TOKENIZER} is not the vision tokenizer that the checkpoints next to it were trained "
            "with; copy that one back, or remove it and rerun the training, which writes it again"
        )


def _trained_with(folder: Path, part: str) -> str:
    """The hash of a part of the data that the newest checkpoint of a stage was trained with, "" for none."""
    steps = steps_in(folder)
    data = read_meta(folder, steps[-1]).get("data") if steps else None
    return str(data.get(part) or "") if isinstance(data, dict) else ""
