"""A run's adapters merged, exported, and in `peft` on the exported base: the logits of adapter and base."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from eve_jax.checkpoint.adapters import adapted_by
from eve_jax.checkpoint.frozen_weights import FROZEN, frozen_origins
from eve_jax.checkpoint.stage_folder import Checkpoints
from eve_jax.errors import UserError
from eve_jax.model.eve import abstract_params, bind
from eve_jax.weights.import_export import export_checkpoint, import_checkpoint, make_whole, merge_adapters
from eve_jax.weights.open import open_checkpoint
from eve_jax.weights.peft_folder import export_peft
from eve_jax.weights.stage_config import stage_config
from tests import reference as ref
from tests import reference_v1 as v1
from tests.model.adapters import ALL, adapter_values, with_adapters
from tests.weights import folders, folders_v1


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


def of_dac(work: Path) -> tuple[Path, Any, list[Any]]:
    """The base of `made`, a batch of the golden samples, and what makes the inputs of `transformers` of each."""
    inputs = ref.tensors("A_inputs")
    images = [inputs[f"pixel_values_{i}"] for i in (0, 1)]
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    return work / "base", ref.alone(), [ids, mask, ref.LENGTHS, lambda model: images]


def of_rep(work: Path) -> tuple[Path, Any, list[Any]]:
    """The same with a model that has gated deltas, which its export adds in."""
    dac, batch, inputs = of_dac(work)
    config = json.loads((dac / "config.json").read_text())
    config["model"] |= {"parts": ["delta"], "variant": "rep"}
    folder = work / "rep"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    params, rng = open_checkpoint(dac).params(), np.random.default_rng(1)
    shapes = abstract_params(stage_config(folder)[0])
    own = {n: jnp.asarray(0.1 * rng.normal(size=s.shape), s.dtype) for n, s in shapes.items() if n not in params}
    assert len(own) == 4
    checkpoints = Checkpoints(folder)
    checkpoints.save(0, {n: params.get(n, own.get(n)) for n in shapes}, {"count": jnp.int32(0)}, {"plan": ""})
    checkpoints.close()
    return folder, batch, inputs


def of_v1(work: Path) -> tuple[Path, Any, list[Any]]:
    """The same with EVEv1."""
    hf = folders_v1.write(work / "hf_v1", "D2", aligning=False)
    base = import_checkpoint(str(hf), work / "base_v1", quiet=True)
    inputs = ref.tensors("D2_inputs")
    batch = v1.alone("D2")
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    pictures = [v1.picture("D2", i) for i in range(2)]
    return base, batch, [ids, mask, v1.lengths("D2"), lambda model: [model.preprocess(one) for one in pictures]]


def test_a_base_that_is_not_rounded_as_the_adapters_saw_it(
    made: tuple[Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = made[0]
    shutil.copytree(work / "run", tmp_path / "run")
    settings = json.loads((work / "run" / "config.json").read_text())
    base = {
        name: export_checkpoint(work / "base", tmp_path / name, name, quiet=True) for name in ("float32", "bfloat16")
    }
    for frozen, kind, warned in (("float32", "float32", 0), ("bfloat16", "bfloat16", 0), ("bfloat16", "float32", 1)):
        settings["model"]["frozen_dtype"] = frozen
        (tmp_path / "run" / "config.json").write_text(json.dumps(settings))
        export_peft(tmp_path / "run", tmp_path / f"{frozen}_{kind}", str(base[kind]))
        said = capsys.readouterr().err
        assert said.count("unless the base is exported with --dtype=bfloat16") == said.count("warning: ") == warned


def test_a_base_that_is_not_the_runs(made: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    """By --base, and in the place from which the run takes its own: nothing is written."""
    work = tmp_path / "work"
    opened = open_checkpoint(shutil.copytree(made[0] / "base", work / "base"))
    cfg = with_adapters(opened.cfg)
    write_run(work / "run", work / "base", cfg, adapter_values(cfg), opened.params())
    merged = export_checkpoint(work / "run", tmp_path / "merged", quiet=True)
    right = export_checkpoint(work / "base", tmp_path / "right", "float16", quiet=True)
    (tmp_path / "none").mkdir()
    for base, says in (
        (merged, r"merged is not the model that the run's adapters were trained on: model\.\S+ has other values; "),
        (tmp_path / "gone", "gone: no such folder"),
        (work / "base", r"base is a stage folder; name what launch\.convert export"),
        (tmp_path / "none", "none has neither model.safetensors"),
    ):
        with pytest.raises(UserError, match=says):
            export_peft(work / "run", tmp_path / "peft", str(base))
        assert not (tmp_path / "peft").exists()
    of_hub = export_peft(work / "run", tmp_path / "of_hub", "lab/base")
    assert json.loads((of_hub / "adapter_config.json").read_text())["base_model_name_or_path"] == "lab/base"
    export_peft(work / "run", tmp_path / "of_right", str(right))
    (work / "base").rename(work / "kept")
    with pytest.raises(UserError, match="put it back"):
        export_peft(work / "run", tmp_path / "peft")
    merge_adapters_of(work)
    with pytest.raises(UserError, match="was trained on other weights than"):
        export_peft(work / "run", tmp_path / "peft", str(right))
    assert not (tmp_path / "peft").exists()


def merge_adapters_of(work: Path) -> None:
    """Put the merged model of the run where its base was."""
    (work / "kept").rename(work / "base")
    merge_adapters(work / "run", work / "other", quiet=True)
    shutil.rmtree(work / "base")
    (work / "other").rename(work / "base")


@pytest.mark.slow
@pytest.mark.parametrize(("model", "groups"), [(of_dac, ALL), (of_rep, ALL[::2]), (of_v1, ALL[::2])])
def test_in_peft_on_the_exported_base(
    model: Any, groups: tuple[str, ...], made: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    torch.set_num_threads(1)
    of_base, batch, (ids, mask, lengths, pictures) = model(made[0])
    opened = open_checkpoint(of_base)
    cfg = with_adapters(opened.cfg, groups, dropout=0.1)
    params, own = opened.params(), adapter_values(cfg)
    write_run(tmp_path / "run", of_base, cfg, own, params)
    wanted = np.asarray(bind(cfg, {**params, **own})(batch))
    base = export_checkpoint(of_base, tmp_path / "base", quiet=True)
    folder = export_peft(tmp_path / "run", tmp_path / "peft", str(base))
    plain = transformers.AutoModelForCausalLM.from_pretrained(base, trust_remote_code=True)
    images = [torch.tensor(np.asarray(one)) for one in pictures(plain)]
    model = peft.PeftModel.from_pretrained(plain, folder).eval()
    adapted = len(adapted_by(cfg)) - sum(".layers." not in f".{name}" for name in adapted_by(cfg))
    expected = 2 * (cfg.num_layers * adapted + len(adapted_by(cfg)) - adapted)
    assert sum("lora_" in name for name, _ in model.named_parameters()) == expected
    with torch.no_grad():
        found = model(
            input_ids=torch.tensor(ids), images=images, attention_mask=torch.tensor(mask.astype(np.int64))
        ).logits
    without = np.asarray(bind(opened.cfg, params)(batch))
    for i, length in enumerate(lengths):
        mine = ref.in_causal_order(batch, wanted, i, 0, length)
        np.testing.assert_allclose(found[i, :length], mine, rtol=0, atol=2e-5)
        assert np.abs(mine - ref.in_causal_order(batch, without, i, 0, length)).max() > 1e-3
    assert peft.PeftConfig.from_pretrained(folder).base_model_name_or_path == str(base)
