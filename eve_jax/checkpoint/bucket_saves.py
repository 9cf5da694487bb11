"""Checkpoints in a bucket by several processes, none of which sees another's files.

Orbax writes as to a disk of each host's own: a process has its shards in STEP/ITEM/ocdbt.process_N and calls itself the
primary one. Each sends its files and their sums, in STEP/manifest.process_N.json; then process 0 makes one index of all
parts, which refers to them and copies none, and writes the manifest, with which the checkpoint counts. From then on the
folder here is what a fetched one is: the process's own part, and what belongs to no part, as process 0 has written it.
"""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from eve_jax.checkpoint.bucket_parts import merge
from eve_jax.checkpoint.checksums import MANIFEST, Sum, sums_of, write_manifest
from eve_jax.checkpoint.shared_sums import PART
from eve_jax.errors import UserError
from eve_jax.process import buckets, places
from eve_jax.process.fetched import fetch_step, writer_of
from eve_jax.process.peers import POLL, Peers
from eve_jax.process.publishing import Published

CLEARED, DONE = "cleared", "done"  # what process 0 tells: that others may send, how it ended


def each_on_its_own(options: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of Orbax's manager for `options` of it, with which no process expects another's files.

    Nobody waits for others within Orbax: `BucketSaves.seal` does, and tells all when one of them fails. Trees are those
    of `ocp.args.PyTreeSave`.
    """
    alone = ocp.options.MultiprocessingOptions(primary_host=None)
    options["async_options"].barrier_sync_fn = lambda *, key, timeout_ms: None
    return {
        "options": ocp.CheckpointManagerOptions(**options, multiprocessing_options=alone),
        "item_handlers": {
            "params": _of_a_part(alone),
            "optimizer": _of_a_part(alone),
            "meta": ocp.JsonCheckpointHandler(multiprocessing_options=alone),
        },
    }


def _of_a_part(alone: ocp.options.MultiprocessingOptions) -> ocp.PyTreeCheckpointHandler:
    """What writes a tree of which this process may have no shard of an array: `merge` looks at the whole of it."""
    own = ocp.BasePyTreeCheckpointHandler(multiprocessing_options=alone, enable_post_merge_validation=False)
    return ocp.PyTreeCheckpointHandler(multiprocessing_options=alone, handler_impl=own)


@dataclass
class BucketSaves:
    """What the processes of a run do together when each has written its part of a checkpoint; see above."""

    work: Published
    peers: Peers
    count: int = 0  # of saves, in each process the same

    def seal(self, made: Path, step: Path) -> None:
        """Publish the folder `made`, to which all have written, under the name of `step`; in every process.

        Raises OSError in all of them where one fails; the checkpoint does not count then.
        """
        self.count += 1
        told = f"bucket saves/{step.parent.parent.name}/{self.count}/{step.name}/"
        if self.peers.index:
            self._follow(made, step, told)
            return
        ended = ""
        try:
            url = self.work.begin(step)
            self.peers.put(f"{told}{CLEARED}", "")
            files = self._sent(made, url)
            self._wait_for_parts(url, told)
            parts = [json.loads(buckets.read_whole(_part(url, n))) for n in range(1, self.peers.count)]
            self._publish(made, url, files, parts)
            self.work.end(made, url, step)
        except BaseException as error:
            ended = _described(error)
            raise
        finally:
            self.peers.put(f"{told}{DONE}", ended)

    def _follow(self, made: Path, step: Path, told: str) -> None:
        """What other processes than 0 do."""
        url = places.join(self.work.url, str(step.relative_to(self.work.folder)))
        name, failed = f"{told}{self.peers.index}", ""
        found = self._wait_for(told, CLEARED)
        if CLEARED in found:
            try:
                mine = json.dumps(self._sent(made, url)).encode()
                self.work.write(_part(url, self.peers.index), mine)
            except Exception as error:
                failed = _described(error)
                raise
            finally:
                self.peers.put(name, failed)
            found = self._wait_for(told, DONE)
        if found[DONE]:
            raise OSError(None, found[DONE], url)
        self._take_over(made, url)

    def _sent(self, made: Path, url: str) -> dict[str, Sum]:
        """Send the files that this process alone writes, and return the sums that they had before."""
        mine = sums_of(made, [name for name in _files(made) if writer_of(name) == self.peers.index])
        self.work.send(made, url, list(mine))
        return mine

    def _wait_for_parts(self, url: str, told: str) -> None:
        """Wait until all others have sent their files. Raises OSError when one of them could not."""
        others = set(map(str, range(1, self.peers.count)))
        while True:
            found = {number: text for number, text in self.peers.found(told).items() if number in others}
            if failed := next(filter(None, found.values()), ""):
                raise OSError(None, failed, url)
            if len(found) == len(others):
                return
            time.sleep(POLL / 5)

    def _wait_for(self, told: str, what: str) -> Mapping[str, str]:
        """Wait for what process 0 tells, or that it has failed."""
        while True:
            found = self.peers.found(told)
            if what in found or DONE in found:
                return found
            time.sleep(POLL / 5)

    def _publish(self, made: Path, url: str, files: dict[str, Sum], parts: list[dict[str, Sum]]) -> None:
        """Send what belongs to no part, and write the manifest of all files, of which none may be missing."""
        for part in parts:
            files |= part
        merge(made, url, files, self.peers.count)
        common = [name for name in _files(made) if writer_of(name) is None]
        files |= sums_of(made, [name for name in common if "/" in name])  # but not of those next to the items
        self.work.send(made, url, common)
        buckets.together(lambda number: buckets.remove(_part(url, number)), range(1, self.peers.count))
        for name in sorted(set(files) - set(buckets.names_below(url))):
            if not buckets.exists(places.join(url, name)):  # a list may be older than what was written
                raise buckets.Refused(places.join(url, name), "it was written, and is not there")
        write_manifest(made, files)

    def _take_over(self, made: Path, url: str) -> None:
        """Let the folder here have what process 0 wrote next to the parts; where it cannot, it counts for nothing."""
        for name in _files(made):
            if "/" in name and writer_of(name) != self.peers.index:
                (made / name).unlink()
        try:
            (made / MANIFEST).write_bytes(buckets.read_whole(places.join(url, MANIFEST)))
            fetch_step(url, made, self.work.is_kept)
        except (OSError, UserError) as error:
            (made / MANIFEST).unlink(missing_ok=True)
            print(f"warning: {places.shown(str(error))}; it is fetched when it is needed", file=sys.stderr, flush=True)


def _files(folder: Path) -> list[str]:
    """The names of all files below `folder`, relative to it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _part(url: str, number: int) -> str:
    return places.join(url, PART.format(number))


def _described(error: BaseException) -> str:
    where = f"{places.shown(str(error.filename))}: " if isinstance(error, OSError) and error.filename else ""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{where}{' '.join(text.split())}" if text else type(error).__name__
