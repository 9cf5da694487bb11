"""Every base LLM: imported from both spellings of config.json, its logits are those of transformers, and back."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from eve_jax.data.image.patches import patchify
from eve_jax.infer.engine import Engine, bucket
from eve_jax.infer.prompt import Prompt, pack_prompts
from eve_jax.model.eve import bind
from eve_jax.weights.import_export import export_checkpoint, import_checkpoint
from eve_jax.weights.open import Checkpoint, open_checkpoint
from tests.weights.backbones import BASES, ids, write_base

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
IMAGE_ID = -200
CLOSE: dict[str, Any] = {"rtol": 0, "atol": 2e-5}


def text_logits(checkpoint: Checkpoint, tokens: np.ndarray) -> np.ndarray:
    """Our logits of one row of text."""
    prompt = Prompt(tokens)
    batch, (lengths, _) = pack_prompts([prompt], bucket(prompt.need))
    logits = bind(checkpoint.cfg, checkpoint.params())(batch)
    return np.asarray(logits)[0][batch["perm"][0, : lengths[0]]]


@pytest.fixture(scope="module", params=BASES)
def base(request, tmp_path_factory):
    """A base's folder in both spellings, and its logits in transformers."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp(request.param)
    for old in (False, True):
        model = write_base(folder / ("4" if old else "5"), request.param, old)
    with torch.no_grad():
        return folder, model(torch.tensor(ids()[None].astype(np.int64))).logits[0].numpy()


def test_logits_in_both_spellings(base):
    folder, wanted = base
    new, old = (open_checkpoint(folder / spelling, patch_hidden=32) for spelling in ("5", "4"))
    assert new.cfg == old.cfg
    np.testing.assert_allclose(text_logits(new, ids()), wanted, **CLOSE)
    assert np.abs(wanted).max() > 1, "logits that a wrong model would miss"


@pytest.mark.slow
def test_the_llm_alone_goes_back(base, tmp_path):
    """The export is of the base's own class, without a name missing or left over, and has the same logits."""
    folder, wanted = base
    out = export_checkpoint(folder / "4", tmp_path / "out", text_only=True, quiet=True)
    load = transformers.AutoModelForCausalLM.from_pretrained
    model, info = load(out, output_loading_info=True, attn_implementation="eager")
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")), info
    kind = json.loads((folder / "4" / "config.json").read_text())["model_type"]
    assert model.config.model_type == kind
    with torch.no_grad():
        np.testing.assert_allclose(model(torch.tensor(ids()[None].astype(np.int64))).logits[0], wanted, **CLOSE)
    assert open_checkpoint(out, patch_hidden=32).cfg == open_checkpoint(folder / "5", patch_hidden=32).cfg


IMAGE = np.random.default_rng(3).integers(0, 256, (64, 96, 3), np.uint8)


def prompts() -> list[Prompt]:
    """A prompt with an image of 2 x 3 patches, longer than any window, and one of text."""
    tokens = np.concatenate([ids(9), [IMAGE_ID], ids(20)]).astype(np.int32)
    return [Prompt(tokens, [patchify(IMAGE)], [(2, 3)]), Prompt(ids(12))]


def with_other_vision_weights(folder: Path) -> None:
    """Move what an export has for vision tokens alone, which begins as the weights of text."""
    rng = np.random.default_rng(4)
    tensors = load_file(folder / "model.safetensors")
    for name, value in tensors.items():
        if "moe_" in name:
            tensors[name] = value + 0.05 * rng.normal(size=value.shape).astype(value.dtype)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def load_export(folder: Path) -> Any:
    """The model in PyTorch, without a name missing or left over."""
    load = transformers.AutoModelForCausalLM.from_pretrained
    model, info = load(folder, trust_remote_code=True, output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")), info
    return model.eval()


EXPORTED = [
    *((name, variant) for name in ("gemma3", "olmo2") for variant in ("dac", "moe", "rep")),
    *((name, "dac") for name in BASES if name not in ("gemma3", "olmo2")),
]
QUICK = [("gemma3", "dac")]


@pytest.mark.parametrize(
    ("name", "variant"), [case if case in QUICK else pytest.param(*case, marks=pytest.mark.slow) for case in EXPORTED]
)
def test_export_with_vision_weights(name, variant, tmp_path):
    """The carried modeling file has our logits for images and text, and our greedy tokens with its cache."""
    folder = tmp_path
    write_base(folder / "4", name, old=True)
    stage = import_checkpoint(str(folder / "4"), tmp_path / "stage", variant, quiet=True)
    out = export_checkpoint(stage, tmp_path / "out", quiet=True)
    with_other_vision_weights(out)
    model, ours = load_export(out), open_checkpoint(out)
    given = prompts()
    batch, (lengths, _) = pack_prompts(given, bucket(tuple(np.max([p.need for p in given], axis=0).tolist())))
    logits = np.asarray(bind(ours.cfg, ours.params())(batch))
    masked = np.asarray(bind(replace(ours.cfg, routing="masked"), ours.params())(batch))
    engine = Engine(*ours.for_inference())
    answers = engine.generate(given, 8, [])
    images = [model._pixels(Image.fromarray(IMAGE), (96, 64))]
    for row, (prompt, own) in enumerate(zip(given, (images, None), strict=True)):
        tokens = torch.tensor(prompt.ids[None].astype(np.int64))
        with torch.no_grad():
            theirs = model(tokens, images=own).logits[0].numpy()
        real = batch["perm"][row, : lengths[row]]
        np.testing.assert_allclose(theirs, logits[row][real], **CLOSE)
        np.testing.assert_allclose(masked[row][real], logits[row][real], **CLOSE)
        greedy = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "eos_token_id": None}
        assert model.generate(tokens, images=own, **greedy)[0, -8:].tolist() == answers[row]
