"""Weights that are NaN or infinite, or become infinite in another dtype, are never written without a line."""

import re
from pathlib import Path

import numpy as np
import pytest

from eve_jax.errors import UserError, warn
from eve_jax.weights.import_export import export_checkpoint, import_checkpoint, make_whole
from eve_jax.weights.open import open_checkpoint
from eve_jax.weights.quantize import for_inference
from tests.weights import folders

NORM, HEAD = "model.norm.weight", "lm_head.weight"


@pytest.mark.parametrize(("value", "bfloat16"), [(np.nan, False), (np.inf, False), (-np.inf, True)])
def test_they_are_kept_with_a_line(
    value: float, bfloat16: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors, config = folders.golden()
    tensors = folders.as_bfloat16(tensors) if bfloat16 else tensors
    tensors |= {HEAD: np.array(tensors[HEAD])}
    tensors[HEAD].flat[:3] = value
    folder = folders.write_hf(tmp_path / "hf", tensors, config)
    warn.cache_clear()
    import_checkpoint(str(folder), tmp_path / "ours", quiet=True)
    make_whole(tmp_path / "ours", tmp_path / "whole", quiet=True)
    export_checkpoint(tmp_path / "whole", tmp_path / "back", quiet=True)
    about = f"head is NaN or infinite in 3 of its {tensors[HEAD].size:,} weights, which were kept"
    told = [line for line in capsys.readouterr().err.splitlines() if about in line]
    assert [re.sub(":.*", "", line.removeprefix("warning: ")) for line in told] == [
        str(tmp_path / name) for name in ("hf", "ours", "whole")
    ]
    folders.same(folders.read_hf(tmp_path / "back"), tensors)


@pytest.mark.parametrize(("value", "weights"), [(np.nan, "int8"), (np.nan, "int4"), (np.inf, "int8")])
@pytest.mark.parametrize("name", ["self_attn.q_proj", "moe_mlp.up_proj"])
def test_they_cannot_be_quantized(value: float, weights: str, name: str, tmp_path: Path) -> None:
    pytest.importorskip("qwix")
    tensors, config = folders.golden()
    name = f"model.layers.1.{name}.weight"
    tensors |= {name: np.array(tensors[name])}
    tensors[name][2, 3] = value
    folder = folders.write_hf(tmp_path / "hf", tensors, config)
    about = rf"^layers\.\S+ is NaN or infinite in 1 weights of a layer, which cannot be quantized to {weights}"
    with pytest.raises(UserError, match=about):
        for_inference(open_checkpoint(folder), weights)
    with pytest.raises(UserError, match=about):
        export_checkpoint(folder, tmp_path / "small", weights, quiet=True)
    assert not (tmp_path / "small").exists()


def test_a_cast_makes_no_infinite_weight(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors, config = folders.golden()
    tensors |= {NORM: np.array(tensors[NORM])}
    tensors[NORM][2] = -7e4
    folder = folders.write_hf(tmp_path / "hf", tensors, config)
    with pytest.raises(UserError, match=rf"^{NORM} has a weight of 7e\+04, but the largest of float16 is 6\.55e\+04"):
        export_checkpoint(folder, tmp_path / "half", "float16", quiet=True)
    assert not (tmp_path / "half").exists()
    export_checkpoint(folder, tmp_path / "brain", "bfloat16", quiet=True)
    assert folders.read_hf(tmp_path / "brain")[NORM][2] == np.float32(-7e4).astype(folders.BFLOAT16)
    assert "NaN" not in capsys.readouterr().err
