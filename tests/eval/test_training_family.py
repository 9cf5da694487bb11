"""Tasks while other members of the family train are asked as the saved checkpoint is."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from eve_jax.config.stage import Config
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.eval import passages, training
from eve_jax.eval.text_loss import TextLoss
from eve_jax.infer import api
from eve_jax.infer.api import EVE
from eve_jax.infer.parameters import ready
from eve_jax.infer.score import Score, Scores, ScoreSettings
from eve_jax.model.eve import Params, abstract_params
from eve_jax.sharding import make_mesh
from eve_jax.train.evaluation import Setting
from eve_jax.train.stage_files import write_stage_files
from eve_jax.weights.open import Checkpoint
from launch._configs import load_config
from tests.data.synthetic import write_records
from tests.train.placing import demo_data
from tests.train.test_codes import write_vq


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer and images, a question about one of them, a text, and a vision tokenizer."""
    folder = tmp_path_factory.mktemp("family")
    demo_data(folder / "demo")
    write_records(folder, 2)
    image = sorted(path.name for path in (folder / "images").iterdir())[0]
    turns = '[{"from": "human", "value": "<image>\\nWhat?"}]'
    (folder / "asked.jsonl").write_text(f'{{"image": "{image}", "answer": "A", "conversations": {turns}}}\n')
    (folder / "words.txt").write_text("A cat.\n")
    write_vq(folder / "vq")
    return folder


def neo(data: Path) -> ConfigDict:
    c = load_config("neo_sft:llm=tiny,extra=1")
    c.data.area, c.model.patch_hidden, c.model.longest_image = (1024, 16_384), 32, 6
    return c


def codes(data: Path) -> ConfigDict:
    c = load_config(f"dt:vq={data}/vq,llm=tiny-llama")
    c.data.template = "qwen2"
    return c


@pytest.mark.parametrize("member", [neo, codes])
def test_a_stage_is_asked_as_its_checkpoint_is(
    member: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = member(data)
    c.data.update(records=f"{data}/records.jsonl", images=f"{data}/images", tokenizer=f"{data}/demo/tokenizer")
    c.eval.update(tasks=f"{data}/asked.jsonl,{data}/words.txt", every=1, fit="shrink")
    config = Config.of(c)
    rule, shapes = SampleRule.of(config), abstract_params(config.sizes)
    params = {name: jnp.zeros(one.shape, one.dtype) for name, one in shapes.items()}
    asked: list[EVE] = []
    monkeypatch.setattr(training, "outcome_of", lambda eve, *_, **__: asked.append(eve))
    monkeypatch.setattr(training, "outcome_of_text", lambda eve, *_: asked.append(eve))
    live = training.LiveTasks(Setting(config, rule, make_mesh(""), tmp_path))
    with pytest.raises(AttributeError):  # of no outcome
        live.measure(params, lambda: False)
    write_stage_files(tmp_path, config, rule, resumed=False, verified=False)

    def loaded(checkpoint: Checkpoint, *_: Any) -> tuple[Any, Params]:
        return ready(checkpoint.here, dict(params))

    monkeypatch.setattr(api, "loaded", loaded)
    monkeypatch.setattr(api, "find_checkpoint", Path)
    saved = EVE.from_pretrained(tmp_path, fit="shrink")
    (now,) = asked
    assert now.engine.cfg == saved.engine.cfg
    assert now.rule.fingerprint() == saved.rule.fingerprint()
    (item,) = live.items["asked.own"]
    message = live.opened[0].task.message(item.row)
    images = [data / "images" / Path(str(image)).name for image in item.images]
    prompts = [eve.prompt(message, images) for eve in (now, saved)]
    assert prompts[0].layout == prompts[1].layout and prompts[0].grids == prompts[1].grids
    np.testing.assert_array_equal(prompts[0].ids, prompts[1].ids)
    np.testing.assert_array_equal(prompts[0].patches[0], prompts[1].patches[0])
    scored: list[ScoreSettings] = []

    def score(cfg: Any, params: Any, records: Any, settings: ScoreSettings, *_: Any) -> Scores:
        scored.append(settings)
        return Scores([Score("0", 1.0, 1.0, 1, 1, 0)], [])

    monkeypatch.setattr(passages, "score_records", score)
    assert [passages.text_loss(eve, TextLoss(data / "words.txt"), True)["tokens"] for eve in (now, saved)] == [1, 1]
    assert scored[0].rule.fingerprint() == scored[1].rule.fingerprint()
    assert scored[0].rule.template == "plain" and scored[0].row_tokens == scored[1].row_tokens
