"""Gemma 4 Unified next to transformers: logits, greedy answers, both spellings of config.json, and back."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from eve_jax.data.image.patches import resize
from eve_jax.data.image.rule import ImageRule
from eve_jax.errors import UserError
from eve_jax.hf.export_config import check_exported
from eve_jax.infer.engine import Engine, bucket
from eve_jax.infer.prompt import Prompt, pack_prompts
from eve_jax.model import chunked
from eve_jax.model.eve import abstract_params, bind
from eve_jax.weights.import_export import export_checkpoint, import_checkpoint
from eve_jax.weights.open import Checkpoint, open_checkpoint
from tests.weights.gemma import SIDE, TURN, prompt, their_inputs, tiny_gemma, write_gemma

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def assert_close(found: np.ndarray, wanted: np.ndarray) -> None:
    """To 2e-5 of their scale."""
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The model in both spellings, "5" and "4", and in transformers."""
    folder = tmp_path_factory.mktemp("gemma")
    write_gemma(folder / "4", old=True)
    return folder, write_gemma(folder / "5")


def logits(checkpoint: Checkpoint, given: Prompt, **changes: Any) -> np.ndarray:
    """Ours, in causal order."""
    batch, (lengths, _) = pack_prompts([given], bucket(given.need), checkpoint.cfg.patch_bytes)
    found = np.asarray(bind(replace(checkpoint.cfg, **changes), checkpoint.params())(batch))
    return found[0][batch["perm"][0, : lengths[0]]]


GRIDS = {"text": [], "one": [(2, 3)], "longer than the window": [(3, 4)], "several": [(1, 2), (9, 1), (2, 2)]}


CASES = [pytest.param(name, marks=() if name == "several" else pytest.mark.slow) for name in GRIDS]


@pytest.mark.parametrize("name", CASES)
def test_logits(name: str, gemma: tuple[Path, Any]) -> None:
    folder, model = gemma
    ours = open_checkpoint(folder / "5")
    given = prompt(ours.cfg, GRIDS[name])
    with torch.no_grad():
        wanted = model(**their_inputs(given)).logits[0].numpy()
    assert np.abs(wanted).max() > 3, "logits that a wrong model would miss, and the cap bends"
    assert_close(logits(ours, given), wanted)


