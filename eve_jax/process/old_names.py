"""Modules by the names that they had in version 0.1, importable with a warning until version 0.3."""

import sys
import warnings
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

OLD = {
    "eve_jax.convert": "eve_jax.weights",
    "eve_jax.convert.convert": "eve_jax.weights.import_export",
    "eve_jax.convert.hf_config": "eve_jax.hf.config",
    "eve_jax.convert.names": "eve_jax.hf.names",
    "eve_jax.convert.source": "eve_jax.weights.open",
    "eve_jax.data.chat": "eve_jax.data.text.encode",
    "eve_jax.data.images": "eve_jax.data.image.patches",
    "eve_jax.data.records": "eve_jax.data.sources.records",
    "eve_jax.data.tokenizer": "eve_jax.data.text.load",
    "eve_jax.infer.eve": "eve_jax.infer.api",
    "eve_jax.train.checkpoint": "eve_jax.checkpoint.stage_folder",
}


class OldNames(MetaPathFinder, Loader):
    """Finds the modules of `OLD`: each looks its names up in the module of the new name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, is_package=True) if fullname in OLD else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Return None: an empty module is made."""

    def exec_module(self, module: ModuleType) -> None:
        new = import_module(OLD[module.__name__])
        text = f"{module.__name__} is now {new.__name__}; the old name will be gone in version 0.3"
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        vars(module)["__getattr__"] = partial(getattr, new)


def install() -> None:
    """Make `OLD` importable, once."""
    if not any(isinstance(finder, OldNames) for finder in sys.meta_path):
        sys.meta_path.insert(0, OldNames())  # before folders that a checkout may still have
