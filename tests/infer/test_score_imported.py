"""Scores of imported EVE models without any flag are the original's: tokens, targets and losses of the goldens."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eve_jax.data.image.rule import ImageRule
from eve_jax.data.text.encode import IMAGE_ID
from eve_jax.errors import UserError
from eve_jax.infer.api import EVE
from eve_jax.infer.score import Score
from eve_jax.infer.score_files import score_files
from eve_jax.weights.import_export import export_checkpoint, import_checkpoint
from eve_jax.weights.open import open_checkpoint
from tests import reference as ref
from tests.data.test_golden_chat import REGULAR, VERSIONS
from tests.infer import originals
from tests.vocab import llama3_tokenizer, qwen2_tokenizer
from tests.weights import folders, folders_v1

HEAD, EMBED = "lm_head.weight", "model.embed_tokens.weight"

PARTS = {"mlp": "mlp", "dense": "", "self_attn_mlp": "self_attn-mlp", "layernorm_only": "layernorm"}
SLOW = ("self_attn_mlp", "layernorm_only")
HEAD, EMBED = "lm_head.weight", "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Files of records of the sets' inputs."""
    folder = tmp_path_factory.mktemp("records")
    return {name: originals.golden_records(folder / name, name) for name in ("A", "D1", "D2")}


def scored(checkpoint: Path, records: Path, **changes: Any) -> list[Score]:
    """Lines of `score_files`, read back from its file."""
    out = checkpoint.parent / f"{checkpoint.name}.scores"
    scores = score_files(checkpoint, str(records), records.parent, out, quiet=True, **changes)
    assert not scores.bad
    return [Score(**json.loads(line)) for line in out.read_text().splitlines()]


def assert_golden(lines: list[Score], name: str, outputs: str, logits: str, loss: float) -> None:
    """Every sample's counts and loss are those of the golden logits, all together the golden loss."""
    images = [9, 7] if name == "A" else ref.read_json(f"{name}_meta")["image_token_counts"][:2]
    golden = originals.expected(outputs, logits)
    for line, (length, mean, targets), vision in zip(lines, golden, [*images, 0], strict=True):
        assert (line.n_tokens, line.n_target, line.n_vision) == (length, targets, vision)
        assert line.loss == pytest.approx(mean, abs=5e-6)
    assert sum(s.nll_sum for s in lines) / sum(s.n_target for s in lines) == pytest.approx(loss, abs=5e-6)


def three_ways(hf: Path, records: Path) -> list[Score]:
    """Scores of the folder, of its import and of that one's export, which are the same."""
    ours = import_checkpoint(str(hf), hf.parent / f"{hf.name}-ours", quiet=True)
    out = export_checkpoint(ours, hf.parent / f"{hf.name}-out", quiet=True)
    again = import_checkpoint(str(out), hf.parent / f"{hf.name}-again", quiet=True)
    assert [open_checkpoint(f).data for f in (ours, out, again)] == [open_checkpoint(hf).data] * 3
    lines = scored(hf, records)
    assert scored(ours, records) == lines
    assert scored(out, records) == lines
    return lines


def test_evev2_on_qwen2(tmp_path, records):
    hf = originals.write_original(tmp_path / "hf", *folders.golden())
    assert open_checkpoint(hf).data == {
        "image_mode": "anyratio_ld",
        "max_size": 800,
        "max_aspect": 0.0,
        "fit": "shrink",
        "template": "qwen2",
        "image_first": True,
    }
    lines = three_ways(hf, records["A"])
    assert_golden(lines, "A", "A_outputs", "logits", float(ref.tensors("A_outputs")["loss"]))


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.slow) if c in SLOW else c for c in PARTS])
def test_other_parts_among_them_v1_5(tmp_path, records, case):
    hf = originals.write_original(tmp_path / "hf", *folders.golden(PARTS[case]))
    loss = float(ref.tensors("B_outputs")[f"{case}.loss"])
    assert_golden(scored(hf, records["A"]), "A", "B_outputs", f"{case}.logits", loss)


@pytest.mark.parametrize("case", ["moe", "dense", "dense_rope_llama3"])
def test_evev2_on_llama3(tmp_path, records, case):
    tensors, config = folders.golden_llama(deltas=case == "moe")
    if case == "dense_rope_llama3":
        config |= {"rope_scaling": ref.read_json("C_meta")["rope_scaling_of_dense_rope_llama3"]}
    hf = originals.write_original(tmp_path / "hf", tensors, config)
    assert open_checkpoint(hf).data["template"] == "llama3"
    loss = float(ref.tensors("C_outputs")[f"{case}.loss"])
    lines = three_ways(hf, records["A"]) if case == "dense_rope_llama3" else scored(hf, records["A"])
    assert_golden(lines, "A", "C_outputs", f"{case}.logits", loss)


