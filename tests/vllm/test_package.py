"""The plugin's package: what it imports, and that it shares the files of an export."""

import ast
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "eve_vllm"
OURS = {"eve_jax", "launch", "configs", "jax", "flax"}


def imports(file: Path) -> set[str]:
    """Top-level modules that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").partition(".")[0])
    return found


def test_plugin_imports_neither_jax_nor_the_project():
    files = sorted(PLUGIN.glob("*.py"))
    assert len(files) > 5
    used = set().union(*map(imports, files))
    assert used & OURS == set()
    assert used - set(sys.stdlib_module_names) == {"PIL", "numpy", "torch", "transformers", "vllm"}


def test_plugin_shares_the_files_of_an_export():
    shared = sorted(file.name for file in PLUGIN.iterdir() if file.is_symlink())
    assert shared == ["configuration_eve.py", "inputs_eve.py", "modules_eve.py", "rotary_eve.py"]
    for name in shared:
        assert (PLUGIN / name).resolve() == ROOT / "eve_jax" / "hf" / "torch_eve" / name


def test_plugin_has_the_version_of_the_project():
    from eve_jax import __version__

    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    assert project["entry-points"]["vllm.general_plugins"] == {"eve": "eve_vllm:register"}
