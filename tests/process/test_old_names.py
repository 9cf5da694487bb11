"""Modules that moved are found by their names of version 0.1."""

import subprocess
import sys
from importlib import import_module

import pytest

from eve_jax.process.old_names import OLD


@pytest.mark.parametrize("old", OLD)
def test_an_old_name_has_what_the_new_module_has(old: str) -> None:
    if old in sys.modules:
        del sys.modules[old]
    with pytest.warns(DeprecationWarning, match=f"{old} is now {OLD[old]}; the old name will be gone"):
        module = import_module(old)
    new = import_module(OLD[old])
    assert all(getattr(module, name) is value for name, value in vars(new).items() if not name.startswith("__"))


def test_names_used_outside_the_package() -> None:
    code = (
        "from eve_jax.data.chat import IMAGE_ID, encode_chat\n"
        "from eve_jax.data.images import BadImage, open_image\n"
        "from eve_jax.data.records import Turn, open_records\n"
        "from eve_jax.data.tokenizer import load_tokenizer\n"
        "from eve_jax.convert.hf_config import model_config\n"
        "from eve_jax.convert.convert import import_checkpoint\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_never_was() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"eve_jax\.convert\.nothing"):
        import_module("eve_jax.convert.nothing")
