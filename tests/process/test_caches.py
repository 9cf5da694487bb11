"""Caches of XLA, numba and matplotlib: one folder for all, a temporary one if it cannot be written, damage repaired."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eve_jax.process import caches

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.long
MODULE = """
from eve_jax.process.compiled import njit

@njit
def twice(x):
    return 2 * x
"""
USE = """
import os, sys
import eve_jax
from eve_jax.process.caches import cache_folder, numba_folder
sys.path.insert(0, os.environ["MODULE"])
import module
assert module.twice(21) == 42
print(cache_folder(), numba_folder(), os.environ.get("MPLCONFIGDIR", "-"))
"""
# A user without an entry in passwd, who can read this installation, wherever it is, and write nothing of it.
READS = "+dac_read_search"
NOBODY = [
    "setpriv",
    "--reuid=12345",
    "--regid=12345",
    "--clear-groups",
    f"--inh-caps=-all,{READS}",
    f"--ambient-caps={READS}",
]


@pytest.fixture(autouse=True, scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that cannot be written, with a module of one compiled function."""
    folder = tmp_path_factory.mktemp("module")
    for path in (folder, *folder.parents[:2]):
        path.chmod(0o755)
    (folder / "module.py").write_text(MODULE)
    folder.chmod(0o555)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODULE", str(folder))
        yield folder


def use(code: str = USE, *before: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process with no other variables than `variables`."""
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "MODULE": os.environ["MODULE"],
        **variables,
    }
    command = [*before, sys.executable, "-c", code]
    return subprocess.run(command, env=env, capture_output=True, text=True, cwd="/", timeout=120)


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    folder.chmod(0o777)
    for path in folder.parents:  # those of pytest
        if path == Path(tempfile.gettempdir()):
            break
        path.chmod(0o755)
    return folder


def test_one_folder_for_all(tmp_path):
    done = use(EVE_CACHE=str(tmp_path / "c"), HOME=str(tmp_path / "home"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[:3] == [str(tmp_path / "c" / name) for name in ("", "numba", "matplotlib")]
    assert list((tmp_path / "c" / "numba").rglob("*.nbi"))
    assert not (tmp_path / "home").exists()


def test_what_the_user_has_set_comes_first(tmp_path):
    mine = {"NUMBA_CACHE_DIR": str(tmp_path / "n"), "MPLCONFIGDIR": str(tmp_path / "m")}
    done = use(EVE_CACHE=str(tmp_path / "c"), **mine)
    assert done.stdout.split()[1:3] == list(mine.values())
    assert list((tmp_path / "n").rglob("*.nbi"))
    code = "from eve_jax.process.setup import setup; import jax; setup(); print(jax.config.jax_compilation_cache_dir)"
    assert use(code, EVE_CACHE=str(tmp_path / "c")).stdout == f"{tmp_path}/c/xla\n"
    given = use(code, EVE_CACHE=str(tmp_path / "c"), JAX_COMPILATION_CACHE_DIR=str(tmp_path / "x"))
    assert given.stdout == f"{tmp_path}/x\n"


def test_programs_of_a_process_that_is_not_ours(tmp_path):
    """Kept as a launcher's where asked for, unless it said something of that."""
    code = (
        "from eve_jax.process.setup import keep_programs_of_library as keep; import jax; c = jax.config\n"
        "c.update('jax_enable_compilation_cache', False); keep(True); print(c.jax_compilation_cache_dir)\n"
        "c.update('jax_enable_compilation_cache', True); c.update('jax_compilation_cache_dir', 'own'); keep(True)\n"
        "print(c.jax_compilation_cache_dir); c.update('jax_compilation_cache_dir', None)\n"
        "c.update('jax_persistent_cache_min_compile_time_secs', 7.0); keep(True)\n"
        "print(c.jax_compilation_cache_dir, c.jax_persistent_cache_min_compile_time_secs,"
        " c.jax_persistent_cache_min_entry_size_bytes)"
    )
    done = use(code, EVE_CACHE=str(tmp_path / "c"))
    assert done.stdout.split() == ["None", "own", f"{tmp_path}/c/xla", "7.0", "-1"], done.stderr


def test_a_process_that_is_not_ours_stays_as_it_is_unless_asked(tmp_path):
    code = (
        "import jax; from jax._src import compilation_cache as kept; before = dict(jax.config.values), kept.LRUCache\n"
        "from eve_jax import EVE\n"
        "for how in ({}, {'cache': False}):\n"
        "    try: EVE.from_pretrained('/none', **how)\n"
        "    except Exception as error: print(error)\n"
        "print((dict(jax.config.values), kept.LRUCache) == before)"
    )
    done = use(code, EVE_CACHE=str(tmp_path / "c"))
    assert done.stdout.splitlines()[-1] == "True", done.stderr
    assert done.stdout.count("/none") == 2
    assert not (tmp_path / "c" / "xla").exists()


def test_a_folder_for_the_programs_of_a_process_that_is_not_ours(tmp_path):
    code = (
        "from eve_jax.process.setup import keep_programs_of_library as keep; import jax; c = jax.config\n"
        "def tried(cache):\n"
        "    try: keep(cache); print(c.jax_compilation_cache_dir)\n"
        "    except Exception as error: print(error)\n"
        "tried('/proc/none'); tried(5); tried('$HOME/x'); jax.jit(lambda x: x + 1)(1); tried('~/x'); tried('/other')\n"
        "c.update('jax_enable_compilation_cache', False); tried('~/x')"
    )
    lines = use(code, HOME=str(tmp_path)).stdout.splitlines()
    assert lines == [
        "cache=/proc/none: the folder cannot be written (No such file or directory)",
        "cache=5: expected True, False, or the path of a folder",
        f"{tmp_path}/x",
        f"{tmp_path}/x",
        f"cache=/other: this process keeps compiled programs in {tmp_path}/x (jax_compilation_cache_dir) already; "
        "leave cache out",
        "cache=~/x: this process keeps no compiled programs, since jax_enable_compilation_cache is off",
    ]
    assert list((tmp_path / "x").glob("*-cache"))


def test_the_default(tmp_path):
    home = {"HOME": str(tmp_path)}
    assert use(**home).stdout.split()[:3] == [f"{tmp_path}/.cache/eve_jax", f"{tmp_path}/.cache/eve_jax/numba", "-"]
    assert use(**home, XDG_CACHE_HOME=f"{tmp_path}/xdg").stdout.split()[0] == f"{tmp_path}/xdg/eve_jax"
    assert use(**home, XDG_CACHE_HOME="relative", EVE_CACHE="").stdout.split()[0] == f"{tmp_path}/.cache/eve_jax"
    assert use(**home, EVE_CACHE="~/here").stdout.split()[0] == f"{tmp_path}/here"


MISSING = "cannot be written (No such file or directory)"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"HOME": "/proc"}, f"/proc/.cache/eve_jax {MISSING}"),
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in (
                ({"HOME": "/dev/null"}, "/dev/null/.cache/eve_jax cannot be written (Not a directory)"),
                ({"HOME": "/", "EVE_CACHE": "/proc/none"}, f"/proc/none {MISSING}"),
                ({"XDG_CACHE_HOME": "/proc"}, f"/proc/eve_jax {MISSING}"),
            )
        ),
    ],
)
def test_a_folder_that_cannot_be_written(temporary, variables, said):
    for _ in range(2):  # the second time, the folder is there
        done = use(TMPDIR=str(temporary), **variables)
        folder = temporary / f"eve_jax-{os.getuid()}"
        assert done.returncode == 0
        kept = f"compiled programs and copies of remote files are kept in {folder}"
        assert done.stderr == f"{said}: {kept}; EVE_CACHE=FOLDER names another place\n"
        assert done.stdout.split()[:3] == [str(folder / name) for name in ("", "numba", "matplotlib")]
    assert folder.stat().st_mode & 0o777 == 0o700


