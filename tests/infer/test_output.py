"""Output in any encoding and to readers that leave: never a traceback, whatever is printed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHOWN = "é 中 👩\u200d👧"
PROGRAM = f"""
import json, sys
from launch._flags import run
from eve_jax.errors import UserError

def main():
    what = sys.stdin.readline().strip()
    if what == "error":
        raise UserError("the file " + {SHOWN!a} + " is missing")
    if what == "many":
        for number in range(100_000):
            print(number, {SHOWN!a}, flush=number % 2 == 0)
    elif what == "buffered":
        print({SHOWN!a} * 100_000)
    elif what == "other":
        raise BrokenPipeError(32, "a socket")
    elif what == "json":
        print(json.dumps({{"text": {SHOWN!a}}}))
    elif what == "echo":
        print(repr(sys.stdin.readline().strip()))
    else:
        print({SHOWN!a}, flush=True)
        print({SHOWN!a}, file=sys.stderr)

run(main)
"""


def run(what: bytes, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(command, cwd=ROOT, input=what, capture_output=True, env=os.environ | env, timeout=120)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8", "ascii:strict"])
def test_encodings(encoding: str) -> None:
    done = run(b"print\n", PYTHONIOENCODING=encoding)
    expected = SHOWN.encode(encoding.removesuffix(":strict"), "backslashreplace") + b"\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, expected)


def test_locale_without_characters() -> None:
    done = run(b"print\n", LC_ALL="C", LANG="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    assert (done.returncode, done.stdout) == (0, SHOWN.encode("ascii", "backslashreplace") + b"\n")


def test_errors_and_json() -> None:
    done = run(b"error\n", PYTHONIOENCODING="ascii")
    assert done.returncode == 1
    assert done.stderr == b"error: the file " + SHOWN.encode("ascii", "backslashreplace") + b" is missing\n"
    done = run(b"json\n", PYTHONIOENCODING="ascii")
    assert json.loads(done.stdout) == {"text": SHOWN}


def test_input_of_another_encoding() -> None:
    done = run(b"echo\na\xe9b\n", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, b"'a\\udce9b'\n")


@pytest.mark.parametrize(("what", "reader"), [("many", "head -n 1"), ("many", "true"), ("buffered", "head -c 9")])
def test_a_reader_that_leaves(what: str, reader: str) -> None:
    command = f'{sys.executable} -c "$PROGRAM" | {reader} >/dev/null; echo ${{PIPESTATUS[0]}}'
    shell, env = ["bash", "-c", command], os.environ | {"PROGRAM": PROGRAM}
    done = subprocess.run(shell, cwd=ROOT, input=what.encode(), capture_output=True, env=env, timeout=120)
    assert (done.stdout, done.stderr) == (b"141\n", b"")


def test_other_pipes_that_break_are_told() -> None:
    done = run(b"other\n")
    assert done.returncode == 1
    assert b"a socket" in done.stderr