@pytest.mark.slow
def test_masked_routing_and_chunks_of_queries(gemma: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, model = gemma
    ours = open_checkpoint(folder / "5")
    given = prompt(ours.cfg, [(5, 9), (3, 3), (2, 8)])
    with torch.no_grad():
        wanted = model(**their_inputs(given)).logits[0].numpy()
    assert_close(logits(ours, given, routing="masked"), wanted)
    monkeypatch.setattr(chunked, "QUERY_CHUNK", 32)
    assert_close(logits(ours, given), wanted)


@pytest.mark.slow
def test_greedy_answers_with_a_cache(gemma: tuple[Path, Any]) -> None:
    """Prompts of several sizes in one batch, the cache of global layers folded into that of local ones; two turns."""
    folder, model = gemma
    ours = open_checkpoint(folder / "5")
    engine = Engine(*ours.for_inference())
    given = [prompt(ours.cfg, grids, seed=seed) for seed, grids in enumerate(GRIDS.values())]
    answers = engine.generate(given, 12, [])
    greedy = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    for one, answer in zip(given, answers, strict=True):
        forward = their_inputs(one)
        assert model.generate(**forward, **greedy)[0, -12:].tolist() == answer
    session = engine.session()
    first = engine.reply(session, [given[2]], 4, [])[0]
    further = prompt(ours.cfg, [(3, 3)], seed=9)
    second = engine.reply(session, [further], 6, [])[0]
    ids = np.concatenate([given[2].ids, first, further.ids]).astype(np.int32)
    whole = Prompt(ids, [*given[2].patches, *further.patches], [*given[2].grids, *further.grids], ours.cfg.layout)
    assert engine.generate([whole], 6, [])[0] == second


@pytest.mark.slow
def test_the_other_rule_of_the_library(gemma: tuple[Path, Any]) -> None:
    """With a static cache, images see themselves in local layers alone, and within the window."""
    folder, model = gemma
    ours = open_checkpoint(folder / "5")
    given = prompt(ours.cfg, [(2, 3), (3, 4)])
    how: dict[str, Any] = {"max_new_tokens": 1, "do_sample": False, "output_logits": True, "pad_token_id": 0}
    forward = their_inputs(given)
    found = model.generate(**forward, **how, cache_implementation="static", return_dict_in_generate=True)
    wanted = found.logits[0][0].numpy()
    assert_close(logits(ours, given, image_reach="window")[-1], wanted)
    assert np.abs(logits(ours, given)[-1] - wanted).max() > 1e-2


def test_both_spellings_of_the_config(gemma: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = gemma
    new, old = (open_checkpoint(folder / spelling) for spelling in ("5", "4"))
    assert new.cfg == old.cfg and (new.cfg.wide_head_dim, new.cfg.wide_kv_heads, new.cfg.key_values) == (16, 1, "full")
    assert new.data == {
        **{"image_mode": "gemma", "template": "gemma4", "fit": "shrink", "max_size": 0, "max_aspect": 0.0},
        **{"image_first": False, "patch": SIDE},
    }
    shutil.copytree(folder / "4", tmp_path / "budget")
    (tmp_path / "budget" / "preprocessor_config.json").write_text(json.dumps({"max_soft_tokens": 70}))
    assert open_checkpoint(tmp_path / "budget").data["image_tokens"] == 70
    (tmp_path / "budget" / "processor_config.json").write_text(json.dumps({"image_processor": "x"}))
    with pytest.raises(UserError, match=r"processor_config\.json: image_processor is 'x': expected a section"):
        open_checkpoint(tmp_path / "budget")


def test_what_the_folder_does_not_state_is_refused() -> None:
    check_exported(tiny_gemma())
    with pytest.raises(UserError, match=r"a Hugging Face folder of gemma does not state it"):
        check_exported(tiny_gemma(patch_token=7))


def test_import_and_export(gemma: tuple[Path, Any], tmp_path: Path) -> None:
    """Every bit, every name, and a folder that transformers loads without one missing or left over."""
    folder, model = gemma
    stage = import_checkpoint(str(folder / "4"), tmp_path / "stage", quiet=True)
    out = export_checkpoint(stage, tmp_path / "out", quiet=True)
    before, after = (load_file(place / "model.safetensors") for place in (folder / "5", out))
    assert before.keys() == after.keys() and all(np.array_equal(before[name], after[name]) for name in before)
    load = transformers.Gemma4UnifiedForConditionalGeneration.from_pretrained
    loaded, info = load(out, output_loading_info=True, attn_implementation="eager")
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")), info
    given = their_inputs(prompt(open_checkpoint(out).cfg, GRIDS["one"]))
    with torch.no_grad():
        np.testing.assert_array_equal(loaded(**given).logits, model(**given).logits)
    assert open_checkpoint(out).cfg == open_checkpoint(folder / "5").cfg
    assert open_checkpoint(out).data == open_checkpoint(folder / "5").data


def test_what_is_said_of_audio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gemma(tmp_path / "gemma", audio=True)
    opened = open_checkpoint(tmp_path / "gemma")
    assert opened.params().keys() == abstract_params(opened.cfg).keys()
    assert "audio_config: audio is not read; its matrix is left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("section", "changes", "says"),
    [
        ("text_config", {"num_kv_shared_layers": 2}, r"text_config\.num_kv_shared_layers is 2: expected 0"),
        ("text_config", {"use_bidirectional_attention": "all"}, r"use_bidirectional_attention is 'all': expected 'vis"),
        ("text_config", {"layer_types": ["full_attention"] * 5}, "layer_types is not a list of sliding_attention or"),
        ("text_config", {"layer_types": TURN + TURN[1:] + TURN[:1]}, "layer_types ends with sliding_attention"),
        ("text_config", {"layer_types": TURN[:1] + TURN[2:] + TURN + TURN[2:]}, "layers that do not take turns"),
        ("text_config", {"per_layer_config": {"2": {"head_dim": 16}}}, "per_layer_config is not the same for each"),
        ("text_config", {"global_head_dim": 32}, r"global_head_dim is 32, but 16 in per_layer_config"),
        ("text_config", {"rope_parameters": {"full_attention": {}}}, "rope_parameters is .*: expected sections"),
        ("text_config", {"num_key_value_heads": 1}, "wide_head_dim.*a multiple of the 8 of local layers"),
        ("vision_config", {"pooling_kernel_size": 0}, r"vision_config\.pooling_kernel_size=0: expected a number"),
        ("vision_config", {"output_proj_dims": 32}, r"output_proj_dims is 32: expected mm_embed_dim, 24"),
        ("vision_config", {"rms_norm_eps": 1e-5}, r"vision_config\.rms_norm_eps is 1e-05: expected that of text_con"),
    ],
)
def test_a_config_of_another_model(
    section: str, changes: dict[str, Any], says: str, gemma: tuple[Path, Any], tmp_path: Path
) -> None:
    config = json.loads((gemma[0] / "5" / "config.json").read_text())
    config[section] |= changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=rf"config\.json: .*{says}"):
        open_checkpoint(tmp_path)


def test_pixels_are_nearly_those_of_the_processor() -> None:
    """It resizes bytes by torch's own arithmetic, whose weights have fewer places than Pillow's."""
    rule = ImageRule("gemma", max_aspect=0.0, patch=48, tokens=70)
    for number, (w, h) in enumerate(((97, 61), (640, 480), (50, 700))):
        rng = np.random.default_rng(number)
        image = Image.fromarray(rng.integers(0, 256, (h // 8 + 2, w // 8 + 2, 3), np.uint8)).resize((w, h))
        ours = resize(image, rule).astype(int)
        given = torch.tensor(np.asarray(image).transpose(2, 0, 1)[None].copy())
        size = rule.resized(w, h)[::-1]
        found = torch.nn.functional.interpolate(given, size, mode="bicubic", antialias=True)
        apart = np.abs(found[0].numpy().transpose(1, 2, 0).astype(int) - ours)
        assert apart.max() <= 2 and 0 < (apart > 0).mean() < 0.01
