"""Models of the hub by id, from a stand-in for it: one commit a run, what is needed, the cache, and offline."""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants
from ml_collections import ConfigDict
from PIL import Image

from configs import base
from eve_jax.checkpoint.frozen_weights import Origin
from eve_jax.config.from_hub import fetched_fields
from eve_jax.config.stage import Config
from eve_jax.errors import UserError
from eve_jax.infer.api import EVE
from eve_jax.process.hub import Snapshot, find_folder, hub_name, local_model
from eve_jax.train.lineage import as_begun
from eve_jax.weights.open import open_checkpoint
from tests.hub.conftest import forget
from tests.hub.server import Hub
from tests.launcher import launch
from tests.weights import folders

ID = "org/tiny-1.5B"


@pytest.fixture
def model(hub: Hub, tmp_path: Path) -> str:
    """A model of two shards on the hub, with files that are not to be fetched; the commit."""
    tensors, config = folders.plain("qwen2")
    longer = config | {"max_position_embeddings": 1024}
    folder = folders.write_hf(tmp_path / "of_the_hub", tensors, longer, shards=2)
    for name in ("consolidated.safetensors", "original/model.safetensors", "pytorch_model.bin"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"other")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return hub.add(ID, folder)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("org/name", ("org/name", "")),
        ("org/name@v1.0", ("org/name", "v1.0")),
        ("hf:org/name@refs/pr/1", ("org/name", "refs/pr/1")),
        ("hf:here/name", ("here/name", "")),
        ("here/name", None),
        ("./org/name", None),
        ("../name", None),
        ("/org/name", None),
        ("~/name", None),
        ("a/b/c", None),
        ("name", None),
        ("", None),
        ("WORKDIR/stage1", None),
        ("gs://bucket", None),
        ("org/.name", None),
    ],
)
def test_what_is_a_name_of_the_hub(text: str, found: tuple[str, str] | None, hub: Hub) -> None:
    Path("here").mkdir()
    name = hub_name(text)
    assert (name and (name.id, name.revision)) == found
    assert not hub.asked


