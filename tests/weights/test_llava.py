"""A model with a vision encoder: LLaVA-1.5's folder in, transformers' logits, and back."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eve_jax.compare.questions import question_losses
from eve_jax.data.image.square import padded
from eve_jax.data.sources.records import open_records
from eve_jax.errors import UserError
from eve_jax.infer.api import EVE
from eve_jax.infer.batches import Ask, answer_all
from eve_jax.infer.engine import Engine, bucket
from eve_jax.infer.prompt import pack_prompts
from eve_jax.model.eve import bind
from eve_jax.model.patch_embed import PIXEL_MEAN, PIXEL_STD
from eve_jax.weights.import_export import export_checkpoint, import_checkpoint
from eve_jax.weights.llava_export import Widened
from eve_jax.weights.open import Checkpoint, open_checkpoint, stored_source
from tests.data.synthetic import byte_tokenizer
from tests.weights.backbones import SIZES
from tests.weights.folders import read_hf, same
from tests.weights.llava import PATCHES, images, in_memory_names, old_names, prompt, torch_inputs, write_llava

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
CLOSE: dict[str, Any] = {"rtol": 0, "atol": 2e-5}


def our_logits(checkpoint: Checkpoint, **changes: Any) -> np.ndarray:
    """Logits of every token of the prompt, image tokens included."""
    cfg = replace(checkpoint.cfg, **changes)
    given = prompt()
    batch, held = pack_prompts([given], bucket(given.need), cfg.patch_bytes)
    return np.asarray(bind(cfg, checkpoint.params())(batch))[0][batch["perm"][0, : held.length[0]]]


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
    values = {name: np.asarray(value) for name, value in first.params().items()}
    names = {tuple(sorted(read_hf(folder)))}
    for rename in (lambda: in_memory_names(folder, model), lambda: old_names(folder)):
        rename()
        names.add(tuple(sorted(read_hf(folder))))
        again = open_checkpoint(folder)
        assert (again.cfg, again.data) == (first.cfg, first.data)
        for name, value in again.params().items():
            assert np.array_equal(np.asarray(value), values[name]), name
    assert len(names) >= 2


def test_export_is_read_by_transformers(llava, tmp_path):
    """Without a name missing or left over, with the same logits; imported again, it is the same bits."""
    folder, model, wanted = llava
    stage = import_checkpoint(str(folder), tmp_path / "stage", quiet=True)
    out = export_checkpoint(stage, tmp_path / "out", quiet=True)
    load = transformers.LlavaForConditionalGeneration.from_pretrained
    again, info = load(out, output_loading_info=True, attn_implementation="eager")
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")), info
    assert again.config.image_token_id == model.config.image_token_id
    with torch.no_grad():
        np.testing.assert_allclose(again(**torch_inputs(again)).logits[0].numpy(), wanted, **CLOSE)
    old_names(folder)
    same(read_hf(out), read_hf(folder))
    assert open_checkpoint(out).data == open_checkpoint(folder).data


def test_a_vocabulary_without_the_images_token_grows(tmp_path):
    """By rows that are the mean of the others: no greedy answer takes them."""
    folder = tmp_path / "in"
    write_llava(folder, "llama", vocabulary=32_064)
    stage = import_checkpoint(str(folder), tmp_path / "stage", quiet=True)
    byte_tokenizer(["</s>"]).save(stage)
    out = export_checkpoint(stage, tmp_path / "out", quiet=True)
    config = json.loads((out / "config.json").read_text())
    assert config["image_token_index"] == 257
    assert json.loads((out / "processor_config.json").read_text())["image_token"] == "<image>"
    assert open_checkpoint(out).cfg.vocab_size == 32_064
    widened = Widened(stored_source(stage), 32_064)
    (embed,) = widened.pieces("embed")
    assert embed.shape == (32_128, 48)
    np.testing.assert_allclose(embed[32_064:], np.repeat(embed[:32_064].mean(axis=0)[None], 64, axis=0), atol=1e-6)


@pytest.mark.slow
def test_answers_as_transformers_does(llava):
    """Greedy, through the engine and, several prompts at a time, through the slots."""
    folder, model, _ = llava
    eve = Engine(*open_checkpoint(folder).for_inference())
    inputs = torch_inputs(model)
    new = model.generate(**inputs, max_new_tokens=6, min_new_tokens=6, do_sample=False, eos_token_id=None)
    expected = new[0, inputs["input_ids"].shape[1] :].tolist()
    assert eve.generate([prompt()], 6, [])[0] == expected
    asks = [Ask(str(n), prompt(), 6) for n in range(3)]
    assert [reply.ids for reply in answer_all(eve, asks, [], 2)] == [expected] * 3


@pytest.mark.slow
def test_chat_and_score(llava, tmp_path):
    folder, _, _ = llava
    eve = EVE.from_pretrained(folder)
    assert (eve.rule.images.mode, eve.rule.image_first) == ("pad", True)
    text = eve.generate("What is it?", images()[0], max_new_tokens=4)
    assert text == eve.generate_batch(["What is it?"] * 2, [images()[0]] * 2, max_new_tokens=4)[1]
    images()[1].save(tmp_path / "a.png")
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A bus."}]
    (tmp_path / "r.json").write_text(json.dumps([{"id": "1", "image": "a.png", "conversations": turns}]))
    (line,) = eve.score(tmp_path / "r.json", tmp_path).lines
    assert line.n_vision == PATCHES
    assert np.isfinite(line.loss)
    found = question_losses(eve, open_records(str(tmp_path / "r.json"), str(tmp_path)), 0, "eve", quiet=True)
    assert found["loss"] == pytest.approx(line.loss, abs=1e-5)
    seen = range(line.n_tokens - line.n_target, line.n_tokens)  # tokens, by what predicts each target
    assert found["visible"] == pytest.approx(np.mean([PATCHES / count for count in seen]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vision_feature_layer": -1}, "vision_feature_layer is -1"),
        ({"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy"),
        ({"text_config": {"model_type": "mamba"}}, "text_config is of 'mamba'"),
        ({"vision_config": {"model_type": "siglip_vision_model"}}, "siglip_vision_model"),
        ({"vision_config": {"model_type": "clip_vision_model", "patch_size": 15, "image_size": 30}}, "patch_size"),
    ],
)
def test_another_llava_is_refused(tmp_path, change, says):
    config = {"model_type": "llava", "text_config": SIZES | {"model_type": "llama"}}
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match=says):
        open_checkpoint(tmp_path)


def test_the_canvas_is_llavas(tmp_path):
    """The pixels of transformers' processor, which pads to a square and resizes it."""
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    side = {"height": 56, "width": 56}
    processor = LlavaImageProcessorPil(do_pad=True, size={"shortest_edge": 56}, crop_size=side)
    for image in images():
        ours = (padded(image, 56).astype(np.float32) / 255 - PIXEL_MEAN) / PIXEL_STD
        (theirs,) = processor(image, return_tensors="np")["pixel_values"]
        np.testing.assert_allclose(theirs.transpose(1, 2, 0), ours, atol=1e-5)
    assert padded(Image.new("RGB", (20_000, 2)), 28).shape == (28, 28, 3)


def test_the_llm_alone(llava, tmp_path):
    """A plain LLM of the text weights, with the logits of text that the model has."""
    folder, model, _ = llava
    out = export_checkpoint(folder, tmp_path / "llm", text_only=True, quiet=True)
    alone = transformers.AutoModelForCausalLM.from_pretrained(out, attn_implementation="eager").eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        np.testing.assert_allclose(alone(ids).logits, model(ids).logits, **CLOSE)
