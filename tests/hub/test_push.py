"""An export on the hub: the card that the run makes, what is uploaded, and that transformers and eve_jax load it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from configs import base
from eve_jax.config.stage import Config
from eve_jax.errors import UserError
from eve_jax.infer.api import EVE
from eve_jax.process.hub import find_folder, front_matter, make_repository, push
from eve_jax.train.model_card import stages_of, write_card
from eve_jax.weights.base_config import keep_base, moved_paths
from eve_jax.weights.base_facts import base_facts
from eve_jax.weights.import_export import export_checkpoint, import_checkpoint, make_whole
from tests.hub.server import Hub
from tests.launcher import launch
from tests.weights import folders

ID, BASE = "me/seer", "org/tiny-1.5B"


@pytest.fixture
def commit(hub: Hub, tmp_path: Path) -> str:
    """A base on the hub, with a license of its own name."""
    folder = folders.write_hf(tmp_path / "of_the_hub", *folders.plain("qwen2"))
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: tiny-license\nlicense_link: LICENSE\n---\n")
    return hub.add(BASE, folder)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base as a checkpoint of ours."""
    folder = tmp_path_factory.mktemp("base")
    hf = folders.write_hf(folder / "hf", *folders.plain("qwen2"))
    return import_checkpoint(str(hf), folder / "ours", quiet=True)


@pytest.fixture
def stage(imported: Path, commit: str, tmp_path: Path) -> Path:
    """The folder of a second stage, with what training leaves of numbers, after a first one of that base."""
    first, second = (Path(shutil.copytree(imported, tmp_path / "runs" / name)) for name in ("stage1", "stage3"))
    config = base.get_config(BASE, "dense")
    config.name, config.stage = "stage1", "1"
    config.data.records = "hf:org/talks@" + "0" * 40 + ",/home/me/private/captions.jsonl"
    write_run(first, Config.of(config), [3.0, 2.0])
    config.name, config.stage, config.init, config.optim.groups.patch_embed = "stage3", "3", str(first), 0.1
    write_run(second, Config.of(config), [2.0, 1.5], {"step": 2, "eval/loss": 1.25})
    return second


def write_run(folder: Path, config: Config, losses: list[float], *evaluated: dict[str, float]) -> None:
    """Write what a run leaves in the folder of its stage, next to a checkpoint."""
    for name in ("base.json", "hf_config.json"):
        (folder / name).unlink()
    keep_base(folder, config)
    (folder / "config.json").write_text(config.to_json())
    lines: list[dict[str, float]] = [{"step": step, "loss": loss} for step, loss in enumerate(losses, 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (*lines, *evaluated)))
    names = config.data.records.split(",")
    sources = [{"name": name, "records": 40, "samples": 20, "share": 0.5} for name in names]
    (folder / "plan").mkdir()
    (folder / "plan" / "plan.json").write_text(json.dumps({"steps": 2, "samples": 40, "sources": sources}))
    (folder / "report.png").write_bytes(b"\x89PNG curves")


def test_what_is_known_of_the_base_goes_with_a_stage(stage: Path, commit: str, tmp_path: Path) -> None:
    facts = {
        "name": BASE,
        "commit": commit,
        "license": "other",
        "license_name": "tiny-license",
        "license_link": "LICENSE",
    }
    assert base_facts(stage) == base_facts(find_folder(BASE)) == facts
    assert [folder.name for folder in stages_of(stage)] == ["stage1", "stage3"]
    whole = make_whole(stage, tmp_path / "whole", quiet=True)
    assert base_facts(whole) == facts and moved_paths(whole, tmp_path)
    nameless = folders.write_hf(tmp_path / "nameless", *folders.plain("qwen2"))
    assert base_facts(nameless) == {"name": "nameless", "commit": ""}


