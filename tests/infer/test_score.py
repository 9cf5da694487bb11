"""Scores: the loss of the unpacked sample whatever the packing, and no record lost in silence."""

import json
import subprocess
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing.flagsaver import flagsaver

from eve_jax import EVE
from eve_jax.batch import RowShape
from eve_jax.data.image.patches import load_patches
from eve_jax.data.plan.lengths import Dropped
from eve_jax.data.rows.build import lay_out
from eve_jax.data.rows.spell import Sample
from eve_jax.data.sources.records import open_records
from eve_jax.data.text.encode import IGNORE, encode_chat
from eve_jax.errors import UserError
from eve_jax.infer import score
from eve_jax.infer.score import ScoreSettings, score_records
from eve_jax.infer.score_files import bad_file, score_files
from eve_jax.model import loss
from eve_jax.model.eve import bind
from eve_jax.model.loss import target_losses
from eve_jax.weights.import_export import import_checkpoint
from eve_jax.weights.open import open_checkpoint
from launch import score as score_command
from tests import reference as ref
from tests.data.synthetic import byte_tokenizer, write_records
from tests.launcher import launch
from tests.weights import folders

FIELDS = ["id", "loss", "nll_sum", "n_target", "n_tokens", "n_vision"]
WIDE = RowShape(64, 32, 512)  # holds any one of the records


@pytest.fixture(autouse=True)
def few_shapes(monkeypatch):
    """Less to compile."""
    monkeypatch.setattr(score, "MAX_SHAPES", 2)


