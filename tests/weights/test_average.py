"""The moving average of a checkpoint, as a stage folder of its own and as an export."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from eve_jax.checkpoint.checksums import write_manifest
from eve_jax.checkpoint.stage_folder import Checkpoints
from eve_jax.config.stages import partition, stage_factors
from eve_jax.errors import UserError
from eve_jax.hf.names import eve_names
from eve_jax.model.eve import Params
from eve_jax.train.optimizer import optimizer
from eve_jax.weights.import_export import export_checkpoint, make_whole
from eve_jax.weights.open import load_params, open_average
from tests import reference as ref
from tests.train.stages_on_disk import DAC, describe
from tests.weights import folders


def save(folder: Path, stage: str, ema: float) -> tuple[Params, Params]:
    """A stage folder of the golden model with an average other than what trains; all weights, and the average."""
    describe(folder, DAC)
    optim = base.get_config("tiny").optim
    optim.ema = ema
    trainable, frozen = partition(DAC, ref.params(DAC), stage_factors(stage))
    frozen = {name: value.astype(jnp.bfloat16) for name, value in frozen.items()}
    state = optimizer(optim, lambda _: 1e-3, DAC, stage_factors(stage)).init(trainable)
    average = {name: value + 1.25 for name, value in trainable.items()}
    state = state._replace(average=average) if ema else state
    checkpoints = Checkpoints(folder)
    checkpoints.save(7, {**trainable, **frozen}, state, {"plan": "", "lineage": "x"})
    checkpoints.close()
    return {**trainable, **frozen}, average


@pytest.mark.parametrize("stage", ["2.1", pytest.param("3", marks=pytest.mark.slow)])
def test_a_whole_folder_of_the_average(tmp_path: Path, stage: str) -> None:
    """What does not train keeps its bits."""
    params, average = save(tmp_path / "ours", stage, 0.9)
    whole = make_whole(tmp_path / "ours", tmp_path / "whole", quiet=True, average=True)
    _, found = load_params(whole)
    for name, value in {**params, **average}.items():
        assert found[name].dtype == params[name].dtype, name
        np.testing.assert_array_equal(np.asarray(found[name]), np.asarray(value), err_msg=name)
    _, plain = load_params(make_whole(tmp_path / "ours", tmp_path / "plain", quiet=True))
    assert all(np.array_equal(np.asarray(plain[n]), np.asarray(v)) for n, v in params.items())


def test_an_export_of_the_average(tmp_path: Path) -> None:
    params, average = save(tmp_path / "ours", "3", 0.9)
    exports = {
        "average": export_checkpoint(open_average(tmp_path / "ours"), tmp_path / "average", quiet=True),
        "plain": export_checkpoint(tmp_path / "ours", tmp_path / "exported", quiet=True),
    }
    found = {what: folders.read_hf(folder) for what, folder in exports.items()}
    for entry in eve_names(DAC):
        for wanted, tensors in ((average, found["average"]), (params, found["plain"])):
            values = np.asarray(jax.device_get(wanted[entry.ours]))
            for number, name in enumerate(entry.names(DAC)):
                piece = values[number] if entry.stacked else values
                np.testing.assert_array_equal(tensors[name], entry.to_theirs(piece), err_msg=name)


def test_a_damaged_average_is_found(tmp_path: Path) -> None:
    save(tmp_path / "ours", "3", 0.9)
    checkpoint = tmp_path / "ours" / "checkpoints" / "7"
    write_manifest(checkpoint)
    file = max((checkpoint / "optimizer").rglob("d/*"), key=lambda path: path.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"the average of the weights of step 7 is damaged: .*optimizer"):
        open_average(tmp_path / "ours")


def test_a_checkpoint_without_one_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "ours", "3", 0.0)
    says = r"ours, step 7: there is no average of the weights \(config\.optim\.ema was 0"
    with pytest.raises(UserError, match=says):
        make_whole(tmp_path / "ours", tmp_path / "x", quiet=True, average=True)
    with pytest.raises(UserError, match=says):
        open_average(tmp_path / "ours")
    assert not (tmp_path / "x").exists()
    hf = folders.write_hf(tmp_path / "hf", *folders.golden(), 1)
    with pytest.raises(UserError, match="is a Hugging Face folder, which has no average"):
        open_average(hf)
