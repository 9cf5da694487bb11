"""The project's own rules: file sizes, pinned versions, the two commands of the README."""

import re
import tomllib
from collections.abc import Iterator
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
    assert sorted(extras) == ["cuda", "demo", "test", "torch", "tpu", "wandb"]


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
