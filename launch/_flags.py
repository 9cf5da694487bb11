"""Command lines: `--config=NAME[:args]` to `configs/NAME.py`, overrides, and errors as one line."""

import contextlib
import difflib
import errno
import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from eve_jax.errors import Hanging, UserError
from eve_jax.hosts.cluster import Cluster
from eve_jax.train import interrupt
from launch._output import quiet_when_unread, tolerate_encodings

CONFIGS = Path(importlib.import_module("configs").__file__ or "").parent
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
NOT_CONFIGS = {"__init__", "base", "args"}


def known_configs() -> list[str]:
    """Names that `--config=` takes."""
    return sorted(p.stem for p in CONFIGS.glob("*.py") if p.stem not in NOT_CONFIGS)


def define_config() -> Any:
    """Define `--config` and its overrides; returns the flag holder."""
    text = f"NAME[:args], with NAME of {', '.join(known_configs())}; fields are set by --config.FIELD=VALUE"
    return config_flags.DEFINE_config_file("config", None, text)


def define_cluster() -> Callable[[], Cluster]:
    """Define the flags that say how several processes find each other; returns what reads them."""
    coordinator = flags.DEFINE_string(
        "coordinator",
        "",
        "HOST:PORT at which process 0 is reached, when the processes are started by hand; TPU pods, SLURM, Open MPI "
        "and indexed Kubernetes jobs are recognised without",
    )
    count = flags.DEFINE_integer("num_processes", None, "how many processes train together", lower_bound=1)
    number = flags.DEFINE_integer("process_id", None, "which of them this is, from 0", lower_bound=0)
    dead = flags.DEFINE_integer("peer_timeout", 40, "seconds of silence until a process counts as dead", lower_bound=5)
    wait = flags.DEFINE_integer("start_timeout", 300, "seconds to wait for all processes at the start", lower_bound=5)
    for holder in (coordinator, count, number, dead, wait):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[holder.name])  # --help shows it
    return lambda: Cluster(coordinator.value or "", count.value, number.value, dead.value or 0, wait.value or 0)


def load_config(value: str) -> ConfigDict:
    """The configuration that `NAME[:args]` stands for."""
    name, _, arg = value.partition(":")
    if name not in known_configs():
        raise UserError(f"--config={value}: unknown config {name!r}; known: {', '.join(known_configs())}")
    return importlib.import_module(f"configs.{name}").get_config(arg)


def _check_overrides(argv: list[str], config: ConfigDict) -> None:
    for item in argv:
        found = re.match(r"--config\.([^=]+)", item)
        if found is None:
            continue
        node: Any = config
        path = found[1].split(".")
        for depth, key in enumerate(path):
            if not isinstance(node, ConfigDict) or key not in node:
                known = list(node.keys()) if isinstance(node, ConfigDict) else []
                near = difflib.get_close_matches(key, known, 1)
                inside = [k for k in known if isinstance(node[k], ConfigDict) and path[-1] in node[k]]
                near = near or [f"{k}.{path[-1]}" for k in inside[:1]]
                hint = f"; did you mean config.{'.'.join([*path[:depth], near[0]])}?" if near else ""
                raise UserError(f"--config.{found[1]}: there is no field config.{'.'.join(path[: depth + 1])}{hint}")
            node = node[key]


def _resolve(argv: list[str]) -> list[str]:
    """`--config=NAME:arg` and `--config NAME:arg` with the file's path in place of the name."""
    joined = re.sub(r"(^|\0)--config\0(?!-)", r"\1--config=", "\0".join(argv)).split("\0")
    out = []
    for item in joined:
        if item == "--config":
            raise UserError(f"--config wants a name: --config=NAME, with NAME of {', '.join(known_configs())}")
        if item.startswith("--config="):
            value = item.removeprefix("--config=")
            _check_overrides(joined, load_config(value))
            name, colon, arg = value.partition(":")
            item = f"--config={CONFIGS / name}.py{colon}{arg}"
        out.append(item)
    return out


def _parse(argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(_resolve(argv))
    except (flags.Error, UserError, TypeError, ValueError) as error:
        missing = re.findall(r"flag --(\w+)=None: ", str(error))
        fail(UserError(f"{' and '.join(f'--{m}' for m in missing)} must be given (see --help)") if missing else error)
    if len(rest) > 1:
        fail(UserError(f"unexpected argument {rest[1]!r} (see --help)"))
    return rest


def fail(error: BaseException) -> None:
    """Print `error` as the one line that users are meant to see and exit with status 1."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    sys.exit(1)


def take_action(argv: list[str], program: str, actions: Sequence[str]) -> str:
    """Remove the action from the command line and return it; "help" when only help is asked for."""
    words = [a for a in argv[1:] if not a.startswith("-")]
    if any(a.startswith("--help") for a in argv) and not words:
        return "help"
    if len(argv) < 2 or argv[1] not in actions:
        fail(ValueError(f"say what to do first: python -m {program} {'|'.join(actions)} --... (see --help)"))
    return argv.pop(1)


def run(main: Callable[[], Any]) -> None:
    """Parse the command line, run `main`, turn bad input into a line and a requested stop into status 130."""
    interrupt.install()
    tolerate_encodings()

    def guarded(argv: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)
        try:
            main()
            interrupt.done()
        except Hanging as error:
            sys.stdout.flush()
            with contextlib.suppress(SystemExit):
                fail(error)
            os._exit(1)
        except UserError as error:
            fail(error)
        except interrupt.Interrupted as stop:
            print(stop, flush=True)
            sys.exit(130)
        except KeyboardInterrupt:
            print("\ninterrupted; repeat the command to go on", file=sys.stderr, flush=True)
            sys.exit(130)
        except OSError as error:
            if not error.filename and error.errno not in DISK_ERRORS:
                raise
            where = error.filename or "writing to the work folder failed"
            intact = "; what was saved before is whole" if error.errno in DISK_ERRORS else ""
            fail(UserError(f"{where}: {error.strerror}{intact}"))

    try:
        with quiet_when_unread():
            app.run(guarded, flags_parser=_parse)
    except SystemExit as end:  # absl's status after --help is 1
        if end.code != 1 or not any(re.fullmatch("--help(full|short)?", a) for a in sys.argv[1:]):
            raise
