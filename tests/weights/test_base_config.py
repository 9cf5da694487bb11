"""The base's config.json comes through stages, moves and lost folders, or its loss is said."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from eve_jax.errors import UserError
from eve_jax.hf.export_config import DEFAULTS
from eve_jax.hf.family import SWITCHES
from eve_jax.infer.api import takes_images
from eve_jax.model.config import ModelConfig
from eve_jax.model.llms import LLMS
from eve_jax.process.stored_path import StoredPath
from eve_jax.train.initial_state import open_init
from eve_jax.train.lineage import check_settings
from eve_jax.weights.base_config import HF_CONFIG, PATHS, carried_config, keep_base
from eve_jax.weights.import_export import export_checkpoint, import_checkpoint, make_whole
from eve_jax.weights.open import open_checkpoint
from tests.weights import folders


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with hf (a plain LLM) and base (its import)."""
    work = tmp_path_factory.mktemp("imported")
    hf = folders.write_hf(work / "hf", *folders.plain("qwen2"))
    import_checkpoint(str(hf), work / "base", quiet=True)
    return work


@pytest.fixture
def work(imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the current folder."""
    shutil.copytree(imported, tmp_path / "p")
    monkeypatch.chdir(tmp_path / "p")
    return tmp_path / "p"


def stage(folder: Path, init: str, old: bool = False, checkpoints: bool = True) -> ConfigDict:
    """A stage folder as training leaves it, with the weights of `base`; `old` is one of earlier releases."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = json.loads(Path("base/config.json").read_text()) | {"name": folder.name, "stage": "3", "init": init}
    (folder / "config.json").write_text(json.dumps(settings))
    config = ConfigDict(settings | {"teacher": "", "encoder": ""})
    config.model.llm = config.data.records = config.data.images = config.data.tokenizer = ""
    config.data.vision_tokenizer = ""
    if not old:
        keep_base(folder, config)
    if checkpoints:
        shutil.copytree("base/checkpoints", folder / "checkpoints", dirs_exist_ok=True)
    return config


def base_config(work: Path) -> dict:
    return json.loads((work / "hf" / "config.json").read_text())


def test_of_other_sizes(work: Path) -> None:
    """What begins from a model of other sizes says where the model's own come from."""
    stage(Path("runs/stage1"), "hf")
    cfg = ModelConfig.from_dict({**LLMS["tiny"], "variant": "dense"})

    def says(init: str, cfg: ModelConfig, llm: str = "tiny") -> str:
        with pytest.raises(UserError) as raised:
            open_init(ConfigDict({"init": init, "seed": 0, "name": "stage2", "model": {"llm": llm}}), cfg)
        return str(raised.value).rpartition("; ")[2]

    began = "name the LLM that it began with (hf), which has the sizes: --config=stage2:llm=FOLDER"
    assert says("hf", cfg) == "llm=FOLDER takes the sizes: --config=stage2:llm=hf"
    assert says("hf", cfg, "hf") == "the folder, which llm= names as well, states it: leave that field out"
    assert says("runs/stage1", cfg) == began
    extra = stage(Path("runs/stage2"), "hf").copy_and_resolve_references()
    extra.model.extra_layers = 1
    Path("runs/stage2/config.json").write_text(extra.to_json())
    assert says("runs/stage2", cfg) == f"{began},extra=1"
    switched = replace(open_checkpoint(Path("base")).cfg, index_rule="thw")
    assert says("runs/stage1", switched) == "give the value that it was trained with: --config.model.index_rule=token"
    neo = replace(cfg, **SWITCHES["neo"])
    assert says("runs/stage1", neo) == "it is not NEO, which stage2 trains"


@pytest.mark.parametrize("init", ["base", "hf"])
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize("then", ["stays", "elsewhere", "moved", "base deleted"])
def test_through_moves(work, monkeypatch, init, old, stages, then):
    stage(Path("runs/stage1"), init, old)
    if stages == 2:
        stage(Path("runs/stage2"), "runs/stage1", old)
    last, wanted = work / f"runs/stage{stages}", base_config(work)
    if then == "elsewhere":
        monkeypatch.chdir("/")
    elif then == "moved":
        monkeypatch.chdir("/")
        work.rename(work.parent / "q")
        last = work.parent / "q" / f"runs/stage{stages}"
    elif then == "base deleted":
        shutil.rmtree(work / "base")
        shutil.rmtree(work / "hf")
        if old:
            with pytest.raises(UserError, match=rf"was trained from {init}, which is not there; .* copy config.json"):
                carried_config(last)
            return
    assert carried_config(last) == wanted


@pytest.mark.parametrize("what", ["runs", "hf"])
def test_either_moves_alone(work, monkeypatch, what):
    """Also without hf_config.json, by the places that are written into paths.json."""
    stage(Path("runs/stage1"), "hf")
    Path("runs/stage1", HF_CONFIG).unlink()
    wanted, last = base_config(work), work / "runs/stage1"
    if what == "runs":
        Path("runs").rename(work.parent / "moved")
        last = work.parent / "moved/stage1"
        monkeypatch.chdir("/")
    else:
        monkeypatch.chdir("/")
        shutil.copytree(work, work.parent / "q")
        shutil.rmtree(work)
        last = work.parent / "q/runs/stage1"
    assert carried_config(last) == wanted
    shutil.rmtree(work if work.exists() else work.parent / "q/hf")
    with pytest.raises(UserError, match=r"was trained from /.*/p/hf, which is not there"):
        carried_config(last)


def test_an_export_has_the_fields_from_anywhere(work, monkeypatch):
    stage(Path("runs/stage1"), "base", old=True)
    monkeypatch.chdir("/")
    out = export_checkpoint(work / "runs/stage1", work / "out", quiet=True)
    written = json.loads((out / "config.json").read_text())
    assert written["max_position_embeddings"] == 128
    assert "initializer_range" not in written, "which the base's config does not have"
    shutil.rmtree(work / "base")
    for make in (export_checkpoint, make_whole):
        with pytest.raises(UserError, match="stage1 was trained from base, which is not there"):
            make(work / "runs/stage1", work / "lost", quiet=True)
    assert not (work / "lost").exists()
    shutil.copyfile(work / "hf/config.json", work / "runs/stage1" / HF_CONFIG)  # as the message says
    assert carried_config(work / "runs/stage1") == base_config(work)


def test_two_places_that_may_be_meant(work, monkeypatch):
    stage(Path("runs/stage1"), "hf", old=True)
    other = work.parent / "other"
    shutil.copytree("hf", other / "hf")
    monkeypatch.chdir(other)
    assert carried_config(work / "runs/stage1") == base_config(work), "the same config twice"
    (other / "hf/config.json").write_text(json.dumps(base_config(work) | {"max_position_embeddings": 64}))
    with pytest.raises(UserError, match=r"was trained from hf, which may be hf or .*/p/hf; "):
        carried_config(work / "runs/stage1")


@pytest.mark.parametrize("old", [False, True])
def test_config_of_another_model(work, old):
    stage(Path("runs/stage1"), "hf", old)
    target = Path("hf/config.json") if old else Path("runs/stage1", HF_CONFIG)
    target.write_text(json.dumps(base_config(work) | {"num_hidden_layers": 3}))
    with pytest.raises(UserError, match="is of another model than runs/stage1: num_hidden_layers is 3 there, 2 here"):
        carried_config(Path("runs/stage1"))


def test_random_weights_have_no_base(work):
    stage(Path("runs/llm"), "")
    stage(Path("runs/stage1"), "runs/llm")
    assert json.loads(Path("runs/llm", HF_CONFIG).read_text()) == {}
    shutil.rmtree("runs/llm")
    assert carried_config(Path("runs/stage1")) == {}
    out = export_checkpoint(Path("runs/stage1"), Path("out"), quiet=True)
    written = json.loads((out / "config.json").read_text())
    assert {name: written[name] for name in DEFAULTS} == DEFAULTS


def test_another_start_before_the_first_checkpoint(work):
    stage(Path("runs/stage1"), "hf", checkpoints=False)
    shutil.copytree("hf", "hf2")
    Path("hf2/config.json").write_text(json.dumps(base_config(work) | {"max_position_embeddings": 64}))
    config = stage(Path("runs/stage1"), "hf2")
    assert carried_config(Path("runs/stage1"))["max_position_embeddings"] == 64
    shutil.rmtree("hf2")
    config.init = ""
    keep_base(Path("runs/stage1"), config)  # resumed, without naming where it started
    assert carried_config(Path("runs/stage1"))["max_position_embeddings"] == 64
    assert json.loads(Path("runs/stage1", PATHS).read_text())["init"]["relative"] == "../../hf2"


def test_an_older_stage_that_resumes(work, capsys):
    config = stage(Path("runs/stage1"), "hf", old=True)
    config.init = ""
    keep_base(Path("runs/stage1"), config)
    assert json.loads(Path("runs/stage1", HF_CONFIG).read_text()) == base_config(work)
    config = stage(Path("runs/stage2"), "hf", old=True)
    shutil.rmtree("hf")
    keep_base(Path("runs/stage2"), config)
    said = capsys.readouterr().out
    assert said.startswith("warning: ")
    assert said.count("\n") == 1
    assert not Path("runs/stage2", HF_CONFIG).exists()


def test_a_loop(work):
    stage(Path("runs/a"), "runs/b", old=True)
    stage(Path("runs/b"), "runs/a", old=True)
    with pytest.raises(UserError, match=r"config\.init leads back to"):
        carried_config(Path("runs/a"))


@pytest.mark.parametrize("entry", ["hf", ["hf"], {"relative": "hf"}, {"relative": 1, "absolute": "hf"}])
def test_entries_that_are_no_paths(work, entry):
    stage(Path("runs/stage1"), "hf")
    Path("runs/stage1", HF_CONFIG).unlink()
    Path("runs/stage1", PATHS).write_text(json.dumps({"init": entry}))
    with pytest.raises(UserError, match=r"runs/stage1/paths\.json: .* is no path"):
        carried_config(Path("runs/stage1"))


def test_every_path_is_written(work):
    Path("a.jsonl").touch()
    Path("b").mkdir()
    config = stage(Path("runs/stage1"), "hf")
    config.data = ConfigDict(
        {"records": "a.jsonl, b,c/*.json,tfds:mnist", "images": "b", "tokenizer": "hf", "vision_tokenizer": ""}
    )
    config.teacher = "b"
    keep_base(Path("runs/stage1"), config)
    found = json.loads(Path("runs/stage1", PATHS).read_text())

    def named(name: str) -> dict[str, str]:
        return {"relative": f"../../{name}", "absolute": str(work / name)}

    assert found == {
        "init": named("hf"),
        "teacher": named("b"),
        "data.images": named("b"),
        "data.tokenizer": named("hf"),
        "data.records": [named("a.jsonl"), named("b"), named("c/*.json")],
    }


def test_a_run_resumes_when_its_llm_is_spelt_otherwise(work):
    config = stage(Path("runs/stage1"), "hf")
    config.model.llm = "hf"
    Path("runs/new").mkdir()
    Path("runs/new/config.json").write_text(config.to_json())
    shutil.copytree("base/checkpoints", "runs/new/checkpoints")
    config.model.llm = config.init = str(work / "hf")
    check_settings(Path("runs/new"), config)
    config.model.hidden_size = 64
    with pytest.raises(UserError, match=r"config\.model\.hidden_size=48, now it is 64"):
        check_settings(Path("runs/new"), config)


def test_a_whole_copy_needs_nothing_else(work, monkeypatch):
    stage(Path("runs/stage1"), "base")
    copy = make_whole(Path("runs/stage1"), work.parent / "copies/whole", quiet=True)
    assert json.loads((copy / PATHS).read_text())["init"] == {
        "relative": "../../p/base",
        "absolute": str(work / "base"),
    }
    wanted = base_config(work)
    monkeypatch.chdir("/")
    shutil.rmtree(work)
    assert carried_config(copy) == wanted


def test_stored_path_prefers_what_moved_along(tmp_path):
    for name in ("p/runs", "p/base"):
        (tmp_path / name).mkdir(parents=True)
    stored = StoredPath.of(tmp_path / "p/base", tmp_path / "p/runs")
    assert stored == ("../base", str(tmp_path / "p/base"))
    shutil.copytree(tmp_path / "p", tmp_path / "q")
    assert stored.find(tmp_path / "q/runs") == tmp_path / "q/runs/../base"
    shutil.rmtree(tmp_path / "q/base")
    assert stored.find(tmp_path / "q/runs") == tmp_path / "p/base"
    shutil.rmtree(tmp_path / "p")
    assert stored.find(tmp_path / "q/runs") is None


def test_a_stage_sees_images_whatever_its_base_is(work):
    """The import of a plain LLM does not, and neither does a stage of text alone."""
    stage(Path("runs/stage3"), "hf")
    assert (takes_images(Path("runs/stage3")), takes_images(Path("base")), takes_images(Path("hf"))) == (
        True,
        False,
        False,
    )
    settings = json.loads(Path("runs/stage3/config.json").read_text())
    Path("runs/stage3/config.json").write_text(json.dumps(settings | {"stage": "llm"}))
    assert not takes_images(Path("runs/stage3"))
