"""Stages 1 and 2.1 store what trains and refer to the rest, which every reader follows; sizes on disk."""

import math
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eve_jax.checkpoint.frozen_weights import frozen_origins, origins
from eve_jax.checkpoint.stage_folder import Checkpoints, read_meta
from eve_jax.checkpoint.stored import stored_shapes
from eve_jax.config.stages import partition, stage_factors, trainable_names
from eve_jax.errors import UserError
from eve_jax.infer.parameters import stored
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import abstract_params
from eve_jax.model.llms import LLMS
from eve_jax.sharding import make_mesh
from eve_jax.train.initial_state import Start
from eve_jax.train.step import TrainState
from eve_jax.weights.import_export import export_checkpoint, make_whole
from eve_jax.weights.open import open_checkpoint, stored_source
from tests.train.stages_on_disk import DAC, DENSE, saved, started, write_llm
from tests.weights import folders


def same(a, b):
    folders.same({k: np.asarray(v) for k, v in a.items()}, {k: np.asarray(v) for k, v in b.items()})


def on_a_mesh(folder):
    """All parameters as inference on a mesh reads them: layer by layer."""
    return stored(open_checkpoint(folder), make_mesh("tensor:-1"))[1]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """llm -> stage1 -> stage2_1, and all weights that the last must have."""
    work = tmp_path_factory.mktemp("work")
    write_llm(work / "llm")
    saved(work / "stage1", started(work / "stage1", DENSE, "1", work / "llm"), 3)
    wanted = saved(work / "stage2_1", started(work / "stage2_1", DAC, "2.1", work / "stage1"), 4)
    return work, wanted


@pytest.fixture
def work(made, tmp_path):
    """A copy of the stages, in another place: what they refer to is found all the same."""
    shutil.copytree(made[0], tmp_path / "moved")
    return tmp_path / "moved"


def test_stored_is_what_trains(made):
    work, wanted = made
    for folder, cfg, stage, step in (("stage1", DENSE, "1", 3), ("stage2_1", DAC, "2.1", 4)):
        names = list(abstract_params(cfg))
        assert set(stored_shapes(work / folder, step)) == trainable_names(cfg, stage_factors(stage))
        (origin,) = origins(work / folder, step)
        assert (origin.path, origin.step) == ("../llm", 5), "stage 2.1, too, refers to the LLM itself"
        assert set(origin.weights) == set(names) - trainable_names(cfg, stage_factors(stage))
    text = next(n for n in wanted if ".text." in n)
    np.testing.assert_array_equal(wanted[text], write_llm(work / "again")[text].astype(jnp.bfloat16))


def test_every_reader_follows(made, work):
    wanted = made[1]
    shutil.rmtree(work / "stage1")  # nothing refers to it
    same(open_checkpoint(work / "stage2_1").params(), wanted)
    same(on_a_mesh(work / "stage2_1"), wanted)
    source = stored_source(work / "stage2_1")
    for name, value in wanted.items():
        pieces = list(source.pieces(name))
        whole = np.stack(pieces) if name.startswith("layers.") else pieces[0]
        assert whole.dtype == source.shapes[name].dtype == value.dtype
        np.testing.assert_array_equal(whole, value, err_msg=name)
    exported = export_checkpoint(work / "stage2_1", work / "exported", quiet=True)
    same(open_checkpoint(exported).params(), wanted)
    again = started(work / "stage2_2", replace(DAC, frozen_dtype="float32"), "2.2", work / "stage2_1")
    assert not again.origins
    same(again.state.trainable, {n: v.astype(jnp.float32) for n, v in wanted.items()})


def test_going_on(made, work):
    begin = started(work / "stage2_1", DAC, "2.1", work / "nowhere")
    assert begin.step == 4
    same({**begin.state.trainable, **begin.frozen}, made[1])
    assert begin.origins == read_meta(work / "stage2_1", 4)["frozen"]
    assert not started(work / "stage2_1", DAC, "2.1", work / "nowhere", whole=True).origins


def test_made_whole(made, work):
    whole = make_whole(work / "stage2_1", work / "whole", quiet=True)
    shutil.rmtree(work / "llm")
    same(open_checkpoint(whole).params(), made[1])
    assert read_meta(whole, 0)["lineage"] == "stage2_1"
    with pytest.raises(UserError, match="exists already"):
        make_whole(work / "stage2_1", whole, quiet=True)