def test_tied_embeddings(tmp_path, records):
    """The same as a model with a head of its own that holds the embeddings."""
    tensors, config = folders.golden()
    double = tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}
    untied = originals.write_original(tmp_path / "untied", double, config)
    tied = originals.write_original(tmp_path / "tied", *folders.golden(tied=True))
    for a, b in zip(scored(tied, records["A"]), scored(untied, records["A"]), strict=True):
        assert a[3:] == b[3:]
        assert a.loss == pytest.approx(b.loss, abs=5e-6)


def test_one_kv_head(tmp_path, records):
    """The same as a model of two key and value heads that are alike."""
    tensors, config = folders.golden()
    one, two = dict(tensors), dict(tensors)
    for name in tensors:
        if ".k_proj" in name or ".v_proj" in name or "moe_k_proj" in name or "moe_v_proj" in name:
            head = np.ascontiguousarray(tensors[name][:16])
            one[name], two[name] = head, np.concatenate([head, head])
    single = originals.write_original(tmp_path / "one", one, config | {"num_key_value_heads": 1})
    double = originals.write_original(tmp_path / "two", two, config)
    for a, b in zip(three_ways(single, records["A"]), scored(double, records["A"]), strict=True):
        assert a[3:] == b[3:]
        assert a.loss == pytest.approx(b.loss, abs=5e-6)


@pytest.mark.parametrize("name", [pytest.param("D1", marks=pytest.mark.slow), "D2"])
def test_evev1(tmp_path, records, name):
    """Teachers of 56/14 and 20/4."""
    both = ref.read_json(f"{name}_config")
    preprocessor = both["eve_preprocessor"]
    hf = originals.write_original(tmp_path / "hf", ref.tensors(f"{name}_weights"), both["model"], preprocessor)
    data = open_checkpoint(hf).data
    assert data == {
        "image_mode": "square",
        "max_size": preprocessor["image_size"],
        "max_aspect": 0.0,
        "fit": "shrink",
        "template": "v1",
        "image_first": True,
        "patch": 2 * preprocessor["patch_stride"],
        "teacher": [preprocessor["image_size_clip"], preprocessor["patch_stride_clip"]],
    }
    loss = ref.read_json(f"{name}_meta")["llm_loss"]
    assert_golden(three_ways(hf, records[name]), name, f"{name}_outputs", "logits", loss)


def caption(images: Any, question: str, *more: str) -> dict[str, Any]:
    """A record of A's tokens."""
    turns = zip(["human", "gpt"] * 2, [question, "{209} {290}!", *more], strict=False)
    return {"image": images, "conversations": [{"from": f, "value": v} for f, v in turns]}


def test_long_images_and_the_order_of_images(tmp_path):
    """1500x90 pixels are 145 vision tokens in the original; an image goes to the front of its own turn."""
    hf = originals.write_original(tmp_path / "hf", *folders.golden())
    rng = np.random.default_rng(0)
    for name, size in {"long.png": (1500, 90), "a.png": (64, 32), "b.png": (32, 96)}.items():
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(tmp_path / name)
    answer = "{20} {21}!"
    pairs = [  # as it is written, and with what comes first written first
        (caption("a.png", "{1} {2} <image> {3}"), caption("a.png", "<image>{1} {2} {3}")),
        (caption("a.png", "{1}", "{2} {3}<image>", answer), caption("a.png", "{1}", "<image> {2} {3}", answer)),
        (
            caption(["a.png", "b.png"], "{1} <image> {2} <image>"),
            caption(["a.png", "b.png"], "<image> <image> {1} {2}"),
        ),
        (
            caption(["a.png", "b.png"], "{1} <image>", "{2} <image> {3}", answer),
            caption(["a.png", "b.png"], "<image> {1}", "<image> {2} {3}", answer),
        ),
        (caption("long.png", "<image> {5}"), caption("long.png", "{5}")),
    ]
    records = tmp_path / "records.jsonl"
    records.write_text("".join(json.dumps(record) + "\n" for pair in pairs for record in pair))
    lines = scored(hf, records)
    for written, first in zip(lines[::2], lines[1::2], strict=True):
        assert written[3:] == first[3:]
        assert written.loss == pytest.approx(first.loss, abs=5e-6)
    assert [line.n_vision for line in lines[::2]] == [4, 4, 11, 11, 145]
    squeezed = scored(hf, records, max_aspect=8.0)
    assert [line.n_vision for line in squeezed[::2]] == [4, 4, 11, 11, 133]
    in_place = scored(hf, records, image_first=False)
    assert abs(in_place[0].loss - lines[0].loss) > 1e-3
    assert in_place[1].loss == pytest.approx(lines[1].loss, abs=5e-6)
    filled = scored(hf, records, fit="fill", max_size=96)
    assert filled[0].n_vision == 1 + 3 * 6  # 135.8 x 67.9 pixels, rounded up


