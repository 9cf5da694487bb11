"""The tokenizer in a folder, of whichever kind its files are."""

from pathlib import Path

from eve_jax.data.text.sentencepiece import SentencePieceTokenizer
from eve_jax.data.text.tiktoken_file import is_ranks, llama3_from_ranks
from eve_jax.data.text.tokenizer import MODEL_FILE, TOKENIZER_FILE, FastTokenizer, Tokenizer
from eve_jax.data.text.tokenizer_file import read_tokenizer
from eve_jax.data.text.tokenizer_settings import check_settings
from eve_jax.errors import Field, FieldError
from eve_jax.process.paths import no_folder


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Return the tokenizer in `folder`: its tokenizer.json, else its tokenizer.model.

    The latter is a SentencePiece model (LLaMA-2, Vicuna) or LLaMA-3's file of token ranks. Either has the tokens that
    the files next to it add, too. Warns of settings that it does not follow. Raises `UserError` when there is neither,
    or one is broken or contradicts another.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise no_folder(folder)
    tokenizer = _of_files(folder)
    check_settings(tokenizer, folder)
    return tokenizer


def _of_files(folder: Path) -> Tokenizer:
    path = folder / TOKENIZER_FILE
    if path.is_file():
        return FastTokenizer(read_tokenizer(path), folder)
    path = folder / MODEL_FILE
    if not path.is_file():
        raise FieldError(
            f"{folder}: no {TOKENIZER_FILE} and no {MODEL_FILE}; copy the model's tokenizer into it, or, to train, ",
            "set ",
            Field("data.tokenizer"),
            " to a folder with one",
        )
    data = path.read_bytes()
    if is_ranks(data):
        return FastTokenizer(llama3_from_ranks(data, path), folder)
    return SentencePieceTokenizer(data, folder)
