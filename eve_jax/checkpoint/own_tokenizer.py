"""The tokenizer in the folder of a model, if it is the one that the model was trained with."""

from pathlib import Path

from eve_jax.checkpoint.stage_folder import read_meta, steps_in
from eve_jax.data.samples.sample_rule import tokenizer_hash
from eve_jax.data.text.load import load_tokenizer
from eve_jax.data.text.tokenizer import MODEL_FILE, TOKENIZER_FILE, Tokenizer
from eve_jax.errors import UserError


def own_tokenizer(folder: str | Path) -> Tokenizer:
    """Return the tokenizer in the folder of a model, ours or Hugging Face's.

    Raise UserError when there is none, or when it is another than the checkpoints of a stage were trained with.
    """
    folder = Path(folder)
    tokenizer = load_tokenizer(folder)
    steps = steps_in(folder)
    data = read_meta(folder, steps[-1]).get("data") if steps else None
    trained = data.get("tokenizer") if isinstance(data, dict) else None
    if trained and trained != tokenizer_hash(tokenizer):
        name = TOKENIZER_FILE if (folder / TOKENIZER_FILE).is_file() else MODEL_FILE
        raise UserError(
            f"{folder / name} is not the tokenizer that the checkpoints next to it were trained with; copy that one "
            "back, or rerun the training, which writes it again"
        )
    return tokenizer
