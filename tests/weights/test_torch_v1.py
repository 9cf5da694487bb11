"""EVEv1 in `transformers`: the exported folder gives golden set D's numbers; our CLIP is CLIPVisionModel."""

import jax.numpy as jnp
import numpy as np
import pytest

from eve_jax.errors import UserError
from eve_jax.hf.clip_teacher import describe_teacher, load_teacher
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import abstract_params, bind
from eve_jax.weights.import_export import export_checkpoint, import_checkpoint
from tests import reference as ref
from tests import reference_v1 as v1
from tests.weights import folders_v1

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize(("name", "aligning"), [("D1", True), ("D2", False)])
def test_exported_folder(tmp_path, name, aligning):
    torch.set_num_threads(1)
    hf = folders_v1.write(tmp_path / "hf", name, aligning)
    ours = import_checkpoint(str(hf), tmp_path / "ours", quiet=True)
    out = export_checkpoint(ours, tmp_path / "out", quiet=True)
    load = transformers.AutoModelForCausalLM.from_pretrained
    model, info = load(out, trust_remote_code=True, output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")), info
    pixels = [model.preprocess(v1.picture(name, i)) for i in range(2)]
    inputs = ref.tensors(f"{name}_inputs")
    box = inputs["images"][0, 3] == 1
    canvas = inputs["images"][0, :3][:, box].reshape(3, *pixels[0].shape[1:])
    np.testing.assert_allclose(pixels[0], canvas, atol=1e-6)
    ids, labels = (torch.tensor(inputs[k]) for k in ("input_ids", "labels"))
    mask = torch.tensor(inputs["attention_mask"].astype(np.int64))
    golden = ref.tensors(f"{name}_outputs")
    with torch.no_grad():
        result = model.eval()(ids, images=pixels, attention_mask=mask, labels=labels)
    for i, length in enumerate(v1.lengths(name)):
        np.testing.assert_allclose(result.logits[i, :length], golden["logits"][i, :length], atol=2e-5)
    np.testing.assert_allclose(result.loss, golden["llm_loss"], atol=5e-6)
    greedy = ref.read_json(f"{name}_meta")["generate"]
    settings = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    prompt = torch.tensor([greedy["prompt_ids"]])
    assert model.generate(prompt, images=pixels[:1], **settings)[0].tolist() == greedy["new_tokens"]


@pytest.mark.parametrize("whole", [False, True])
def test_clip_is_clip(tmp_path, whole):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    vision = transformers.CLIPVisionConfig(**sizes, image_size=28, patch_size=7)
    if whole:
        text = transformers.CLIPTextConfig(**sizes, vocab_size=50, bos_token_id=1, eos_token_id=2, pad_token_id=0)
        theirs = transformers.CLIPModel(
            transformers.CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
        )
    else:
        theirs = transformers.CLIPVisionModel(vision)
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, 0.1, 0.3)
    theirs.save_pretrained(tmp_path / "clip")
    clip = describe_teacher(tmp_path / "clip")
    cfg = ModelConfig(8, 8, 8, 1, 1, 1, 8, parts=(), dtype="float32", teacher=clip)
    params = {k: jnp.zeros(v.shape) for k, v in abstract_params(cfg).items()}
    loaded = load_teacher(tmp_path / "clip", clip)
    assert {k: v.shape for k, v in loaded.items()} == {
        k: v.shape for k, v in params.items() if k.startswith("teacher.")
    }
    params |= loaded
    pictures = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 3), np.uint8)
    mean, std = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    pixels = torch.tensor(((pictures / 255 - mean) / std).transpose(0, 3, 1, 2), dtype=torch.float32)
    tower = theirs.vision_model if whole else theirs
    with torch.no_grad():
        states = tower(pixel_values=pixels, output_hidden_states=True).hidden_states
    teacher = bind(cfg, params).teacher
    for drop in (0, 1):
        np.testing.assert_allclose(teacher(jnp.asarray(pictures), drop), states[-1 - drop], atol=2e-5)


def test_what_is_no_clip(tmp_path):
    folder = folders_v1.write(tmp_path / "eve", "D1")
    with pytest.raises(UserError, match="is no CLIP"):
        describe_teacher(folder)
