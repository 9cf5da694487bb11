"""Servers of an exported model as processes of this machine, for serve.py: `launch.serve`, and vLLM with the plugin."""

import contextlib
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from eve_jax.errors import UserError

ROOT = Path(__file__).parents[1]
START = 900.0  # seconds that a server may take to be ready
STALLS = re.compile(r'^eve:prompt_stall_blocks_bucket\{.*le="([^"]+)".*\} (\S+)$', re.MULTILINE)
COMPILED = re.compile(r"^eve:compiled_programs\{.*\} (\S+)$", re.MULTILINE)


class Server:
    """A server under way: its address, and what is asked of its process."""

    def __init__(self, url: str, process: subprocess.Popen[bytes]):
        self.url, self.process = url, process

    def compiled(self) -> int | None:
        """Programs that it has compiled; None where it does not say."""
        found = COMPILED.search(self._metrics())
        return int(float(found[1])) if found else None

    def stalls(self) -> dict[float, int]:
        """How many waits for others' prompts before a block of tokens, in times of that block, were up to each bound;
        empty where it does not say."""
        found = STALLS.findall(self._metrics())
        return {float(bound): int(float(count)) for bound, count in found}

    def _metrics(self) -> str:
        import httpx

        return httpx.get(f"{self.url}/metrics", trust_env=False).text

    def peak(self) -> int:
        """The largest resident memory of the process and of each one below it, in bytes, added up."""
        return sum(_peak(number) for number in _below(self.process.pid))


@contextlib.contextmanager
def serving(name: str, command: Sequence[str], env: dict[str, str], folder: Path) -> Iterator[Server]:
    """`command`, where PORT stands for a free port, ready to answer until the block ends; its log is in `folder`.

    Raises UserError, with the end of the log, when it is not.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = Path(tempfile.mkstemp(".log", f"{name}-", folder)[1])
    words = [word.replace("PORT", str(port)) for word in command]
    with log.open("wb") as out:
        process = subprocess.Popen(words, env=env, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
    server = Server(f"http://127.0.0.1:{port}", process)
    try:
        limit = time.monotonic() + START
        while not _healthy(server.url):
            if process.poll() is not None or time.monotonic() > limit:
                raise UserError(f"{name} does not answer:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.5)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ours(export: Path, slots: int, *flags: str) -> list[str]:
    """The command of `launch.serve`."""
    own = [f"--checkpoint={export}", "--port=PORT", f"--slots={slots}", "--fit=shrink", "--temperature=0", "--quiet"]
    return [sys.executable, "-m", "launch.serve", *own, *flags]


def vllm(python: str, export: Path, context: int) -> list[str]:
    """The command of vLLM's server, float32 as ours."""
    module = [python, "-m", "vllm.entrypoints.openai.api_server", f"--model={export}", "--port=PORT"]
    return [*module, "--host=127.0.0.1", "--dtype=float32", "--enforce-eager", f"--max-model-len={context}"]


def _healthy(url: str) -> bool:
    import httpx

    try:
        return httpx.get(f"{url}/health", trust_env=False, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def _below(number: int) -> list[int]:
    """The process and all that it and they have started."""
    children = Path(f"/proc/{number}/task/{number}/children")
    found = [number]
    with contextlib.suppress(OSError):
        for task in children.parents[1].iterdir():
            for child in (task / "children").read_text().split():
                found += _below(int(child))
    return found


def _peak(number: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{number}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
