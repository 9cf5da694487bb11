"""A process of its own that opens poisoned files: `python -m tests.mutations.poison FOLDER FIRST END KIND ...`

FOLDER holds what `targets` made. A number of a kind is always the same mutation. Each of FIRST to END, without END, is
noted in FOLDER/at before it is tried, so that a crash has a name. Fails for an exception that is not for people, a file
that is opened outside of the folder and of Python's own, ten seconds for one mutation, and a gigabyte of memory.
"""

import faulthandler
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eve_jax.errors import UserError
from tests.mutations.other_bytes import mutated
from tests.mutations.targets import KINDS

SECONDS, GIGABYTE = 10, 2**30


class Watch:
    """Notes the files that are opened to be read outside of `folder`, but for Python's own and what is loaded late."""

    def __init__(self, folder: Path):
        own = (folder, Path(sys.prefix), Path(sys.base_prefix), Path.cwd(), Path(os.environ.get("EVE_CACHE", "/none")))
        self.own = tuple(os.path.realpath(path) for path in own) + tuple(map(os.path.abspath, own)) + ("/proc", "/sys")
        self.outside: list[str] = []
        self.on = False
        sys.addaudithook(self)

    def __call__(self, event: str, given: tuple[Any, ...]) -> None:
        if not self.on or event not in ("open", "os.listdir", "os.scandir") or not isinstance(given[0], str | bytes):
            return
        path = os.path.abspath(os.fsdecode(given[0]))
        if not path.startswith(self.own) or not os.path.realpath(path).startswith(self.own):
            self.outside.append(f"{event} {path}")


def run(folder: Path, kind: str, numbers: range, watch: Watch) -> None:
    """Try the mutations `numbers` of `kind`."""
    target = KINDS[kind]
    whole = {name: (folder / kind / name).read_bytes() for name in target.files}
    use: Callable[[Path], object] = target.open(folder / kind)
    use(folder / kind)  # what is not mutated can be used; late imports are over
    for number in numbers:
        (folder / "at").write_text(f"{kind} {number}")
        rng = random.Random(f"{kind} {number}")
        name = rng.choice(target.files)
        poisoned = target.mutate(whole[name], rng) if target.mutate else mutated(whole[name], rng)
        (folder / kind / name).write_bytes(poisoned)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        watch.on = True
        try:
            use(folder / kind)
        except UserError as error:
            assert "\n" not in str(error), f"{kind} {number}: {error}"
        except BaseException as error:
            raise SystemExit(f"{kind} {number}: {type(error).__name__}: {error}") from error
        finally:
            watch.on = False
            faulthandler.cancel_dump_traceback_later()
        used = _peak()
        if watch.outside or used > GIGABYTE:
            raise SystemExit(f"{kind} {number}: opened {watch.outside}, {used / 2**20:.0f} MiB")
        (folder / kind / name).write_bytes(whole[name])
    (folder / "at").write_text(f"{kind} done")


def _peak() -> int:
    """Bytes that this process had in memory at most; its parent's are in what `resource` says."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    watched = Watch(Path(sys.argv[1]))
    for one in sys.argv[4:]:
        run(Path(sys.argv[1]), one, range(int(sys.argv[2]), int(sys.argv[3])), watched)