def test_no_home_folder(temporary):
    """No HOME and no entry in passwd, an installation that cannot be written."""
    if os.getuid() or not shutil.which("setpriv"):
        pytest.skip("requires root and setpriv, to become a user without a home folder")
    done = use(USE, *NOBODY, TMPDIR=str(temporary))
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(
        f"there is no home folder: compiled programs and copies of remote files are kept in {temporary}/eve_jax-12345;"
    )
    assert done.stderr.count("\n") == 1
    code = "from eve_jax import EVE; import matplotlib.font_manager; from eve_jax.process.setup import setup; setup()"
    done = use(code, *NOBODY, TMPDIR=str(temporary))
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
    (temporary / "c").mkdir()
    (temporary / "c").chmod(0o777)
    done = use(code, *NOBODY, EVE_CACHE=str(temporary / "c"))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_temporary_folder_of_another_is_not_used(temporary, monkeypatch, capsys):
    monkeypatch.setattr(caches.tempfile, "tempdir", str(temporary))
    planted = temporary / f"eve_jax-{os.getuid()}"
    planted.mkdir()
    planted.chmod(0o777)  # anyone could put code there, which would be run
    with pytest.MonkeyPatch.context() as patch:
        for name in ("EVE_CACHE", "MPLCONFIGDIR"):
            patch.setenv(name, "/proc/none")
        folder = caches.cache_folder()
        assert folder is not None
        assert folder != planted
        assert folder.parent == temporary
        assert f"kept in {folder}" in capsys.readouterr().err
    caches._found.cache_clear()


def loaded(module: Path) -> Any:
    """The compiled function as a new process has it."""
    spec = importlib.util.spec_from_file_location("module", module / "module.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made.twice


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", ["empty", "cut", "garbage", "zeros", "flipped", "folder", "gone"])
def test_damaged_functions_are_compiled_again(module, tmp_path, monkeypatch, suffix, damage):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert loaded(module)(3) == 6
    (file,) = tmp_path.rglob(f"*.{suffix}")
    data = file.read_bytes()
    middle = len(data) // 2
    file.unlink()
    if damage == "folder":
        file.mkdir()
    elif damage != "gone":
        bytes_now = {
            "empty": b"",
            "cut": data[:middle],
            "garbage": b"\x80\x04garbage" + data[9:middle],
            "zeros": bytes(len(data)),
            "flipped": data[:middle] + bytes(b ^ 255 for b in data[middle : middle + 64]) + data[middle + 64 :],
        }
        file.write_bytes(bytes_now[damage])
    again = loaded(module)
    assert again(3) == 6
    assert not again.compiled().stats.cache_hits
    third = loaded(module)
    assert third(3) == 6
    assert bool(third.compiled().stats.cache_hits) == (damage != "folder"), "what was damaged is written again"


def test_a_cache_that_can_no_longer_be_written(module, tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "n"))
    function = loaded(module).compiled()
    shutil.rmtree(tmp_path / "n")
    (tmp_path / "n").touch()
    assert function(3) == 6


def test_a_damaged_list_of_fonts_is_made_again(tmp_path):
    code = "import eve_jax, matplotlib.font_manager as f; print(len(f.fontManager.ttflist) > 5)"
    assert use(code, EVE_CACHE=str(tmp_path)).stdout == "True\n"
    (fonts,) = (tmp_path / "matplotlib").glob("fontlist*.json")
    for text in ("", "{", '{"_version": 1}', "\0" * 100):
        fonts.write_text(text)
        done = use(code, EVE_CACHE=str(tmp_path))
        assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