@pytest.fixture(scope="module")
def hf(tmp_path_factory):
    """Golden set A as a Hugging Face folder."""
    return folders.write_hf(tmp_path_factory.mktemp("score") / "hf", *folders.golden())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Ten records with none, one or two images, and more text-only ones; two share an id."""
    folder = tmp_path_factory.mktemp("records")
    path = write_records(folder, 10)
    turns = [{"from": "human", "value": "Say it."}, {"from": "gpt", "value": "So it is said. " * 10}]
    with path.open("a") as file:
        for id in ("r1", "long"):
            file.write(json.dumps({"id": id, "conversations": turns}) + "\n")
    return path, folder / "images"


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def by_definition(hf: Path, data: tuple[Path, Path], settings: ScoreSettings) -> list[dict]:
    """Every record alone, both branches computed and mixed by mask, softmax over the logits of every slot."""
    checkpoint = open_checkpoint(hf)
    model = bind(replace(checkpoint.cfg, routing="masked", remat="none"), checkpoint.params())
    forward = jax.jit(lambda model, batch: model(batch))
    out = []
    for record in open_records(str(data[0]), data[1]):
        encoded = encode_chat(
            record.turns, byte_tokenizer(), settings.rule.template, len(record.images), settings.rule.image_first
        )
        pictures = [load_patches(path, settings.rule.images) for path in record.images]
        row = lay_out([Sample(*encoded, [grid for _, grid in pictures])], WIDE)
        patches = np.concatenate([p for p, _ in pictures] + [np.zeros((WIDE.patches, 3072), np.uint8)])
        batch = ref.stack([{**row, "patches": patches[: WIDE.patches]}])
        logits = np.asarray(forward(model, batch), np.float64)[0, row["perm"]]
        length = int((row["segment"] > 0).sum())
        labels = np.full(length, IGNORE)
        text = row["inv"][WIDE.vision :][: int((encoded.ids >= 0).sum())]  # causal places of the text tokens
        labels[text] = encoded.labels[encoded.ids >= 0]
        logp = logits[: length - 1] - np.logaddexp.reduce(logits[: length - 1], axis=1, keepdims=True)
        learnt = np.flatnonzero(labels[1:] != IGNORE)
        nll = -logp[learnt, labels[1:][learnt]]
        vision = sum(1 + h * (w + 1) for _, (h, w) in pictures)
        out.append(dict(zip(FIELDS, (record.id, nll.mean(), nll.sum(), len(nll), length, vision), strict=True)))
    return out


def assert_same(got: list[dict], expected: list[dict]) -> None:
    assert [list(line) for line in got] == [FIELDS] * len(expected)
    for field in ("id", "n_target", "n_tokens", "n_vision"):
        assert [line[field] for line in got] == [line[field] for line in expected], field
    np.testing.assert_allclose([line["loss"] for line in got], [line["loss"] for line in expected], rtol=0, atol=1e-5)
    for line in got:
        assert line["nll_sum"] == pytest.approx(line["loss"] * line["n_target"])


@pytest.mark.parametrize("template", ["plain", "qwen2"])
def test_each_record_has_the_loss_of_the_sample_alone(hf, data, tmp_path, template):
    settings = ScoreSettings.of(open_checkpoint(hf).data, byte_tokenizer(), template=template)
    assert (settings.rule.images.fit, settings.rule.images.max_size) == ("shrink", 800)
    expected = by_definition(hf, data, settings)
    packings: list[dict[str, Any]] = [{}, {"row_tokens": 1, "rows": 3, "threads": 0}]
    for number, packing in enumerate(packings):
        out = tmp_path / f"{number}.jsonl"
        scores = score_files(hf, str(data[0]), data[1], out, template=template, quiet=True, **packing)
        assert_same(lines(out), expected)
        assert not bad_file(out).exists()
        total = sum(line["nll_sum"] for line in expected) / sum(line["n_target"] for line in expected)
        assert scores.loss == pytest.approx(total, abs=1e-5)
        assert f"12 records, {sum(line['n_tokens'] for line in expected):,} tokens" in scores.summary()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.jsonl", "1.jsonl"]


@pytest.mark.parametrize("targets", [loss.TARGETS, 7])
def test_losses_of_golden_a_by_segment(monkeypatch, targets):
    """Three samples in a row: the sums by segment are those of the golden logits, together the golden loss.

    `targets`: of which logits exist at one time.
    """
    monkeypatch.setattr(loss, "LOGITS", 1)
    monkeypatch.setattr(loss, "TARGETS", targets)
    cfg = ref.config()
    batch, out = ref.distributed_run(), ref.tensors("A_outputs")
    losses = np.asarray(target_losses(bind(cfg, ref.params(cfg)), batch))
    nll, targets = np.zeros(3), np.zeros(3, np.int64)
    score._add_up(batch, losses, [[0, 1, 2]], nll, targets)
    np.testing.assert_allclose(nll.sum() / targets.sum(), out["loss"], atol=5e-6)
    for i in range(3):
        labels, logits = out["labels_expanded"][i, 1:], out["logits"][i, :-1].astype(np.float64)
        learnt = np.flatnonzero(labels != IGNORE)
        picked = logits[learnt, labels[learnt]] - np.logaddexp.reduce(logits[learnt], axis=1)
        assert targets[i] == len(learnt)
        np.testing.assert_allclose(nll[i] / targets[i], -picked.mean(), atol=5e-6)


def test_a_checkpoint_of_ours_and_settings(hf, data, tmp_path):
    ours = import_checkpoint(str(hf), tmp_path / "ours", quiet=True)
    both = [score_files(f, str(data[0]), data[1], tmp_path / "o", quiet=True).lines for f in (hf, ours)]
    assert both[0] == both[1]
    filled = score_files(ours, str(data[0]), data[1], tmp_path / "o", quiet=True, fit="fill", max_size=96).lines
    assert [line.n_vision for line in filled[:3]] == [0, *(line.n_vision for line in filled[1:3])]
    assert filled[0] == pytest.approx(both[0][0])
    assert {line.n_vision for line in filled} != {line.n_vision for line in both[0]}
    halves = score_files(ours, str(data[0]), data[1], tmp_path / "o", dtype="bfloat16", quiet=True).lines
    differences = [abs(a.loss - b.loss) for a, b in zip(halves, both[0], strict=True)]
    assert 0 < max(differences) < 0.1


def test_what_cannot_be_scored_is_listed(hf, data, tmp_path, monkeypatch):
    good = lines(data[0])
    turns = good[0]["conversations"]
    (tmp_path / "images").mkdir()
    for record in good:
        for name in [record.get("image", [])] if isinstance(record.get("image"), str) else record.get("image", []):
            (tmp_path / "images" / name).write_bytes((data[1] / name).read_bytes())
    (tmp_path / "images" / "late.png").write_bytes((data[1] / "1_0.png").read_bytes())
    records = tmp_path / "mixed.jsonl"
    mixed = [
        json.dumps(good[3]),
        '{"id": "cut", "conver',
        json.dumps({"id": "gone", "image": "nowhere.png", "conversations": turns}),
        json.dumps({"id": "mute", "conversations": [turns[0], {"from": "gpt", "value": ""}]}),
        json.dumps({"id": "late", "image": "late.png", "conversations": turns}),
        json.dumps(good[1]),
        json.dumps(good[11]),
    ]
    records.write_text("\n".join(mixed) + "\n")
    measure = score.measure

    def then_break(*args):
        lengths = measure(*args)
        (tmp_path / "images" / "late.png").write_bytes(b"no picture any more")
        return lengths

    monkeypatch.setattr(score, "measure", then_break)
    out = tmp_path / "scores.jsonl"
    scores = score_files(hf, str(records), tmp_path / "images", out, template="qwen2", max_tokens=300, quiet=True)
    assert [line["id"] for line in lines(out)] == ["r3", "r1"]
    bad = lines(bad_file(out))
    assert [(b["id"], b["where"].rsplit(":", 1)[1]) for b in bad] == [
        ("cut", "2"),
        ("gone", "3"),
        ("mute", "4"),
        ("late", "5"),
        ("long", "7"),
    ]
    for entry, reason in zip(bad, ("JSON", "missing", "nothing to learn", "not an image", "too long"), strict=True):
        assert reason in entry["reason"]
    assert bad[3]["image"] == str(tmp_path / "images" / "late.png")
    alone = score_files(hf, str(data[0]), data[1], tmp_path / "all", template="qwen2", quiet=True).lines
    assert [line.loss for line in scores.lines] == pytest.approx([alone[3].loss, alone[1].loss], abs=1e-5)

    records.write_text(mixed[0] + "\n")
    score_files(hf, str(records), data[1], out, quiet=True)
    assert not bad_file(out).exists()  # the list of the run before is gone with its scores
    records.write_text(mixed[3] + "\n")
    with pytest.raises(UserError, match=r"none of the 1 record can be scored; the first, .*mixed\.jsonl:1: nothing"):
        score_files(hf, str(records), data[1], out, quiet=True)
    assert [b["id"] for b in lines(bad_file(out))] == ["mute"]
    assert [line["id"] for line in lines(out)] == ["r3"]  # what was there stays


@pytest.mark.parametrize("rows", [1, 3])
def test_a_loss_that_is_no_number_is_listed(hf, data, rows):
    """Records with the letter S, whose embedding is broken, and none of those that share their rows."""
    checkpoint, tokenizer = open_checkpoint(hf), byte_tokenizer()
    params = checkpoint.params()
    records = open_records(str(data[0]), data[1])
    settings = ScoreSettings.of(checkpoint.data, tokenizer, row_tokens=1024, rows=rows, template="plain")
    whole = score_records(checkpoint.cfg, params, records, settings, quiet=True)
    params["embed"] = params["embed"].at[tokenizer.encode("S")[0]].set(np.nan)
    scores = score_records(checkpoint.cfg, params, records, settings, quiet=True)
    spoilt = {r.where for r in records if any("S" in turn.text for turn in r.turns if turn.role == "gpt")}
    assert 0 < len(spoilt) < len(records)
    assert {b.where for b in scores.bad} == spoilt
    assert {b.reason.split(";")[0] for b in scores.bad} == {"its loss is nan: its activations are not finite"}
    assert all("embed is NaN or infinite in 64 of its 20,480" in b.reason for b in scores.bad)
    same = [line for r, line in zip(records, whole.lines, strict=True) if r.where not in spoilt]
    assert [line._replace(loss=0, nll_sum=0) for line in scores.lines] == [
        line._replace(loss=0, nll_sum=0) for line in same
    ]
    np.testing.assert_allclose([line.loss for line in scores.lines], [line.loss for line in same], rtol=0, atol=1e-5)


def test_texts_beside_images_that_are_not_finite(hf, data):
    """Vision weights that are NaN: every record without an image has the loss that it has with sound weights."""
    checkpoint, tokenizer = open_checkpoint(hf), byte_tokenizer()
    params = checkpoint.params()
    records = open_records(str(data[0]), data[1])
    settings = ScoreSettings.of(checkpoint.data, tokenizer, row_tokens=1024, template="qwen2")
    whole = score_records(checkpoint.cfg, params, records, settings, quiet=True)
    params["layers.attn.v.vision.kernel"] *= np.nan
    scores = score_records(checkpoint.cfg, params, records, settings, quiet=True)
    expected = [line for line in whole.lines if not line.n_vision]
    assert [b.where for b in scores.bad] == [
        r.where for r, line in zip(records, whole.lines, strict=True) if line.n_vision
    ]
    assert 2 < len(expected) < len(whole.lines)
    np.testing.assert_allclose([line.loss for line in scores.lines], [line.loss for line in expected], atol=1e-5)
    assert [line.id for line in scores.lines] == [line.id for line in expected]


def test_places_that_cannot_be_written(hf, data, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    wrong = {
        tmp_path / "nowhere" / "scores.jsonl": "there is no folder .*nowhere; make it first",
        tmp_path / "file" / "scores.jsonl": "there is no folder",
        tmp_path / "folder": "is a folder; name a file",
        data[0]: "is the file of records itself",
        Path("/proc/scores.jsonl"): "--out=/proc/scores.jsonl cannot be written: ",
    }
    for out, message in wrong.items():
        with pytest.raises(UserError, match=message):
            score_files("/nonexistent/checkpoint", str(data[0]), data[1], out)
    for arguments in ((tmp_path / "folder", data[0]), (hf, tmp_path / "no.jsonl")):
        with pytest.raises(UserError, match=r"no config\.json|no such"):
            score_files(arguments[0], str(arguments[1]), data[1], tmp_path / "scores.jsonl")
    with pytest.raises(UserError, match="template"):
        score_files(hf, str(data[0]), data[1], tmp_path / "scores.jsonl", template="nonsense")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_command_line(hf, data, tmp_path):
    def run(*more: str) -> subprocess.CompletedProcess:
        return launch("launch.score", f"--checkpoint={hf}", f"--records={data[0]}", *more, COLUMNS="200")

    out = tmp_path / "scores.jsonl"
    done = run(f"--images={data[1]}", f"--out={out}", "--template=qwen2", "--fit=shrink", "--max_size=96")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "scored 12 records" in done.stderr and "records/s" not in done.stderr  # a bar is for terminals
    assert [line["id"] for line in lines(out)] == [*(f"r{n}" for n in range(10)), "r1", "long"]
    failed = run(f"--images={tmp_path / 'nowhere'}", f"--out={out}")
    assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)
    assert failed.stderr.startswith("error: ") and "--images" in failed.stderr


@pytest.mark.parametrize(("scored", "broken", "fails"), [(1, 2, True), (1, 1, False), (2, 1, False), (3, 0, False)])
def test_a_score_of_few_records_fails(tmp_path, monkeypatch, scored, broken, fails):
    """As training does at its end where more than half of the samples broke; what was scored is kept."""
    out = tmp_path / "out.jsonl"
    bad = [Dropped(f"f.jsonl:{n + 4}", "x", "", "missing file") for n in range(broken)]
    scores = score.Scores([score.Score("r", 1.0, 2.0, 2, 3, 0)] * scored, bad)
    monkeypatch.setattr("eve_jax.infer.score_files.score_files", lambda *args, **changes: scores)
    monkeypatch.setattr("eve_jax.process.setup.setup", lambda computes: None)
    flags.FLAGS.mark_as_parsed()
    given = flagsaver(checkpoint="c", records="r", out=str(out))
    with given, pytest.raises(UserError) if fails else nullcontext() as error:
        score_command.main()
    if error is not None:
        assert str(error.value) == (
            f"2 of 3 records cannot be scored; the first, f.jsonl:4: missing file; all are listed in {out}.bad.jsonl, "
            f"the scores of the others are in {out}. Fix the records and score again"
        )


@pytest.mark.parametrize("kernel", ["flash", "splash"])
def test_a_checkpoint_trained_with_the_kernel_of_another_processor(hf, data, tmp_path, kernel):
    """Answers and losses take the kernel for the devices that they are on, as config.model.attention=auto does."""
    ours = import_checkpoint(str(hf), tmp_path / "ours", quiet=True)
    config = json.loads((ours / "config.json").read_text())
    config["model"]["attention"] = kernel
    (ours / "config.json").write_text(json.dumps(config))
    eve, known = EVE.from_pretrained(ours), EVE.from_pretrained(hf)
    assert eve.engine.cfg == known.engine.cfg
    assert eve.generate("Why?", max_new_tokens=3) == known.generate("Why?", max_new_tokens=3)
    scored = [score_files(f, str(data[0]), data[1], tmp_path / "out", template="qwen2", quiet=True) for f in (hf, ours)]
    assert scored[0].lines == scored[1].lines
