"""Weights of a Hugging Face folder that are zero everywhere: refused or named, never answered from without a line."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eve_jax.errors import UserError, warn
from eve_jax.hf.tensors import HfSource
from eve_jax.weights.import_export import import_checkpoint
from eve_jax.weights.open import open_checkpoint, stored_source
from tests.weights import folders

LAYER = "model.layers.{}.self_attn.{}_proj.{}"


def folder_with(tmp_path: Path, names: list[str], value: float = 0.0, bfloat16: bool = False, **config: Any) -> Path:
    warn.cache_clear()
    tensors, fields = folders.golden(tied=config.get("tie_word_embeddings", False))
    assert set(names) <= tensors.keys()
    tensors = tensors | {name: np.full_like(tensors[name], value) for name in names}
    tensors = folders.as_bfloat16(tensors) if bfloat16 else tensors
    return folders.write_hf(tmp_path / "hf", tensors, fields | config)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("model.embed_tokens.weight", {}),
        ("model.embed_tokens.weight", {"tie_word_embeddings": True}),
        ("lm_head.weight", {}),
        ("model.norm.weight", {}),
        ("lm_head.weight", {"value": -0.0}),
        ("lm_head.weight", {"bfloat16": True}),
    ],
)
def test_what_no_answer_is_without_is_refused(name: str, more: dict[str, Any], tmp_path: Path) -> None:
    folder = folder_with(tmp_path, [name], **more)
    for use in (lambda: open_checkpoint(folder).params(), lambda: import_checkpoint(str(folder), tmp_path / "ours")):
        with pytest.raises(UserError, match=rf"model\.safetensors: tensor {name} is zero everywhere, with which every"):
            use()
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        ([LAYER.format(1, "o", "weight")], r"model\.layers\.1\.self_attn\.o_proj\.weight is"),
        (
            [LAYER.format(n, "q", "weight") for n in (0, 1)],
            r"model\.layers\.0\.self_attn\.q_proj\.weight, like 1 more of its \d layers, is",
        ),
        (["model.layers.0.moe_mlp.gate_proj.weight"], r"model\.layers\.0\.moe_mlp\.gate_proj\.weight is"),
        (["model.layers.0.input_layernorm.weight"], r"model\.layers\.0\.input_layernorm\.weight is"),
        (["model.vision_tower.patch_embedding.2.weight"], r"model\.vision_tower\.patch_embedding\.2\.weight is"),
    ],
)
def test_other_matrices_are_named(
    names: list[str], shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_with(tmp_path, names)
    open_checkpoint(folder).params()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "zero" in line]
    assert re.search(rf"warning: .*model\.safetensors: tensor {shown} zero everywhere", line)


@pytest.mark.parametrize("part", ["q", "k", "v"])
def test_biases_and_single_values_may_be_zero(part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_with(tmp_path, [LAYER.format(0, part, "bias"), "model.vision_tower.patch_embedding.0.bias"])
    open_checkpoint(folder).params()
    assert "zero" not in capsys.readouterr().err


def test_a_few_values_are_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors, config = folders.golden()
    head = np.zeros_like(tensors["lm_head.weight"])
    head[3, 7] = 1e-4
    folder = folders.write_hf(tmp_path / "hf", tensors | {"lm_head.weight": head}, config)
    np.testing.assert_array_equal(open_checkpoint(folder).params()["head"], head)
    assert "zero" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["embed", "head", "norm.scale"])
def test_our_own_checkpoints_are_looked_at(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, config = folders.golden()
    folder = folders.write_hf(tmp_path / "hf", tensors, config)
    read = HfSource.pieces
    monkeypatch.setattr(
        HfSource, "pieces", lambda self, one: (p * (one != name) for p in read(self, one))
    )  # as a conversion that failed leaves it
    import_checkpoint(str(folder), tmp_path / "ours")
    about = rf"ours, step 0: parameter {re.escape(name)} is zero everywhere, with which every answer"
    with pytest.raises(UserError, match=about):
        open_checkpoint(tmp_path / "ours").params()
    with pytest.raises(UserError, match=about):
        list(stored_source(tmp_path / "ours").pieces(name))
