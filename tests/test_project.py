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
MAX_LINES, MAX_LINES_OF_TESTS = 300, 320
MAX_FUNCTION_LINES, MAX_PARAMETERS = 80, 8
CODE = ("eve_jax", "launch", "configs", "tests", "benchmarks", "docs", "examples", "eve_vllm")
# Called by transformers with these names: its generation and its Trainer read them from the signatures.
OF_TRANSFORMERS = {
    ("eve_jax/hf/torch_eve/configuration_eve.py", "EveConfig.__init__"),
    ("eve_jax/hf/torch_eve/modeling_eve.py", "EveForCausalLM.forward"),
}


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
        yield from sorted(file for file in (ROOT / folder).rglob("*.py") if not file.is_symlink())


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def constraints() -> dict[str, str]:
    """Normalized name -> version of every line of constraints.txt."""
    pairs = (line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
    return {normalised(name): version for name, version in pairs}


def test_files_are_short():
    files = list(python_files())
    assert files
    lengths = {str(file.relative_to(ROOT)): file.read_text().count("\n") for file in files}
    limits = {name: MAX_LINES_OF_TESTS if name.startswith("tests/") else MAX_LINES for name in lengths}
    assert {name: n for name, n in lengths.items() if n > limits[name]} == {}


def functions(file: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda]]:
    """Every function in a file by its name with those of the classes and functions around it."""

    def inside(node: ast.AST, around: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda]]:
        for child in ast.iter_child_nodes(node):
            name = f"{around}.{getattr(child, 'name', '<lambda>')}".lstrip(".")
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                yield name, child
            named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            yield from inside(child, name if named else around)

    return inside(ast.parse(file.read_text()), "")


def n_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> int:
    """Parameters of a function, `*args` and `**kwargs` one each, `self` and `cls` none."""
    own = function.args
    names = [one.arg for one in (*own.posonlyargs, *own.args, *own.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"])) + (own.vararg is not None) + (own.kwarg is not None)


def test_functions_are_short_and_take_few_parameters():
    long, wide = {}, {}
    for file in python_files():
        path = file.relative_to(ROOT).as_posix()
        for name, function in functions(file):
            lines = (function.end_lineno or 0) - function.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                long[path, name] = lines
            if n_parameters(function) > MAX_PARAMETERS and not path.startswith("tests/"):
                wide[path, name] = n_parameters(function)
    assert long == {}
    assert set(wide) == OF_TRANSFORMERS, "a function that takes too many, or an exemption that is needed no more"


def test_functions_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "class A:\n    def f(self, a, /, b, *c, d=lambda x, y: 0, **e):\n        async def g(cls, h, i): ...\n"
        "def self_alone(a, self): ...\n"
    )
    counts = {name: n_parameters(function) for name, function in functions(tmp_path / "a.py")}
    assert counts == {"A.f": 5, "A.f.<lambda>": 2, "A.f.g": 2, "self_alone": 2}


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
    assert sorted(extras) == [
        "clients",
        "cuda",
        "curate",
        "demo",
        "experts",
        "gcs",
        "jpeg",
        "lmms",
        "mlflow",
        "page",
        "quant",
        "ray",
        "s3",
        "serve",
        "test",
        "tfds",
        "torch",
        "tpu",
        "wandb",
    ]


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


def test_extras_are_installed_by_one_form_of_the_command():
    """By `eve_jax.errors.install` in messages, and as it says in documents: nothing of this name is on an index."""
    told = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), *python_files()]
    wrong = re.compile(r"""pip install (?:-e )?["'](?:eve[-_]jax|\.)\[|pip install [^\n]*["']eve[-_]jax\[""")
    found = [f"{path}: {line}" for path in told for line in path.read_text().splitlines() if wrong.search(line)]
    assert not [line for line in found if "tests/" not in line and "docs/eval.md" not in line], found


def test_readme_names_both_commands():
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("no README.md yet")
    text = readme.read_text()
    assert "make demo" in text
    assert "make test" in text
    assert len(text.splitlines()) <= 160


def test_pictures_of_the_readme_exist():
    """Every local image or link of the README is a file of the project."""
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("no README.md yet")
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)|src=\"([^\"]+)\"", readme.read_text())
    local = [a or b for a, b in targets if "://" not in (a or b)]
    assert [name for name in local if not (ROOT / name).exists()] == []