def save_spm(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    shutil.copyfile(ref.GOLDEN / "F_v1_spm.model", folder / "tokenizer.model")
    (folder / "tokenizer_config.json").write_text('{"legacy": true}')


# Version of golden set F -> the folder's weights and config, and what saves the tokenizer there.
TEMPLATES: dict[str, tuple[Callable[[], tuple[folders.Tensors, dict]], Callable[[Path], None]]] = {
    "v1_legacy_True": (lambda: folders_v1.golden("D1", aligning=False), save_spm),
    "qwen2": (folders.golden, lambda folder: qwen2_tokenizer().save(folder)),
    "llama3": (lambda: folders.golden_llama(deltas=False), lambda folder: llama3_tokenizer().save(folder)),
}


@pytest.mark.parametrize(
    "version", ["v1_legacy_True", *(pytest.param(v, marks=pytest.mark.slow) for v in ("qwen2", "llama3"))]
)
def test_conversations_of_golden_f(tmp_path, version):
    """Tokens and targets of real vocabularies, by the template that the folder implies."""
    (tensors, config), save = TEMPLATES[version][0](), TEMPLATES[version][1]
    vocab = {"v1_legacy_True": 900, "qwen2": 151_646, "llama3": 128_256}[version]
    rng = np.random.default_rng(0)
    grown = {n: rng.normal(0, 0.1, (vocab, 64)).astype(np.float32) for n in (EMBED, HEAD)}
    hf = originals.write_original(tmp_path / "hf", tensors | grown, config | {"vocab_size": vocab})
    save(hf)
    golden = VERSIONS[version][0]
    names = [name for v, name in REGULAR if v == version and "__without" not in name]
    Image.new("RGB", (64, 64)).save(tmp_path / "x.jpg")
    records = tmp_path / "records.json"
    records.write_text(json.dumps([golden["conversations"][name] for name in names]))
    lines = scored(hf, records)
    for line, name in zip(lines, names, strict=True):
        result = golden["results"][version][name]
        assert line.n_target == result["n_target"], name
        assert line.n_tokens - line.n_vision == sum(id >= 0 for id in result["input_ids"]), name
        assert bool(line.n_vision) == (-200 in result["input_ids"]), name


def test_answers_follow_the_conventions_too(tmp_path):
    """The inference rule, without a cap on the aspect ratio, and images at the front of every turn; flags override."""
    hf = originals.write_original(tmp_path / "hf", *folders.golden())
    ours = import_checkpoint(str(hf), tmp_path / "ours", quiet=True)
    image = Image.new("RGB", (64, 32))
    for folder in (hf, ours):
        eve = EVE.from_pretrained(folder, max_size=64)
        assert eve.rule.images == ImageRule("anyratio_ld", "fill", 64, 0.0)
        assert eve.prompt("{1} <image> {2}", image).ids.tolist() == [IMAGE_ID, 1, 2]
        chat = eve.chat()
        chat.ask("{3} <image>", image, max_new_tokens=2)
        assert chat._prompt("{4} <image> {5}", image).ids.tolist() == [318, IMAGE_ID, 4, 5]
    eve = EVE.from_pretrained(hf, max_aspect=8.0, image_first=False)
    assert eve.rule.images == ImageRule("anyratio_ld", "fill", 800, 8.0)
    assert eve.prompt("{1} <image> {2}", image).ids.tolist() == [1, IMAGE_ID, 2]
    with pytest.raises(UserError, match="llama3"):
        EVE.from_pretrained(hf, template="llama3")


def test_samples_past_the_limit_that_the_original_states(tmp_path, records):
    tensors, config = folders.golden()
    limited = config | {"tokenizer_model_max_length": 20}
    hf = originals.write_original(tmp_path / "hf", tensors, limited)
    for folder in (hf, import_checkpoint(str(hf), tmp_path / "ours", quiet=True)):
        scores = score_files(folder, str(records["A"]), records["A"].parent, tmp_path / "out", quiet=True)
        assert [line.id for line in scores.lines] == ["1", "2"]
        assert [(bad.id, "too long" in bad.reason) for bad in scores.bad] == [("0", True)]
    assert len(scored(hf, records["A"], max_tokens=0)) == 3