def test_texts_first_and_weights_when_they_are_read(hub: Hub, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(local_model(ID))
    kept = Snapshot.of(folder)
    assert kept is not None and (kept.id, kept.commit, kept.folder) == (ID, model, folder)
    assert not list(folder.glob("*.safetensors")) and (folder / "tokenizer.json").is_file()
    said = capsys.readouterr().err
    assert f"{ID}: nothing of that name is here, so it is the hub's model {ID}, which is at commit {model}" in said
    assert f"hf:{ID}@{model} names it for good" in said
    checkpoint = open_checkpoint(folder)  # fetches the shards
    assert checkpoint.source is not None and len(list(folder.glob("*.safetensors"))) == 2
    assert not (folder / "consolidated.safetensors").exists() and not (folder / "original").exists()
    asked = len(hub.asked)
    capsys.readouterr()
    assert find_folder(ID) == folder and local_model(ID) == str(folder)
    assert len(hub.asked) == asked  # all is in the cache, and the name leads to one commit as long as the process lives
    assert capsys.readouterr().err == ""


def test_what_is_not_there(hub: Hub, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"^org/typo: no such folder, and the hub did not give it: it has none of that"):
        find_folder("org/typo")
    with pytest.raises(UserError, match="name is empty"):
        find_folder("")
    with pytest.raises(UserError, match=rf"^hf:{ID}@v9: the hub did not give it: it has no such revision"):
        find_folder(f"hf:{ID}@v9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=rf"^{ID}: no such folder, and the hub did not give it: HF_HUB_OFFLINE is set"):
        find_folder(ID)
    Path("org").mkdir()
    with pytest.raises(UserError, match=rf"^{ID}: no such folder; hf:{ID} or hf:{ID}@REVISION is the hub's model"):
        find_folder(ID)


def test_offline_takes_what_the_cache_has(hub: Hub, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = find_folder(ID)
    forget()
    asked = len(hub.asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_folder(ID) == folder == find_folder(f"hf:{ID}@{model}")
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE is set, and the cache does not have it"):
        open_checkpoint(folder)
    assert len(hub.asked) == asked


def test_a_config_leads_to_commits(hub: Hub, model: str) -> None:
    config = Config.of(base.get_config(f"{ID}@main"))
    for value in (config.init, config.data.tokenizer, config.model.llm):
        assert value == local_model(f"{ID}@main")
    written = base.get_config("tiny")
    written.data.tokenizer = ID
    written.init = "WORKDIR/stage1"
    config = Config.of(written)
    assert Snapshot.of(config.data.tokenizer) and config.init == "WORKDIR/stage1"
    recipe = ConfigDict({"stages": {"a": {"init": ID}}})
    assert Snapshot.of(fetched_fields(recipe.to_dict())["stages"]["a"]["init"])


def test_a_run_keeps_its_commit(hub: Hub, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    began = Config.of(base.get_config(ID))
    stage = tmp_path / "stage"
    (stage / "checkpoints" / "5").mkdir(parents=True)
    (stage / "config.json").write_text(began.to_json())
    later = hub.add(ID, {**hub.files(ID), "README.md": b"changed"})
    forget()
    now = Config.of(base.get_config(ID))
    assert Path(now.init).name == later
    capsys.readouterr()
    kept = as_begun(stage, now)
    assert kept.to_json() == began.to_json()
    said = capsys.readouterr().err
    assert f"config.init: the hub has hf:{ID}@{later} now; the run keeps what it began with, hf:{ID}@{model}" in said
    named = Config.of(base.get_config(f"hf:{ID}@{model}"))
    assert as_begun(stage, named).init == began.init
    forget()
    with pytest.raises(UserError, match=rf"config.init: the run began with hf:{ID}@{model}, now hf:{ID}@{later} is"):
        as_begun(stage, Config.of(base.get_config(f"hf:{ID}@{later}")))


def test_doors_and_what_the_cache_has_lost(hub: Hub, model: str, tmp_path: Path) -> None:
    assert EVE.from_pretrained(f"{ID}@main").positions == 1024
    folder = find_folder(ID)
    origin = Origin("gone", str(folder), None, 0, 0, {})
    assert origin.find(tmp_path) == folder
    shutil.rmtree(folder)
    assert origin.find(tmp_path) == folder and open_checkpoint(folder).source is not None


@pytest.mark.slow
def test_commands(hub: Hub, model: str, tmp_path: Path) -> None:
    """A run of one step from an id, chat with the id, and an export of it."""
    records = tmp_path / "r.jsonl"
    turns = [{"from": "human", "value": "<image>\na b"}, {"from": "gpt", "value": "e f g h"}]
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    record = {"image": "a.png", "conversations": turns}
    records.write_text("".join(json.dumps({"id": str(i), **record}) + "\n" for i in range(2)))
    small = {"rows": 1, "row_tokens": 128, "max_tokens": 128, "micro_batches": 1}
    fields = [f"--config.data.{name}={value}" for name, value in small.items()]
    done = launch(
        "launch.train",
        f"--config=stage1:llm={ID}",
        "--workdir=runs",
        f"--config.data.records={records}",
        f"--config.data.images={tmp_path}",
        *fields,
        "--config.train.writers=none",
        "--config.train.steps=1",
        cwd=Path.cwd(),
    )
    assert done.returncode == 0, done.stderr
    config = json.loads(Path("runs/stage1/config.json").read_text())
    assert Path(config["init"]).name == model and f"{ID} is at" not in done.stderr and model in done.stderr
    offline = launch("launch.chat", f"--checkpoint={ID}", "--prompt=a", "--max_new_tokens=1", HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    gone = Snapshot.of(config["init"])
    assert gone is not None
    for file in gone.folder.iterdir():  # the stage holds only what it trained: the rest is fetched again
        file.unlink()
    done = launch("launch.convert", "export", "--from=runs/stage1", "--to=out", cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
