"""The project's own rules: file sizes, pinned versions, the two commands of the README."""

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_LINES = 320
CODE = ("eve_jax", "launch", "configs", "tests", "benchmarks", "docs")


def normalised(name: str) -> str:
    """The name of a distribution as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement_name(requirement: str) -> str:
    """`tokenizers` of `tokenizers[testing]>=0.23; python_version < "3.13"`."""
    match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement)
    assert match, f"not a requirement: {requirement!r}"
    return normalised(match.group())


def python_files() -> Iterator[Path]:
    for folder in CODE:
        yield from sorted((ROOT / folder).rglob("*.py"))


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def constraints() -> dict[str, str]:
    """Normalised name -> version of every line of constraints.txt."""
    pairs = (line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
    return {normalised(name): version for name, version in pairs}


def test_files_are_short():
    files = list(python_files())
    assert files
    lengths = {str(file.relative_to(ROOT)): file.read_text().count("\n") for file in files}
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


def test_constraints_are_names_and_versions_only():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    bad = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][0-9A-Za-z.]*", line)]
    assert bad == []
    names = [normalised(line.split("==")[0]) for line in lines]
    assert names == sorted(set(names)), "sorted by name, each once"


def test_every_dependency_is_constrained(project, constraints):
    extras = project["optional-dependencies"]
    required = [*project["dependencies"], *(r for extra in extras.values() for r in extra)]
    assert sorted({requirement_name(r) for r in required} - set(constraints)) == []
    assert sorted(extras) == ["cuda", "demo", "test", "tfds", "torch", "tpu"]


def imported_modules(*folders: str) -> set[str]:
    """The top-level modules that the code in `folders` imports anywhere."""
    found = set()
    for folder in folders:
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {name.name.partition(".")[0] for name in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    found.add((node.module or "").partition(".")[0])
    return found


def test_core_dependencies_are_those_that_the_package_imports(project):
    """What every command needs is a core dependency; what some need is in an extra; nothing else is either."""
    core = {requirement_name(r) for r in project["dependencies"]}
    extras = {requirement_name(r) for r in chain(*project["optional-dependencies"].values())}
    distributions = packages_distributions()
    used = {
        normalised(distributions[module][0])
        for module in imported_modules("eve_jax", "launch", "configs")
        if module in distributions and module not in CODE
    }
    assert core - used == set()
    assert used - core - extras == {"array-record"}  # which grain brings


def test_core_brings_no_second_framework(project, constraints):
    core = {requirement_name(r) for r in project["dependencies"]}
    assert core.isdisjoint({"tensorflow", "torch", "transformers"})
    assert "tensorflow" not in constraints


def test_readme_names_both_commands():
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("no README.md yet")
    text = readme.read_text()
    assert "make demo" in text
    assert "make test" in text


def test_pictures_of_the_readme_exist():
    """Every local picture or link of the README is a file of the project."""
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("no README.md yet")
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)|src=\"([^\"]+)\"", readme.read_text())
    local = [a or b for a, b in targets if "://" not in (a or b)]
    assert [name for name in local if not (ROOT / name).exists()] == []
