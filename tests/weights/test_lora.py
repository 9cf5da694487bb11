"""A run's adapters merged, exported, and in `peft` on the exported base: the logits of adapter and base."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from eve_jax.checkpoint.frozen_weights import FROZEN, frozen_origins
from eve_jax.checkpoint.stage_folder import Checkpoints
from eve_jax.errors import UserError
from eve_jax.model.eve import bind
from eve_jax.weights.import_export import export_checkpoint, import_checkpoint, make_whole, merge_adapters
from eve_jax.weights.open import open_checkpoint
from eve_jax.weights.peft_folder import export_peft
from tests import reference as ref
from tests.model.adapters import adapter_values, with_adapters
from tests.weights import folders


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A work folder with an imported model, `base`, and a `run` with adapters of it; and the run's logits."""
    work = tmp_path_factory.mktemp("lora")
    base = import_checkpoint(str(folders.write_hf(work / "hf", *folders.golden())), work / "base", quiet=True)
    params = open_checkpoint(base).params()
    cfg = with_adapters(open_checkpoint(base).cfg, dropout=0.1)
    own = adapter_values(cfg)
    write_run(work / "run", base, cfg, own, params)
    return work, np.asarray(bind(cfg, {**params, **own})(ref.alone()))


def write_run(folder: Path, base: Path, cfg: Any, own: dict[str, Any], params: dict[str, Any]) -> None:
    """Write the stage folder of a run that trained adapters of `base`."""
    folder.mkdir()
    config = json.loads((base / "config.json").read_text())
    config["model"]["lora"] = asdict(cfg.lora)
    (folder / "config.json").write_text(json.dumps(config))
    origins = frozen_origins(params, folder, base, 0, 0, cfg.patch_hidden)
    checkpoints = Checkpoints(folder)
    checkpoints.save(3, own, {"count": jnp.int32(3)}, {"plan": "", "lineage": "run", FROZEN: origins})
    checkpoints.close()


def logits(folder: Path) -> np.ndarray:
    checkpoint = open_checkpoint(folder)
    assert checkpoint.cfg.lora is None
    return np.asarray(bind(checkpoint.cfg, checkpoint.params())(ref.alone()))


def test_merged_and_exported_are_adapter_and_base(made: tuple[Path, np.ndarray]) -> None:
    work, wanted = made
    merged = merge_adapters(work / "run", work / "merged", quiet=True)
    np.testing.assert_allclose(logits(merged), wanted, rtol=0, atol=2e-5)
    exported = export_checkpoint(work / "run", work / "exported", quiet=True)
    np.testing.assert_allclose(logits(exported), wanted, rtol=0, atol=2e-5)
    whole = make_whole(work / "run", work / "whole", quiet=True)
    assert open_checkpoint(whole).cfg.lora is not None
    cfg, params = open_checkpoint(whole).for_inference()
    assert cfg.lora is None
    read = open_checkpoint(merged).params()
    for name, value in params.items():
        np.testing.assert_array_equal(value, read[name], err_msg=name)
    with pytest.raises(UserError, match="merged has no adapters"):
        merge_adapters(merged, work / "again", quiet=True)
    with pytest.raises(UserError, match="merged has no adapters"):
        export_peft(merged, work / "again")


@pytest.mark.slow
def test_in_peft_on_the_exported_base(made: tuple[Path, np.ndarray]) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    torch.set_num_threads(1)
    work, wanted = made
    base = export_checkpoint(work / "base", work / "exported_base", quiet=True)
    folder = export_peft(work / "run", work / "peft", str(base))
    plain = transformers.AutoModelForCausalLM.from_pretrained(base, trust_remote_code=True)
    model = peft.PeftModel.from_pretrained(plain, folder).eval()
    assert sum("lora_" in name for name, _ in model.named_parameters()) == 2 * (3 * 14 + 2)
    inputs, batch = ref.tensors("A_inputs"), ref.alone()
    with torch.no_grad():
        found = model(
            input_ids=torch.tensor(inputs["input_ids"]),
            images=[torch.tensor(inputs[f"pixel_values_{i}"]) for i in (0, 1)],
            attention_mask=torch.tensor(inputs["attention_mask"].astype(np.int64)),
        ).logits
    for i, length in enumerate(ref.LENGTHS):
        mine = ref.in_causal_order(batch, wanted, i, 0, length)
        np.testing.assert_allclose(found[i, :length], mine, rtol=0, atol=2e-5)
    assert peft.PeftConfig.from_pretrained(folder).base_model_name_or_path == str(base)
