"""The process from which `tests.launcher` forks commands: python -m tests.launcher_server SOCKET."""

import gc
import io
import json
import os
import runpy
import socket
import sys
import warnings

FD = 3


def serve(link: socket.socket) -> dict | None:
    """Fork for each request; returns the request in the child, and None in the server when there are no more."""
    while True:
        size, files, _, _ = socket.recv_fds(link, 8, FD)
        if not size:
            return None
        request = json.loads(link.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
        child = os.fork()
        if not child:
            link.close()
            for number, file in enumerate(files):
                os.dup2(file, number)
            return request
        for file in files:
            os.close(file)
        link.sendall(child.to_bytes(8, "big"))
        _, status = os.waitpid(child, 0)
        link.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, "big", signed=True))


def _stream(number: int, mode: str, **more: object) -> io.TextIOWrapper:
    return open(number, mode, encoding="utf-8", closefd=False, **more)  # type: ignore[call-overload]


if __name__ == "__main__":
    import eve_jax.compile.report
    import eve_jax.demo.report
    import eve_jax.infer.score_files
    import eve_jax.recipe
    import eve_jax.weights.import_export  # noqa: F401

    gc.freeze()  # what is there already is not looked at again by forks, and stays shared
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # JAX's about forks: its threads begin with the first program
        wanted = serve(socket.socket(fileno=int(sys.argv[1])))
    if wanted:
        os.environ.clear()
        os.environ.update(wanted["env"])
        os.chdir(wanted["cwd"])
        sys.stdin, sys.stdout = _stream(0, "r"), _stream(1, "w")
        sys.stderr = _stream(2, "w", errors="backslashreplace", buffering=1)
        sys.argv[1:] = wanted["args"]
        sys.path[0] = wanted["cwd"]  # what -m puts there
        runpy.run_module(wanted["module"], run_name="__main__", alter_sys=True)
