"""An exported folder in `transformers`: our logits, loss and greedy tokens, and no name missing or left over."""

import numpy as np
import pytest
from PIL import Image

from eve_jax.checkpoint.own_tokenizer import own_tokenizer
from eve_jax.data.image.patches import patchify
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.record import Turn
from eve_jax.data.text.encode import prompt_ids
from eve_jax.infer.engine import Engine, bucket
from eve_jax.infer.prompt import Prompt, pack_prompts
from eve_jax.model.eve import bind
from eve_jax.model.loss import loss_sums
from eve_jax.weights.import_export import export_checkpoint, import_checkpoint
from eve_jax.weights.open import Checkpoint, open_checkpoint
from tests import reference as ref
from tests.weights import folders

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
GREEDY = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False}


@pytest.fixture(scope="module", params=["untied", "tied", "dense", "rep", "folded"])
def pair(request, tmp_path_factory):
    """An exported folder's model in PyTorch and the checkpoint it was exported from."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp(request.param)
    parts = "" if request.param == "dense" else "layernorm-self_attn-mlp"
    llama = request.param in ("rep", "folded")
    golden = folders.golden_llama() if llama else folders.golden(parts, request.param == "tied")
    hf = folders.write_hf(folder / "hf", *golden)
    ours = import_checkpoint(str(hf), folder / "ours", quiet=True)
    out = export_checkpoint(ours, folder / "out", folded=request.param == "folded", quiet=True)
    load = transformers.AutoModelForCausalLM.from_pretrained
    model, info = load(out, trust_remote_code=True, output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")), info
    return model.eval(), open_checkpoint(out if request.param == "folded" else ours), request.param


def inputs():
    """Ids, mask, labels and the two images of golden set A."""
    data = ref.tensors("A_inputs")
    ids, labels = (torch.tensor(data[k]) for k in ("input_ids", "labels"))
    images = [torch.tensor(data[f"pixel_values_{i}"]) for i in (0, 1)]
    return ids, torch.tensor(data["attention_mask"].astype(np.int64)), labels, images


def test_logits_and_loss(pair):
    model, checkpoint, name = pair
    ids, mask, labels, images = inputs()
    with torch.no_grad():
        out = model(ids, images=images, attention_mask=mask, labels=labels)
    batch = ref.alone()
    ours = bind(checkpoint.cfg, checkpoint.params())
    logits = ours(batch)
    for i, length in enumerate(ref.LENGTHS):
        mine = ref.in_causal_order(batch, logits, i, 0, length)
        np.testing.assert_allclose(out.logits[i, :length], mine, atol=2e-5)
    total, targets = loss_sums(ours, batch)
    np.testing.assert_allclose(out.loss, total / targets, atol=5e-6)
    if name == "untied":
        np.testing.assert_allclose(out.loss, ref.tensors("A_outputs")["loss"], atol=5e-6)
        np.testing.assert_allclose(out.logits[0], ref.tensors("A_outputs")["logits"][0], atol=2e-5)
        assert list(model.state_dict()) == ref.read_json("A_meta")["parameter_names"]
    if name in ("rep", "folded"):
        np.testing.assert_allclose(out.logits[0], ref.tensors("C_outputs")["moe.logits"][0], atol=2e-5)
        names = ref.read_json("C_meta")["parameter_names" if name == "rep" else "dense_parameter_names"]
        assert sorted(model.state_dict()) == sorted(names)


def test_gradients(pair):
    model, _, name = pair
    if name != "untied":
        pytest.skip("golden gradients are those of A")
    ids, mask, labels, images = inputs()
    model.zero_grad()
    model(ids, images=images, attention_mask=mask, labels=labels).loss.backward()
    grads = {k: p.grad for k, p in model.named_parameters()}
    for key, golden in ref.tensors("A_grads").items():
        np.testing.assert_allclose(grads[key], golden, rtol=0, atol=1e-5 * np.abs(golden).max(), err_msg=key)


def test_greedy_tokens(pair):
    model, checkpoint, name = pair
    ids, _, _, images = inputs()
    pictures = [patchify(ref.tensors("A_inputs")["image_uint8_0"])]
    prompts = [
        Prompt(ids[0, :14].numpy().astype(np.int32), pictures, ref.GRIDS[0]),
        Prompt(ids[2, :6].numpy().astype(np.int32)),
    ]
    ours = Engine(checkpoint.cfg, checkpoint.params()).generate(prompts, 12, [])
    settings = GREEDY | {"eos_token_id": None}
    assert model.generate(ids[:1, :14], images=images[:1], **settings)[0].tolist() == ours[0]
    for cached in (True, False):  # transformers generates from embeddings, so with images, with a cache alone
        assert model.generate(ids[2:3, :6], use_cache=cached, **settings)[0, 6:].tolist() == ours[1]
    if name == "untied":
        assert ours == [ref.read_json("A_generate")[tag]["new_tokens"] for tag in ("image", "text")]


def test_a_batch_of_prompts(pair):
    """Different lengths and numbers of images: each row answers as if it were alone."""
    model, _, _ = pair
    ids, _, _, images = inputs()
    rows = [ids[0, :14], ids[1, :4], ids[2, :6]]
    alone = [
        model.generate(row[None], images=pictures, eos_token_id=None, **GREEDY)[0, -12:].tolist()
        for row, pictures in zip(rows, ([images[0]], [images[1]], None), strict=True)
    ]
    padded = torch.full((3, 14), 319)
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = values
    got = model.generate(padded, images=images, attention_mask=(padded != 319).long(), eos_token_id=None, **GREEDY)
    assert got.tolist() == alone


def test_last_logits_alone(pair):
    model, _, _ = pair
    ids, _, _, images = inputs()
    whole, last = (model(ids[:1, :14], images=images[:1], logits_to_keep=keep) for keep in (0, 1))
    assert whole.loss is None and last.loss is None
    torch.testing.assert_close(last.logits, whole.logits[:, -1:])


def test_a_model_of_a_config_alone(pair):
    """Made with weights at random and not by `from_pretrained`, which makes models without memory first."""
    model = type(pair[0])(pair[0].config)
    assert {n: p.shape for n, p in model.named_parameters()} == {n: p.shape for n, p in pair[0].named_parameters()}
    assert torch.equal(model.model.norm.weight, torch.ones_like(model.model.norm.weight))
    ids, mask, _, images = inputs()
    with torch.no_grad():
        assert torch.isfinite(model(ids, images=images, attention_mask=mask).logits).all()


def test_wrong_number_of_images(pair):
    model, _, _ = pair
    with pytest.raises(ValueError, match="name 1 images, 0 are given"):
        model(torch.tensor([[5, -200, 7]]))


@pytest.mark.parametrize("fill", [True, False])
def test_preprocess_is_our_image_rule(pair, fill):
    model, _, _ = pair
    for size in ((57, 57), (31, 47), (1000, 400)):
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
        pixels = model.preprocess(image, fill=fill)
        width, height = ImageRule("anyratio_ld", "fill" if fill else "shrink").resized(*image.size)
        assert pixels.shape == (3, height, width)
    data = ref.tensors("A_inputs")
    got = model.preprocess(Image.fromarray(data["image_uint8_0"]), fill=False)
    np.testing.assert_allclose(got, data["pixel_values_0"], atol=1e-6)


def text_logits(checkpoint: Checkpoint, ids: np.ndarray) -> np.ndarray:
    """Our logits of one row of text."""
    prompt = Prompt(ids.astype(np.int32))
    batch, (lengths, _) = pack_prompts([prompt], bucket(prompt.need))
    logits = bind(checkpoint.cfg, checkpoint.params())(batch)
    return ref.in_causal_order(batch, logits, 0, 0, int(lengths[0]))


LLAMA31 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,
}


@pytest.mark.parametrize(
    ("kind", "tied", "scaling"),
    [("qwen2", False, None), ("qwen2", True, None), ("llama", False, None), ("llama", True, LLAMA31)],
)
def test_plain_llm_agrees_with_transformers(tmp_path, kind, tied, scaling):
    tensors, config = folders.plain(kind, tied)
    hf = folders.write_hf(tmp_path / "hf", tensors, config | ({"rope_scaling": scaling} if scaling else {}))
    ids = np.random.default_rng(1).integers(0, 320, 20)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(hf).eval()
    with torch.no_grad():
        logits = theirs(torch.tensor(ids)[None]).logits[0].numpy()
    checkpoint = open_checkpoint(hf, "dac")
    np.testing.assert_allclose(text_logits(checkpoint, ids), logits, atol=2e-5)
    resaved = tmp_path / "resaved"  # config.json as the installed release writes it
    theirs.save_pretrained(resaved)
    assert open_checkpoint(resaved, "dac").cfg == checkpoint.cfg
    text = export_checkpoint(hf, tmp_path / "text", text_only=True, quiet=True)
    again = transformers.AutoModelForCausalLM.from_pretrained(text).eval()
    assert type(again) is type(theirs)
    with torch.no_grad():
        np.testing.assert_array_equal(again(torch.tensor(ids)[None]).logits[0], logits)


def test_saved_by_transformers_and_tokenized(pair, tmp_path):
    model, checkpoint, _ = pair
    model.save_pretrained(tmp_path / "saved")
    back = open_checkpoint(tmp_path / "saved")
    assert back.cfg == checkpoint.cfg
    folders.same(back.params(), checkpoint.params())
    export_checkpoint(checkpoint.folder, tmp_path / "out", quiet=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out", trust_remote_code=True)
    assert tokenizer.decode(tokenizer("Why?").input_ids) == "Why?"
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Why <image>?"}]}]
    ours = prompt_ids(
        [Turn("human", "<image>\nWhy \\<image>?")], own_tokenizer(tmp_path / "out"), checkpoint.data["template"], 1
    )
    assert model.prompt_ids(tokenizer, asked, 1).tolist() == [ours.tolist()]
