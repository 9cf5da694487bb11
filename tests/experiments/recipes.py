"""The recipes of experiments as they are checked, without anything that would be fetched."""

from typing import Any

from eve_jax.config.stage import Config
from eve_jax.demo.config import RecipeConfig
from eve_jax.experiments.config import ExperimentConfig


def made(module: Any, arg: str = "") -> RecipeConfig:
    """The recipe with weights and tokenizers of the hub left out, which are not fetched here."""
    config = module.get_config(arg)
    for stage in config.stages.values():
        stage.init = "" if stage.init.startswith("hf:") else stage.init
        stage.data.tokenizer = "" if stage.data.tokenizer.startswith("hf:") else stage.data.tokenizer
    return RecipeConfig.of(config)


def section(config: RecipeConfig) -> ExperimentConfig:
    assert config.experiment is not None
    return config.experiment


def stages(config: RecipeConfig) -> list[Config]:
    return [config.stages[name] for name in config.order]
