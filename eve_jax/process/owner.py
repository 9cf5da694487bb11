"""Who holds a lock, and a folder that holds one."""

import contextlib
import json
import os
import secrets
import shutil
import socket
import tempfile
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Self


@dataclass(frozen=True)
class Owner:
    """A process. began: the start of the process in clock ticks since boot, which tells it from a later one of the same
    pid ("" where it is not known). machine: what `pid` is unique in: a boot of a host, and a container's processes.
    since: when it took the lock (UTC, ISO 8601). token: of this one lock."""

    host: str
    pid: int
    began: str
    machine: str
    since: str
    token: str

    @classmethod
    def this_process(cls) -> Self:
        """Return this process as the owner of a new lock."""
        host, pid = socket.gethostname(), os.getpid()
        machine = f"{_text('/proc/sys/kernel/random/boot_id')} {_namespace()}"
        since = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(host, pid, _process(pid)[1], machine, since, secrets.token_hex(8))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"

    def same_machine(self, other: "Owner") -> bool:
        """Return whether the process table of `other` has this process, if it runs."""
        return (self.host, self.machine) == (other.host, other.machine)

    def is_alive(self) -> bool:
        """Return whether the process still runs on this machine; one that waits for its parent does not."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # it is there, and another user's
        state, began = _process(self.pid)
        return state not in ("Z", "X") and (not began or not self.began or began == self.began)


class Held(NamedTuple):
    """A lock that is held: its owner, what changes with every renewal, and the seconds since the last one."""

    owner: Owner
    stamp: str
    age: float


class FolderStore:
    """A lock that is a folder with one file, TOKEN.json.

    A folder that is complete is renamed to the lock's name, which fails when there is one that is not empty. A file
    named by its token can only be removed by those who know whose lock it is. The time of a renewal is the file's
    modification time, by the clock of the storage.
    """

    def __init__(self, path: Path):
        self.path = path
        self.place = str(path)

    def create(self, owner: Owner) -> bool:
        """Create the lock if there is none; return whether it did. Raises OSError."""
        part = self.path.with_name(f".{self.path.name}-{owner.token}")
        part.mkdir(parents=True)
        try:
            (part / f"{owner.token}.json").write_text(json.dumps(asdict(owner), indent=1))
            with contextlib.suppress(OSError):  # it exists and is not empty, or an answer of the server was lost
                part.rename(self.path)
            return self._file(owner.token).exists()
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def read(self) -> Held | None:
        """Return the lock as it is now, None when there is none."""
        try:
            files = sorted(name for name in os.listdir(self.path) if name.endswith(".json"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        for file in (self.path / name for name in files):
            with contextlib.suppress(OSError):
                with file.open() as opened:  # opening asks the server of a network folder for the time of now
                    renewed = os.fstat(opened.fileno())
                    owner = owner_of(opened.read(), file.stem)
                return Held(owner, f"{file.stem} {renewed.st_mtime_ns}", max(0.0, self._now() - renewed.st_mtime))
        return None

    def renew(self, token: str) -> bool:
        """Mark the lock as used now; return False when it is not that of `token` any more. Raises OSError."""
        try:
            os.utime(self._file(token))
        except FileNotFoundError:
            return False
        return True

    def remove(self, token: str) -> None:
        """Remove the lock if it is that of `token`. Raises OSError."""
        self._file(token).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another has taken it already
            self.path.rmdir()

    def _file(self, token: str) -> Path:
        return self.path / f"{token}.json"

    def _now(self) -> float:
        """Return the time by the clock that the modification times of files here follow."""
        with tempfile.NamedTemporaryFile(prefix=f".{self.path.name}-", dir=self.path.parent) as file:
            return os.fstat(file.fileno()).st_mtime


def owner_of(text: str, token: str) -> Owner:
    """Return the owner that a lock's file names; one that cannot be read is of no machine that is known."""
    try:
        found = json.loads(text)
        return Owner(
            **{field.name: found[field.name] for field in fields(Owner)} | {"pid": int(found["pid"]), "token": token}
        )
    except (ValueError, KeyError, TypeError):
        return Owner("an unknown host", 0, "", "", "an unknown time", token)


def _process(pid: int) -> tuple[str, str]:
    """Return state and start time of a process as Linux has them, "" where they cannot be known."""
    found = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()  # the name before it may hold anything
    return (found[0], found[19]) if len(found) > 19 else ("", "")


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
