"""Prefixes that wrappers leave on the names of tensors, taken off when the whole folder has the same.

`module.` is left by data parallelism, `_orig_mod.` by torch.compile, `language_model.` by a multimodal model around an
LLM, `base_model.model.` by PEFT; `model.` is missing where a model was saved without its head, and doubled where it was
wrapped once more. Where single modules were wrapped, the prefix stands inside a name (`layers.0._orig_mod.mlp...`);
it is taken off when all names of that module have it.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from eve_jax.errors import UserError

T = TypeVar("T")
WRAPPER = "module|_forward_module|_orig_mod|_fsdp_wrapped_module|_fpw_module|_checkpoint_wrapped_module"
WRAPPED = re.compile(rf"\.(?:{WRAPPER})(?=\.)")
OF_TRAINERS = "llm|student|policy|actor|transformer"
PREFIXES = rf"(?:(?:{WRAPPER}|{OF_TRAINERS}|language_model|text_model|base_model\.model|model)\.)*"
INNER = r"(?:(?:language_model|text_model|model)\.)*"  # what may be between the head's prefix and the layers'
SPLIT = re.compile(rf"({PREFIXES})(.+)")
# How the names of an LLM's own tensors continue; those of the head have no `model.` in front.
DECODER, HEAD = re.compile(r"(embed_tokens|layers\.\d+|norm)\..+"), re.compile(r"lm_head\..+")
BODY = "model."
FOREIGN = re.compile(r"(.+?)\.(?:model\.)?(?:embed_tokens\.|layers\.\d+\.self_attn\.).+")
ADAPTER = re.compile(r".*\.(lora_|base_layer\.|modules_to_save\.).*")


def without_prefix(tensors: Mapping[str, T], folder: Path, plain: bool) -> dict[str, T]:
    """Return `tensors` under the names that a model without wrappers gives them.

    Raise UserError when the tensors of the LLM have different prefixes, or one that is not known, and when other
    tensors stand next to a wrapped LLM: of a PEFT adapter that was not merged, or of another family's multimodal model
    (`plain`: the config is a plain LLM's; EVE's own tensors have the LLM's prefix).
    """
    adapter = next(filter(ADAPTER.fullmatch, tensors), None)
    if adapter is not None:
        raise UserError(
            f"{folder}: tensor {adapter} is of a PEFT adapter; merge it into its base model first (merge_and_unload)"
        )
    tensors = _unwrapped(tensors, folder)
    body = _only_prefix([name for name in tensors if DECODER.fullmatch(_split(name)[1])], folder)
    head = _only_prefix([name for name in tensors if HEAD.fullmatch(_split(name)[1])], folder)
    if body is None and (foreign := next(filter(None, map(FOREIGN.fullmatch, tensors)), None)):
        raise UserError(
            f"{folder}: no tensor has the name of an LLM's, and {foreign[0]} has one behind {foreign[1]}.; save the "
            "model without that prefix"
        )
    if body in (None, BODY) and head in (None, ""):
        return dict(tensors)
    if body is not None and head is not None and not re.fullmatch(re.escape(head) + INNER, body):
        first, other = (next(n for n in tensors if p.fullmatch(_split(n)[1])) for p in (DECODER, HEAD))
        raise UserError(_two_kinds(folder, first, other))
    out: dict[str, T] = {}
    for name, tensor in tensors.items():
        prefix, rest = _split(name)
        is_head = HEAD.fullmatch(rest) is not None
        if prefix != (head if is_head else body):
            raise UserError(_beside(folder, name, body, plain))
        out[rest if is_head else BODY + rest] = tensor
    return out


def _unwrapped(tensors: Mapping[str, T], folder: Path) -> dict[str, T]:
    """Return `tensors` without the prefixes inside their names; those before a whole name stay.

    Raise UserError when a module has names with such a prefix and names without.
    """
    wrapped: dict[str, str] = {}  # the beginning of the names of a wrapped module -> one of them
    for name in tensors:
        start = len(_split(name)[0])
        for found in WRAPPED.finditer(name, max(start - 1, 0)):
            wrapped.setdefault(name[: found.start()], name)
    if not wrapped:
        return dict(tensors)
    out: dict[str, T] = {}
    for name, tensor in tensors.items():
        prefix, rest = _split(name)
        module = ""
        for part in name.split(".")[:-1]:
            module = f"{module}.{part}" if module else part
            if module in wrapped and not WRAPPED.match(name, len(module)):
                raise UserError(
                    f"{_two_kinds(folder, wrapped[module], name)}, or save the model without wrappers of its modules"
                )
        out[prefix + WRAPPED.sub("", f".{rest}")[1:]] = tensor
    return out


def _split(name: str) -> tuple[str, str]:
    found = SPLIT.fullmatch(name)
    return (found[1], found[2]) if found else ("", name)


def _only_prefix(names: list[str], folder: Path) -> str | None:
    """Return the prefix of all `names`, None when there are none; raise UserError when they have several."""
    examples = {_split(name)[0]: name for name in reversed(names)}
    if len(examples) > 1:
        raise UserError(_two_kinds(folder, *list(examples.values())[:2]))
    return next(iter(examples), None)


def _two_kinds(folder: Path, first: str, other: str) -> str:
    return f"{folder}: tensors have names of two kinds, as {first} and {other}; give all of them the same prefix"


def _beside(folder: Path, name: str, body: str | None, plain: bool) -> str:
    if plain:
        return (
            f"{folder}: tensor {name} is next to an LLM under {body}: this is a multimodal model of another family; "
            "save its language model on its own"
        )
    return f"{folder}: tensor {name} has not the prefix {body} of the LLM's; give all tensors the same prefix"
