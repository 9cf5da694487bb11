"""A model with a vision encoder: LLaVA-1.5's folder in, transformers' logits, and back."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from eve_jax.infer.engine import bucket
from eve_jax.infer.prompt import pack_prompts
from eve_jax.model.eve import bind
from eve_jax.weights.open import Checkpoint, open_checkpoint
from tests.weights.folders import read_hf
from tests.weights.llava import PATCHES, in_memory_names, old_names, prompt, torch_inputs, write_llava

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
CLOSE: dict[str, Any] = {"rtol": 0, "atol": 2e-5}


def our_logits(checkpoint: Checkpoint, **changes: Any) -> np.ndarray:
    """Logits of every token of the prompt, image tokens included."""
    cfg = replace(checkpoint.cfg, **changes)
    given = prompt()
    batch, lengths = pack_prompts([given], bucket(given.need), cfg.patch_bytes)
    return np.asarray(bind(cfg, checkpoint.params())(batch))[0][batch["perm"][0, : lengths[0]]]


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def llava(request, tmp_path_factory):
    """A LLaVA's folder, its model in torch, its logits."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("llava") / request.param
    model = write_llava(folder, request.param)
    with torch.no_grad():
        return folder, model, model(**torch_inputs(model)).logits[0].numpy()


def test_logits_in_every_spelling(llava, tmp_path):
    folder, model, wanted = llava
    assert len(wanted) == 5 + 7 + 11 + 2 * PATCHES
    assert np.abs(wanted).max() > 1, "logits that a wrong model would miss"
    first = open_checkpoint(folder)
    np.testing.assert_allclose(our_logits(first), wanted, **CLOSE)
    np.testing.assert_allclose(our_logits(first, routing="masked"), wanted, **CLOSE)
    names = {tuple(sorted(read_hf(folder)))}
    for rename in (lambda: in_memory_names(folder, model), lambda: old_names(folder)):
        rename()
        names.add(tuple(sorted(read_hf(folder))))
        again = open_checkpoint(folder)
        assert again.cfg == first.cfg
        for name, value in first.params().items():
            assert np.array_equal(np.asarray(again.params()[name]), np.asarray(value)), name
    assert len(names) >= 2
