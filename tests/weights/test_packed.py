"""Folders with quantized weights: their bytes, opened again, and in PyTorch."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from eve_jax import EVE
from eve_jax.checkpoint.weight_fingerprint import fingerprints
from eve_jax.errors import UserError, name_fields
from eve_jax.hf import packed
from eve_jax.infer.engine import Engine
from eve_jax.infer.parameters import loaded
from eve_jax.infer.prompt import Prompt
from eve_jax.model.quantized import plain
from eve_jax.weights.import_export import export_checkpoint, import_checkpoint
from eve_jax.weights.open import open_checkpoint
from tests import reference as ref
from tests.infer.test_generate import prompts
from tests.weights import folders

pytest.importorskip("qwix")


@pytest.fixture(scope="module", params=[("int8", False), ("int4", False), ("int8", True)], ids=str)
def made(request, tmp_path_factory):
    """Two folders, of whole and of quantized weights, and their type; the last with the word embedding as LM head."""
    weights, tied = request.param
    at = tmp_path_factory.mktemp("folders")
    hf = folders.write_hf(at / "whole", *folders.golden(tied=tied))
    return hf, export_checkpoint(hf, at / "small", weights, quiet=True), weights


@pytest.fixture
def hf(made):
    return made[0]


@pytest.fixture
def exported(made):
    """A folder with quantized weights, and their type."""
    return made[1:]


def test_two_numbers_in_a_byte():
    values = np.arange(-8, 8, dtype=np.int8).reshape(2, 8).astype(jnp.int4)
    stored = packed.pack(values)
    assert stored.dtype == np.uint8 and stored.shape == (2, 4)
    assert stored[0].tolist() == [0x98, 0xBA, 0xDC, 0xFE] and stored[1].tolist() == [0x10, 0x32, 0x54, 0x76]
    np.testing.assert_array_equal(packed.unpack(stored), values)


def test_a_folder_opens_as_what_it_was_made_of(exported, hf):
    folder, weights = exported
    assert json.loads((folder / "config.json").read_text())["eve_jax"]["weights"] == weights
    found, known = loaded(open_checkpoint(folder))[1], loaded(open_checkpoint(hf), weights=weights)[1]
    assert fingerprints(plain(found)) == fingerprints(plain(known))
    eve = EVE.from_pretrained(folder, fit="shrink")
    assert eve.generate("Why?", max_new_tokens=4) == EVE.from_pretrained(hf, fit="shrink", weights=weights).generate(
        "Why?", max_new_tokens=4
    )


def test_a_folder_whose_tables_are_whole_opens_as_well(exported, hf, tmp_path):
    """As exports were before the head was quantized, too."""
    folder, _ = exported
    tensors, whole = folders.read_hf(folder), folders.read_hf(hf)
    (head,) = (name for name in tensors if name.endswith("_scale") and tensors[name].shape[0] == 320)
    name = head.removesuffix("_scale")
    assert tensors[name].dtype == np.int8 and tensors[name].shape == whole[name].shape
    del tensors[head]
    tensors[name] = whole[name]
    old = folders.write_hf(tmp_path / "old", tensors, json.loads((folder / "config.json").read_text()))
    found, known = (plain(loaded(open_checkpoint(at))[1]) for at in (old, folder))
    assert fingerprints(found) == fingerprints(known)


def test_a_matrix_is_of_the_type_that_the_folder_names(exported, tmp_path):
    folder, weights = exported
    tensors, other = folders.read_hf(folder), {"int8": "int4", "int4": "int8"}[weights]
    config = json.loads((folder / "config.json").read_text())
    config["eve_jax"]["weights"] = other
    wrong = folders.write_hf(tmp_path / "wrong", tensors, config)
    with pytest.raises(UserError, match=f"is not {other}|do not fit"):
        loaded(open_checkpoint(wrong))


def test_what_it_is_not_for(exported, tmp_path, caplog):
    folder, weights = exported
    other = {"int8": "int4", "int4": "int8"}[weights]
    with pytest.raises(UserError, match=f"^--weights={other}: .* holds {weights} weights"), name_fields("--{}".format):
        EVE.from_pretrained(folder, weights=other)
    with pytest.raises(UserError, match=f"holds {weights} weights"):
        open_checkpoint(folder).params()
    with pytest.raises(UserError, match=f"holds {weights} weights"):
        import_checkpoint(str(folder), tmp_path / "ours", quiet=True)
    assert [record.getMessage() for record in caplog.records if record.exc_info] == [], "one line, no tracebacks"
    with pytest.raises(UserError, match=f"has {weights} weights already"):
        export_checkpoint(folder, tmp_path / "again", quiet=True)
    assert not list(tmp_path.glob("[!.]*"))


def test_logits_in_pytorch(exported):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder, weights = exported
    load = transformers.AutoModelForCausalLM.from_pretrained
    model, info = load(folder, trust_remote_code=True, output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")), info
    kinds = {n: v.dtype for n, v in model.state_dict().items() if n.endswith("up_proj.weight")}
    assert set(kinds.values()) == {torch.int8 if weights == "int8" else torch.uint8} and len(kinds) > 2
    engine = Engine(*loaded(open_checkpoint(folder)))
    prompt = prompts()["image"]
    pixels = torch.tensor(ref.tensors("A_inputs")["pixel_values_0"])
    with torch.no_grad():
        logits = model.eval()(torch.tensor(prompt.ids[None].astype(np.int64)), images=[pixels]).logits[0, -1]
    np.testing.assert_allclose(engine.prefill(engine.session(), [prompt])[0], logits, rtol=0, atol=2e-5)
    ids = torch.tensor(prompt.ids[None].astype(np.int64))
    greedy = model.generate(ids, images=[pixels], max_new_tokens=8, min_new_tokens=8, do_sample=False)
    assert greedy[0].tolist() == engine.generate([Prompt(prompt.ids, prompt.patches, prompt.grids)], 8, [])[0]
