"""What the processes of a run do together when a stage begins."""

import json
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from eve_jax.config.stage import Config
from eve_jax.data.rows.pipeline import Inputs, StageData, open_stage_data
from eve_jax.data.samples.sample_rule import SampleRule, hash_of
from eve_jax.errors import UserError
from eve_jax.process import cores, places
from eve_jax.process.connect import is_leader
from eve_jax.process.lock import Lock, locked
from eve_jax.process.peers import Peers
from eve_jax.process.published import in_bucket, published
from eve_jax.train.initial_state import check_origins
from eve_jax.train.shared_bad_records import bad_records


@contextmanager
def written_by_one_run(folder: Path, what: str) -> Iterator[Lock | None]:
    """Hold the lock of `folder` in the block, in the process that leads; None in the others.

    Raises UserError, which ends the other processes, too, when another run holds it.
    """
    if not is_leader():
        yield None
        return
    with locked(folder, what) as lock:
        yield lock


def training_in_bucket(folder: Path) -> AbstractContextManager[Lock | None]:
    """The context of a stage's folder that is in a bucket (`in_bucket`); of others, one that does nothing."""
    return in_bucket(folder, "training")


def same_everywhere(peers: Peers | None, what: str, value: str) -> None:
    """UserError unless all processes have the same `value` of `what`, a phrase for the message."""
    if peers is None:
        return
    values = peers.gather("same", places.shown(value))  # copies of one object may lie elsewhere on each host
    other = next((number for number, mine in enumerate(values) if mine != values[0]), None)
    if other is not None:
        raise UserError(f"process {other} has other {what} than process 0: all hosts need the same, at the same paths")


def share_folder(folder: Path, peers: Peers | None) -> None:
    """Makes the folder of a stage; UserError unless all processes see the same one."""
    if peers is None or peers.index == 0:
        folder.mkdir(parents=True, exist_ok=True)
    if peers is None or published(folder) is not None:
        return
    mark = folder / f".process0-{secrets.token_hex(8)}"
    if peers.index == 0:
        mark.touch()
    mark = folder / peers.gather("mark", mark.name)[0]
    seen = peers.gather("seen", "yes" if mark.exists() else "")
    if peers.index == 0:
        mark.unlink()
    if not all(seen):
        raise UserError(
            f"process {seen.index('')} does not see process 0's files in {folder}: the work folder must be on storage "
            "that all hosts share, since each writes its part of a checkpoint there"
        )


def hand_out(folder: Path, peers: Peers, name: str) -> None:
    """Wait until all processes have come here; what process 0 has written in `folder` is then there for all of them."""
    if (work := published(folder)) is not None:
        work.hand_out()
    else:
        peers.gather(name)


def first_inputs(config: Config, folder: Path, fresh: bool) -> tuple[SampleRule | None, Inputs | None]:
    """Open what the stage reads where it begins (before its folder is made), or where it is evaluated by that rule.

    The records are opened by the process that leads: the others read the indexes that it keeps.
    """
    if fresh:
        check_origins(config, config.sizes)
    if not fresh and not config.eval.is_set:
        return None, None
    rule = SampleRule.of(config)
    rule.tokenizer.check_vocabulary(config.sizes.vocab_size, "config.model.vocab_size")
    return rule, Inputs.of(config, folder, rule) if is_leader() else None


def open_data_together(
    config: Config,
    folder: Path,
    peers: Peers | None,
    saved: Mapping[str, Any] | None = None,
    inputs: Inputs | None = None,
    rule: SampleRule | None = None,
) -> StageData:
    """`open_stage_data`, where process 0 measures and plans while the others wait and then read what it left.

    saved: the fingerprint of the data that went with the last checkpoint, None without one. inputs: those of `config`
    where they are open already; of other processes than 0 their `rule` alone. Raises UserError when the hosts' records,
    tokenizers or settings of the data differ.
    """
    bad = bad_records(folder, config.data.max_bad, peers)
    if peers is None:
        return open_stage_data(config, folder, bad, saved=saved, inputs=inputs)
    cores.shared_by(peers.gather("machine", host := socket.gethostname()).count(host))
    if peers.index == 0:
        inputs = inputs or Inputs.of(config, folder)
        inputs.records.keep_index()
    hand_out(folder, peers, "indexed")
    inputs = inputs or Inputs.of(config, folder, rule)
    what = "records, tokenizer or settings of the data"

    def turn(key: str) -> None:
        same_everywhere(peers, what, key)
        if peers.index > 0:
            hand_out(folder, peers, "planned")

    if peers.index > 0 and saved is None:
        saved = {}  # process 0 alone measures again
    data = open_stage_data(config, folder, bad, turn, saved, inputs)
    if peers.index == 0:
        hand_out(folder, peers, "planned")
    same_everywhere(peers, what, f"{data.plan.hash} {hash_of(json.loads(places.shown(json.dumps(data.fingerprint))))}")
    return data