def test_the_card(stage: Path, commit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, report = tmp_path / "out", tmp_path / "scores"
    out.mkdir()
    report.mkdir()
    entry = {"benchmark": "mme", "protocol": "eve", "headline": 1500.25, "interval": [1490.0, 1510.0]}
    (report / "report.json").write_text(json.dumps({"tasks": {"a": entry, "b": entry | {"headline": None}}}))
    write_card(stage, out, ID, reports=[report])
    card = (out / "README.md").read_text()
    meta = front_matter(out / "README.md")
    assert meta["base_model"] == BASE and meta["datasets"] == ["org/talks"] and meta["license_name"] == "tiny-license"
    assert (meta["library_name"], meta["pipeline_tag"]) == ("transformers", "image-text-to-text")
    for said in (
        f"on the base `{BASE}` at commit `{commit}`",
        f'from_pretrained("{ID}", trust_remote_code=True)',
        "| stage1 | patch_embed | 2 | 40 |",  # which has no aligning layer
        "| stage3 | patch_embed, text, patch_embed x0.1 | 2 | 40 |",  # and no weights of its own for vision
        "| `captions.jsonl` | 40 | 20 | 50.0% |",
        "| stage3 | 2.0000 | 1.5000 |",
        "![Curves of stage1](stage1.png)",
        "| mme | eve | 1500.2 | 1490.0 to 1510.0 |",
        "| eval/loss | while training | 1.2500 |",
        "The license of the base is other tiny-license LICENSE.",
    ):
        assert said in card, card
    assert "/home/me" not in card and str(tmp_path) not in card
    assert (out / "stage3.png").read_bytes() == b"\x89PNG curves"
    assert capsys.readouterr().err.count("warning") == 0
    (out / "config.json").write_text('{"model_type": "llava"}')
    write_card(stage, out, ID, license="mit")
    card = (out / "README.md").read_text()
    assert f'LlavaForConditionalGeneration.from_pretrained("{ID}")' in card and "with a vision encoder" in card
    assert front_matter(out / "README.md")["tags"] == ["eve_jax"]
    assert front_matter(out / "README.md")["license"] == "mit"
    config = json.loads((stage / "config.json").read_text())
    config["model"] |= {"align_width": 64, "num_layers": 4}
    (stage / "config.json").write_text(json.dumps(config))
    (stage / "base.json").unlink()
    write_card(stage, out, ID)
    assert "| stage3 | patch_embed, align, text, patch_embed x0.1 | 2 | 40 |" in (out / "README.md").read_text()
    assert "license" not in front_matter(out / "README.md")
    assert "the license of the base is not known, so its card names none" in capsys.readouterr().err
    with pytest.raises(UserError, match="not a report of an evaluation"):
        (report / "report.json").write_text("{}")
        write_card(stage, out, ID, reports=[report])


def test_scores_are_read_before_anything_is_made(hub: Hub, stage: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for scores, says in (("gone", "no such folder"), ("empty", "has no report.json")):
        given = (f"--from={stage}", f"--to={tmp_path / 'out'}", f"--push={ID}", f"--scores={tmp_path / scores}")
        done = launch("launch.convert", "export", *given)
        assert done.returncode == 1 and f"--scores={tmp_path / scores}" in done.stderr and says in done.stderr
        assert not (tmp_path / "out").exists() and ("models", ID) not in hub.commits


def test_pushed_again_and_loaded(hub: Hub, stage: Path, tmp_path: Path) -> None:
    for kind, shard in (("a", 1e-4), ("b", 5.0)):
        out = export_checkpoint(stage, tmp_path / kind, max_shard_gb=shard, quiet=True)
        make_repository(ID, private=True)
        assert push(out, ID).startswith(f"{hub.url}/{ID}/commit/")
        assert hub.files(ID).keys() == {path.name for path in out.iterdir()}  # of the first, no shard is left
        assert all((out / name).read_bytes() == data for name, data in hub.files(ID).items())
    assert ID in hub.private
    eve = EVE.from_pretrained(f"{ID}@main")
    assert eve.rule.template == json.loads((stage / "config.json").read_text())["data"]["template"]


def test_refusals(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="--push=name: expected ORG/NAME"):
        make_repository("name", private=True)
    hub.closed = lambda path: 403
    with pytest.raises(UserError, match=r"--push=me/seer: the hub did not make it: .*log in with hf auth login"):
        make_repository(ID, private=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"--push=me/seer: .*/out is whole, but was not uploaded: "):
        push(tmp_path / "out", ID)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        make_repository(ID, private=True)


def test_a_hub_that_is_not_reached(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address is named, and nobody is told to log in; neither where the hub itself is at fault."""
    hub.closed = lambda path: 501
    with pytest.raises(UserError) as caught:
        make_repository(ID, private=True)
    assert "the hub did not make it: " in str(caught.value) and "log in" not in str(caught.value)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError) as caught:
        make_repository(ID, private=True)
    assert str(caught.value).endswith(
        "the hub at http://127.0.0.1:9 cannot be reached (Connection refused); check the network and HF_ENDPOINT"
    )
    with pytest.raises(UserError, match=r"the hub did not give it: the hub at http://127\.0\.0\.1:9 cannot be"):
        find_folder(f"hf:{ID}")


def test_the_card_of_a_run_with_adapters(stage: Path, tmp_path: Path) -> None:
    config = json.loads((stage / "config.json").read_text())
    for on, said in {
        "": "patch_embed, text, patch_embed x0.1",
        "text,patches": "text,patches",
    }.items():
        config["lora"] |= {"rank": 16, "on": on}
        (stage / "config.json").write_text(json.dumps(config))
        write_card(stage, tmp_path, ID)
        assert f"| stage3 | adapters of rank 16: {said} | 2 | 40 |" in (tmp_path / "README.md").read_text()


@pytest.mark.slow
def test_the_command_and_transformers(hub: Hub, stage: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    done = launch("launch.convert", "export", f"--from={stage}", f"--to={tmp_path / 'out'}", f"--push={ID}")
    assert done.returncode == 0, done.stderr
    assert f"pushed: {hub.url}/{ID}/commit/" in done.stdout and "README.md" in hub.files(ID)
    code = (
        "from transformers import AutoModelForCausalLM\n"
        "load = AutoModelForCausalLM.from_pretrained\n"
        f"model, info = load({ID!r}, trust_remote_code=True, output_loading_info=True)\n"
        "assert not any(info[k] for k in ('missing_keys', 'unexpected_keys', 'mismatched_keys')), info\n"
        "print(sum(p.numel() for p in model.parameters()))\n"
    )
    loaded = subprocess.run([sys.executable, "-c", code], env=dict(os.environ), capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr
    assert int(loaded.stdout.split()[-1]) > 0
