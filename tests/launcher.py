"""Commands as users run them, `python -m MODULE ARGS`, in forks of a process that has the imports behind it.

Importing JAX, Orbax and numba takes 3 seconds of CPU time, which a hundred commands would spend a hundred times. A fork
runs the command's module as `__main__` with its own arguments, folder, environment, input and output, and ends as the
interpreter does. Tests of what is read during those imports (caches, encodings) start interpreters of their own.
"""

import atexit
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[1]
READ_BY_IMPORTS = ("JAX_", "EVE_", "NUMBA_", "MPL", "PYTHON", "LC_", "LANG")


def launch(
    module: str, *args: str, cwd: Path = ROOT, typed: str = "", timeout: float = 600, **env: str
) -> subprocess.CompletedProcess[str]:
    """Return what `python -m MODULE ARGS` leaves, run in `cwd` with `typed` as input and `env` added to
    the environment.

    Raises TimeoutExpired after `timeout` seconds.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | env
    command = [sys.executable, "-m", module, *args]
    server = _server()
    if _imports_of(environment) != server.imports:
        return subprocess.run(
            command, cwd=cwd, env=environment, input=typed, capture_output=True, text=True, timeout=timeout
        )
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(typed.encode())
        given.seek(0)
        request = {"module": module, "args": args, "cwd": str(cwd), "env": dict(environment)}
        status = server.run(request, (given, out, err), timeout)
        if status is None:
            raise subprocess.TimeoutExpired(command, timeout)
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode().replace("\r\n", "\n"))
    return subprocess.CompletedProcess(command, status, *said)


def _imports_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that imports may read."""
    return {name: value for name, value in environment.items() if name.startswith(READ_BY_IMPORTS)}


@functools.cache
def _server() -> "_Server":
    return _Server(os.environ | {"PYTHONPATH": str(ROOT)})


class _Server:
    """The process that forks; it ends with this one."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.imports = _imports_of(environment)
        self._ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "tests.launcher_server", str(theirs.fileno())]
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=[theirs.fileno()])
        theirs.close()
        atexit.register(self.close)

    def run(self, request: dict, files: tuple[IO[bytes], ...], timeout: float) -> int | None:
        """Return the status of a command, negative for a signal; None when it took too long and was killed."""
        body = json.dumps(request).encode()
        socket.send_fds(self._ours, [len(body).to_bytes(8, "big")], [file.fileno() for file in files])
        self._ours.sendall(body)
        child = self._number()
        self._ours.settimeout(timeout)
        try:
            return self._number()
        except TimeoutError:
            os.kill(child, signal.SIGKILL)
            self._ours.settimeout(None)
            self._number()
            return None
        finally:
            self._ours.settimeout(None)

    def _number(self) -> int:
        got = self._ours.recv(8, socket.MSG_WAITALL)
        assert len(got) == 8, "the process that runs commands ended"
        return int.from_bytes(got, "big", signed=True)

    def close(self) -> None:
        """End the process."""
        self._ours.close()
        self._process.wait()
