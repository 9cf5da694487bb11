"""The entry point by which lmms-eval finds `--model eve_jax`."""

from typing import Any


def manifest() -> Any:
    """Return what lmms-eval registers: the name of the model and the path of its class."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="eve_jax", chat_class_path="eve_jax.eval.lmms_model.EveJax")
