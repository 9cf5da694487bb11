"""Command lines: `--config=NAME[:args]` to `configs/NAME.py`, overrides, and errors as one line."""

import contextlib
import difflib
import errno
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from eve_jax import __version__
from eve_jax.errors import Hanging, UserError
from eve_jax.process import interrupt, paths
from eve_jax.process.cluster import Cluster
from launch._output import quiet_when_unread, tolerate_encodings

CONFIGS = Path(importlib.import_module("configs").__file__ or "").parent
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
NOT_CONFIGS = {"__init__", "base", "args"}


def known_configs() -> list[str]:
    """Names that `--config=` takes."""
    return sorted(p.stem for p in CONFIGS.glob("*.py") if p.stem not in NOT_CONFIGS)


def define_config() -> Any:
    """Define `--config` and its overrides; returns the flag holder."""
    text = (
        f"NAME[:args], with NAME of {', '.join(known_configs())}, or PATH/FILE.py[:args]; fields: --config.FIELD=VALUE"
    )
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


class _Path(flags.ArgumentParser):
    """Reads one path, or several that are comma separated, as `eve_jax.process.paths` has them."""

    def __init__(self, several: bool = False):
        self.expand = paths.expand_list if several else paths.expand

    def parse(self, argument: str) -> str:
        """Return the path. Raises ValueError, which absl reports with the flag."""
        try:
            return self.expand(argument)
        except UserError as error:
            raise ValueError(str(error).removeprefix(f"{argument}: ")) from error

    def flag_type(self) -> str:
        """Return what --help calls it."""
        return "string"


def define_path(name: str, default: str | None, text: str, several: bool = False) -> Any:
    """Define the flag of a path, in which `~` and variables are replaced; returns the flag holder.

    `several`: of comma-separated paths.
    """
    return flags.DEFINE(_Path(several), name, default, text, serializer=flags.ArgumentSerializer())


def define_paths(name: str, text: str) -> Any:
    """Define the flag of a path that may be given several times; returns the flag holder, of a list."""
    return flags.DEFINE_multi(_Path(), flags.ArgumentSerializer(), name, [], text)


def by_flags(error: UserError) -> UserError:
    """Return `error` with the flags that a command has in place of the fields of `config.data` of the same names."""
    named = re.sub(
        r"config\.data\.(\w+)", lambda found: f"--{found[1]}" if found[1] in flags.FLAGS else found[0], str(error)
    )
    return UserError(named)


def config_file(value: str) -> tuple[Path, str]:
    """Return the file and the arguments that `NAME[:args]` or `PATH/FILE.py[:args]` names; UserError for neither."""
    name, _, arg = value.partition(":")
    if name.endswith(".py"):
        file = Path(paths.expand(name))
        if not file.is_file():
            raise UserError(f"--config={value}: there is no file {file}")
        return file, arg
    if name not in known_configs():
        known = ", ".join(known_configs())
        raise UserError(
            f"--config={value}: unknown config {name!r}; known: {known}, or a file of your own, --config=PATH/FILE.py"
        )
    return CONFIGS / f"{name}.py", arg


def load_config(value: str) -> ConfigDict:
    """Return the configuration that `value` stands for (see `config_file`). Raises UserError."""
    file, arg = config_file(value)
    if file.parent == CONFIGS:
        return importlib.import_module(f"configs.{file.stem}").get_config(arg)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config(arg)
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"--config={value}: {file} cannot be used ({reason}); it defines get_config(arg)") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config={value}: get_config of {file} returns {type(config).__name__}, not a ConfigDict")
    return config


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
    """`--config=NAME:arg` and `--config NAME:arg` with the file in place of the name (see `config_file`)."""
    joined = re.sub(r"(^|\0)--config\0(?!-)", r"\1--config=", "\0".join(argv)).split("\0")
    out = []
    for item in joined:
        if item == "--config":
            raise UserError(f"--config wants a name: --config=NAME, with NAME of {', '.join(known_configs())}")
        if item.startswith("--config="):
            value = item.removeprefix("--config=")
            _check_overrides(joined, load_config(value))
            file, arg = config_file(value)
            item = f"--config={file}:{arg}" if arg else f"--config={file}"
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
    """Remove the action from the command line and return it; "help" when only help or the version is asked for."""
    words = [a for a in argv[1:] if not a.startswith("-")]
    if not words and any(a.startswith("--help") or a == "--version" for a in argv):
        return "help"
    if len(argv) < 2 or argv[1] not in actions:
        fail(ValueError(f"say what to do first: python -m {program} {'|'.join(actions)} --... (see --help)"))
    return argv.pop(1)


def run(main: Callable[[], Any]) -> None:
    """Parse the command line, run `main`, turn bad input into a line and a requested stop into status 130."""
    if "--version" in sys.argv[1:]:
        print(__version__)
        return
    interrupt.install()
    tolerate_encodings()

    def guarded(argv: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)
        try:
            if "config" in flags.FLAGS and flags.FLAGS.config is not None:
                paths.expand_config(flags.FLAGS.config)
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
