"""The golden sets as the original's own folders: config, weights, a tokenizer, and records that give the sets' ids.

Token n is written `{n}`, and all other text of a template gives no token, so that a conversation holds exactly the ids
of a golden sample. An answer ends with `!`, which takes the template's end token away: the sets' samples have none.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as InnerTokenizer

from eve_jax.data.text.encode import IGNORE, IMAGE_ID
from eve_jax.data.text.tokenizer import FastTokenizer
from tests import reference as ref
from tests.weights.folders import Tensors

ENDS = {"eve-qwen2": "<|im_end|>", "eve-llama3": "<|end_of_text|>", "eve": "</s>"}
EOS = {"eve-qwen2": 318, "eve-llama3": 318, "eve": 2}


def number_tokenizer(kind: str, vocab: int = 320) -> FastTokenizer:
    """A tokenizer of the words `{0}`, `{1}`, ... and the end token of the original's template for model type `kind`."""
    end, eos, bos = ENDS[kind], EOS[kind], 1 if kind == "eve" else None
    words = {f"{{{n}}}": n for n in range(vocab)}
    words = {end if n == eos else "<s>" if n == bos else word: n for word, n in words.items()}
    inner = InnerTokenizer(models.WordLevel(words, unk_token="{0}"))
    inner.normalizer = normalizers.Replace("!" + end, "")
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"\{\d+\}"), "removed", invert=True)
    inner.decoder = decoders.Fuse()
    inner.add_special_tokens([AddedToken(end, special=True, normalized=True)])
    if bos is not None:
        inner.add_special_tokens([AddedToken("<s>", special=True)])
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    return FastTokenizer(inner)


def write_original(
    folder: Path, tensors: Tensors, config: dict[str, Any], preprocessor: dict[str, Any] | None = None
) -> Path:
    """A folder as the original saves it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    if preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    number_tokenizer(config["model_type"]).save(folder)
    return folder


def words(ids: np.ndarray) -> str:
    """The text of token ids."""
    return " ".join(f"{{{n}}}" for n in ids.tolist())


def golden_records(folder: Path, name: str) -> Path:
    """Records of the inputs of golden set A, D1 or D2, with their images as PNG; returns the file.

    The first human turn of sample 0 has its image in the middle: the original moves it to the front.
    """
    folder.mkdir(parents=True)
    inputs = ref.tensors(f"{name}_inputs")
    lines = []
    for i in range(3):
        real = inputs["attention_mask"][i] == 1
        ids, labels = inputs["input_ids"][i][real], inputs["labels"][i][real]
        ids, labels = (ids[1:], labels[1:]) if ids[0] == 1 else (ids, labels)  # bos is the tokenizer's
        learnt = int(np.flatnonzero(labels != IGNORE)[0])
        at = int(np.flatnonzero(ids == IMAGE_ID)[0]) if i < 2 else 0
        asked = ids[at + (i < 2) : learnt]
        middle = len(asked) // 2
        question = words(asked[:middle]) + (" <image> " if i < 2 else " ") + words(asked[middle:])
        turns = [("system", words(ids[:at])), ("human", question), ("gpt", words(ids[learnt:]) + "!")]
        record: dict[str, Any] = {"id": str(i), "conversations": [{"from": f, "value": v} for f, v in turns]}
        if i < 2:
            pixels = inputs[f"image_uint8_{i}" if name == "A" else f"raw_uint8_{i}"]
            Image.fromarray(pixels).save(folder / f"{i}.png")
            record["image"] = f"{i}.png"
        lines.append(json.dumps(record))
    path = folder / "records.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def expected(outputs: str, logits: str) -> list[tuple[int, float, int]]:
    """Tokens, mean loss over the targets and number of targets of every sample, by the golden logits."""
    sets = ref.tensors(outputs)
    expanded = ref.tensors("A_outputs" if outputs[0] in "BC" else outputs)
    rows = []
    for i in range(3):
        length = int(expanded["attention_mask_expanded"][i].sum())
        labels, values = expanded["labels_expanded"][i, 1:length], sets[logits][i, : length - 1].astype(np.float64)
        learnt = np.flatnonzero(labels != IGNORE)
        picked = np.logaddexp.reduce(values[learnt], axis=1) - values[learnt, labels[learnt]]
        rows.append((length, float(picked.mean()), len(learnt)))
    return rows