def test_the_rest_is_gone_or_another(tmp_path):
    write_llm(tmp_path / "llm")
    saved(tmp_path / "stage1", started(tmp_path / "stage1", DENSE, "1", tmp_path / "llm"), 3)
    (tmp_path / "llm").rename(tmp_path / "elsewhere")
    for read in (lambda f: open_checkpoint(f).params(), stored_source, lambda f: started(f, DENSE, "1", f)):
        with pytest.raises(
            UserError, match=f"the rest of the weights is in {tmp_path / 'llm'}, which is no longer there"
        ):
            read(tmp_path / "stage1")
    write_llm(tmp_path / "llm", change=0.5)
    for read in (lambda f: open_checkpoint(f).params(), on_a_mesh, lambda f: started(f, DENSE, "1", f)):
        with pytest.raises(UserError, match=r"stage1 was trained on other weights than .*llm now holds"):
            read(tmp_path / "stage1")
    with pytest.raises(UserError, match="was trained on other weights"):
        export_checkpoint(tmp_path / "stage1", tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()
    shutil.rmtree(tmp_path / "llm")
    write_llm(tmp_path / "llm", step=9)  # the same values, saved anew
    open_checkpoint(tmp_path / "stage1").params()


def test_from_hugging_face(tmp_path):
    """Vision copies that do not train are copies of text weights, also when they are read again."""
    hf = folders.write_hf(tmp_path / "hf", *folders.plain("qwen2"))
    cfg = replace(open_checkpoint(hf, "dac", patch_hidden=24).cfg, dtype="float32")
    wanted = saved(tmp_path / "stage1", started(tmp_path / "stage1", cfg, "1", hf), 3)
    assert all(name.startswith("patch_embed.") for name in stored_shapes(tmp_path / "stage1", 3))
    same(open_checkpoint(tmp_path / "stage1").params(), wanted)
    same(open_checkpoint(make_whole(tmp_path / "stage1", tmp_path / "whole", quiet=True)).params(), wanted)


def test_whole_on_request_and_without_an_origin(tmp_path):
    write_llm(tmp_path / "llm")
    assert not started(tmp_path / "stage1", DENSE, "1", tmp_path / "llm", whole=True).origins
    assert not started(tmp_path / "llm2", DENSE, "llm", tmp_path / "llm").origins


SIZES = {
    "tiny": ModelConfig(**LLMS["tiny"], parts=(), patch_hidden=64),
    "100 M": ModelConfig(40_000, 640, 1792, 16, 10, 2, 64, patch_hidden=1024, parts=(), tie_embeddings=True),
}


@pytest.mark.parametrize("name", ["tiny", pytest.param("100 M", marks=pytest.mark.slow)])
def test_size_on_disk(tmp_path, name):
    """Parameters and both moments of what trains, a few kB next to them, whatever the size of the rest."""
    cfg = SIZES[name]
    rng = np.random.default_rng(0)
    shapes, frozen_shapes = partition(cfg, abstract_params(cfg), stage_factors("1"))
    trainable = {n: jnp.asarray(rng.normal(size=s.shape).astype(np.float32)) for n, s in shapes.items()}
    frozen = {n: jnp.zeros(s.shape, jnp.bfloat16) for n, s in frozen_shapes.items()}
    total = sum(v.size for v in (trainable | frozen).values())
    assert name == "tiny" or 95e6 < total < 110e6
    moments = {"mu": jax.tree.map(lambda v: v + 1, trainable), "nu": jax.tree.map(lambda v: v + 2, trainable)}
    found = frozen_origins(frozen, tmp_path, tmp_path, None, 0, 64)
    begin = Start(TrainState(jnp.int32(0), trainable, moments), frozen, 0, found)
    params, meta = begin.stored(begin.state)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, params, moments, meta)
    checkpoints.close()
    on_disk = sum(p.stat().st_size for p in (tmp_path / "checkpoints").rglob("*") if p.is_file())
    train = 3 * 4 * sum(math.prod(s.shape) for s in shapes.values())
    assert 0.85 * train < on_disk < train + 60_000
