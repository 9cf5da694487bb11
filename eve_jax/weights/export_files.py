"""What an export has next to the weights: special tokens, chat template, generation settings, modeling files."""

import shutil
from pathlib import Path
from typing import Any

from eve_jax.checkpoint.stage_folder import read_config
from eve_jax.data.text.added_tokens import CONFIG_FILE
from eve_jax.data.text.load import load_tokenizer
from eve_jax.data.text.templates import fitting_templates, get_template, special_ends, stop_ids
from eve_jax.data.text.tokenizer import CHAT_FILE, MODEL_FILE, TOKENIZER_FILE, Tokenizer
from eve_jax.hf.chat_template import chat_template
from eve_jax.hf.config import INFERENCE_FIT, OURS
from eve_jax.hf.generation import GENERATION, IDS
from eve_jax.process.files import read_json, write_json

MODELING = Path(__file__).parents[1] / "hf" / "torch_eve"


def has_tokenizer(folder: Path) -> bool:
    """True when `folder` has a tokenizer's own file."""
    return (folder / TOKENIZER_FILE).is_file() or (folder / MODEL_FILE).is_file()


def inference_fit(folder: Path, carried: dict[str, Any]) -> str:
    """Return how images are sized when the model of `folder` is asked, for the section of an export's config.json.

    It is that of the questions that its training asked (`config.eval.fit`), that of the export whose config.json is
    `carried`, or `fill`, the original's.
    """
    asked = (read_config(folder).get("eval") or {}).get("fit")
    return asked or (carried.get(OURS) or {}).get(INFERENCE_FIT) or "fill"


def write_tokens(target: Path, config: dict[str, Any], data: dict[str, Any], text_only: bool) -> None:
    """Fill in what `generate`, AutoTokenizer and servers need to know where the files carried along do not say it.

    target: the export, with the files carried along. config: its config.json, which gets the ids of special tokens.
    data: settings of the training; `text_only` exports keep the base's own chat template.
    """
    if has_tokenizer(target):
        tokenizer = load_tokenizer(target)
        if (target / TOKENIZER_FILE).is_file():
            tokenizer.save(target)  # with the tokens that the files next to it add
        dialogue = _dialogue(tokenizer, data["template"])
        _special_tokens(target, config, tokenizer, dialogue if dialogue == data["template"] else "")
        if not text_only:
            _chat(target, tokenizer, dialogue, bool(data.get("image_first", False)))
    if not (target / GENERATION).is_file():
        ids = {k: config[k] for k in IDS if config.get(k) is not None}
        write_json(target / GENERATION, ids)


def write_modeling(target: Path) -> None:
    """Copy the modeling files for `transformers`."""
    for file in MODELING.glob("*_eve.py"):
        shutil.copyfile(file, target / file.name)


def _dialogue(tokenizer: Tokenizer, own: str) -> str:
    """The template to ask with: the model's own, or where that is for captions a fitting one; "" for none."""
    fitting = fitting_templates(tokenizer)
    return own if own in fitting else next(iter(fitting), "") if get_template(own).caption else ""


def _special_tokens(target: Path, config: dict[str, Any], tokenizer: Tokenizer, template: str) -> None:
    known = special_ends(tokenizer)
    known.pop("<|eot_id|>", None)  # LLaMA-3's end of a turn, neither its end of a text nor its padding
    end = get_template(template).end if template else next(iter(known), None)
    pad = next((t for t in known if t not in ("<|im_end|>", end)), end)
    for field, token in (("eos_token_id", end), ("pad_token_id", pad)):
        if config.get(field) is None and token is not None:
            config[field] = tokenizer.find(token)
    if not (target / CONFIG_FILE).is_file():
        named = {"eos_token": end, "pad_token": pad}
        kind = "PreTrainedTokenizerFast" if (target / TOKENIZER_FILE).is_file() else "LlamaTokenizer"
        write_json(target / CONFIG_FILE, {"tokenizer_class": kind, **{k: v for k, v in named.items() if v}})
    # True, as LLaMA-3's file has it, takes spaces out of answers when they are decoded.
    write_json(target / CONFIG_FILE, read_json(target / CONFIG_FILE) | {"clean_up_tokenization_spaces": False})


def _chat(target: Path, tokenizer: Tokenizer, template: str, image_first: bool) -> None:
    """Write the chat template in place of the base LLM's, and the tokens that end an answer."""
    (target / CHAT_FILE).unlink(missing_ok=True)
    settings = read_json(target / CONFIG_FILE)
    settings.pop("chat_template", None)
    write_json(target / CONFIG_FILE, settings)
    if not template:
        return
    bos = "" if tokenizer.bos is None else tokenizer.decode([tokenizer.bos], skip_special=False)
    text = chat_template(get_template(template), bos, image_first)
    (target / CHAT_FILE).write_text(text, encoding="utf-8")
    generation = read_json(target / GENERATION) if (target / GENERATION).is_file() else {}
    write_json(target / GENERATION, generation | {"eos_token_id": stop_ids(tokenizer, template)})
