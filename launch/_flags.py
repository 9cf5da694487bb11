"""Command lines: flags that several commands share, and errors as one line."""

import contextlib
import errno
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from absl import app, flags, logging

from eve_jax import __version__
from eve_jax.errors import Hanging, UserError, shorten
from eve_jax.process import interrupt, paths
from eve_jax.process.checks import hint, near_name
from eve_jax.process.cluster import Cluster
from eve_jax.process.places import shown
from launch._output import quiet_when_unread, tolerate_encodings

SPECIAL_TEXT = "what reads like a special token (<|im_end|>) in a text is one; default: the checkpoint's own, no"
DEVICE_IS_FULL = "RESOURCE_EXHAUSTED"  # in what JAX raises then
LESS_MEMORY = "; take fewer or shorter rows, smaller images, or more devices; what was saved before is whole"
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def define_cluster() -> Callable[[], Cluster]:
    """Define the flags that say how several processes find each other; returns what reads them."""
    coordinator = flags.DEFINE_string(
        "coordinator",
        "",
        "HOST:PORT at which process 0 is reached, when the processes are started by hand; TPU pods, SLURM, Open MPI "
        "and indexed Kubernetes jobs are recognized without",
    )
    count = flags.DEFINE_integer("num_processes", None, "how many processes work together", lower_bound=1)
    number = flags.DEFINE_integer("process_id", None, "which of them this is, from 0", lower_bound=0)
    dead = flags.DEFINE_integer("peer_timeout", 40, "seconds of silence until a process counts as dead", lower_bound=5)
    wait = flags.DEFINE_integer("start_timeout", 300, "seconds to wait for all processes at the start", lower_bound=5)
    for holder in (coordinator, count, number, dead, wait):
        _shown(holder)
    return lambda: Cluster(coordinator.value or "", count.value, number.value, dead.value or 0, wait.value or 0)


def _shown(holder: Any) -> Any:
    """Return the flag holder after --help has been told to show it, as it shows those that a command defines itself."""
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[holder.name])
    return holder


class _Path(flags.ArgumentParser):
    """Reads one path, or several that are comma separated, as `eve_jax.process.paths` has them."""

    def __init__(self, several: bool = False, remote: paths.Remote | None = None):
        self.expand = partial(paths.expand_list if several else paths.expand, remote=remote)

    def parse(self, argument: str) -> str:
        """Return the path. Raises ValueError, which absl reports with the flag."""
        try:
            return self.expand(argument)
        except UserError as error:
            raise ValueError(str(error).removeprefix(f"{argument}: ")) from error

    def flag_type(self) -> str:
        """Return what --help calls it."""
        return "string"


def define_path(
    name: str, default: str | None, text: str, several: bool = False, remote: paths.Remote | None = None
) -> Any:
    """Define the flag of a path, in which `~` and variables are replaced; returns the flag holder.

    `several`: of comma-separated paths. remote: as in `paths.expand`.
    """
    return _shown(flags.DEFINE(_Path(several, remote), name, default, text, serializer=flags.ArgumentSerializer()))


def define_paths(name: str, text: str) -> Any:
    """Define the flag of a path that may be given several times; returns the flag holder, of a list."""
    return _shown(flags.DEFINE_multi(_Path(), flags.ArgumentSerializer(), name, [], text))


def define_weights() -> Any:
    """Define the flag of what matrices are quantized to when a checkpoint is read; returns the flag holder."""
    text = "quantize the layers' matrices; default: as stored"
    return _shown(flags.DEFINE_enum("weights", "", ["", "int8", "int4"], text))


def define_model() -> Callable[[], dict[str, Any]]:
    """Define the flags of how a checkpoint is opened; returns what gives the arguments of `EVE.from_pretrained`."""
    aspect = "longest side over shortest, longer images are squeezed; 0: never; default: the checkpoint's"
    fits, fit = ["fill", "shrink"], "image rule: fill (inference), shrink (as in training)"
    side = "side of the largest image area (pixels); 0: the checkpoint's own"
    dtype = "float32 | bfloat16 | float16 of the computation; default: the checkpoint's own"
    defined = {
        "fit": flags.DEFINE_enum("fit", "fill", fits, fit),
        "max_size": flags.DEFINE_integer("max_size", 0, side),
        "max_aspect": flags.DEFINE_float("max_aspect", None, aspect),
        "image_first": flags.DEFINE_bool(
            "image_first", None, "images of a turn to its front; default: as the checkpoint trained"
        ),
        "special_text": flags.DEFINE_bool("special_text", None, SPECIAL_TEXT),
        "template": flags.DEFINE_string(
            "template", "", "qwen2 | chatml ... | own (the folder's); default: of training"
        ),
        "mesh": flags.DEFINE_string("mesh", "", "use all devices, such as data:1,tensor:-1; default: one device"),
        "dtype": flags.DEFINE_string("dtype", "", dtype),
    }
    for holder in defined.values():
        _shown(holder)
    defined["weights"] = define_weights()
    return lambda: {name: holder.value for name, holder in defined.items()}


def required_folder(flag: "flags.FlagHolder[str | None]") -> Path:
    """Return the folder that a flag names. Raise UserError when it is empty."""
    if not (flag.value or "").strip():
        raise UserError(f"--{flag.name} is empty: name a folder")
    return Path(flag.value or "")


def is_given(name: str) -> bool:
    """Return whether a flag is on the command line."""
    return bool(flags.FLAGS[name].present)


def refuse_others(action: str, flags_for: Mapping[str, Sequence[str]]) -> None:
    """Raise UserError for a flag on the command line that `action` would not look at; flags_for: whose they are."""
    for name, actions in flags_for.items():
        if is_given(name) and action not in actions:
            raise UserError(f"--{name} is for {', '.join(actions)}, not for {action}")


def as_flag(field: str) -> str:
    """Return what errors call a field of a config here: the flag of that name where the command has one."""
    section, _, name = field.rpartition(".")
    return f"--{name}" if section in ("", "data") and name in flags.FLAGS else f"config.{field}"


def _parse(argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
    except (flags.Error, UserError, TypeError, ValueError) as error:
        fail(_plain(error))
    if len(rest) > 1:
        fail(UserError(f"unexpected argument {rest[1]!r} (see --help)"))
    return rest


def _plain(error: Exception) -> Exception:
    """Return an error of the command line in words that do not speak of Python."""
    if missing := re.findall(r"flag --(\w+)=None: ", str(error)):
        return UserError(f"{' and '.join(f'--{m}' for m in missing)} must be given (see --help)")
    if isinstance(error, flags.UnrecognizedFlagError) and error.flagname.startswith("config."):
        return too_early(error.flagname) if "config" in flags.FLAGS else error
    found = re.match(r"flag --([\w.]+)=(.*?): ", str(error), re.DOTALL)
    expected = _expected(found[1], found[2], str(error)) if found and found[1] in flags.FLAGS else ""
    return UserError(f"--{found[1]}={found[2]}: expected {expected}") if found and expected else error


def _expected(name: str, value: str, said: str) -> str:
    """Return what the flag takes if it cannot read `value`; "" where what it `said` tells."""
    parser = flags.FLAGS[name].parser
    if isinstance(parser, flags.BooleanParser):
        return "True or False"
    if isinstance(parser, flags.IntegerParser | flags.FloatParser):
        try:
            parser.convert(value)
        except ValueError:
            return "a whole number" if isinstance(parser, flags.IntegerParser) else "a number"
    if isinstance(parser, flags.EnumParser):
        return " | ".join(filter(None, parser.enum_values))
    if "as a ConfigDict" in said:
        return f"its fields one by one, --{name}.FIELD=VALUE"
    return ""


def too_early(name: str) -> UserError:
    """Return the error of the argument --config.FIELD, `name`, that no --config precedes."""
    return UserError(f"--{name} changes a field of a config: give --config=NAME before it")


def fail(error: BaseException) -> None:
    """Print `error` as the one line that users are meant to see and exit with status 1."""
    print(f"error: {shown(' '.join(str(error).split()))}", file=sys.stderr, flush=True)
    sys.exit(1)


def take_action(argv: list[str], program: str, actions: Sequence[str]) -> str:
    """Remove the action from the command line and return it; "help" when only help or the version is asked for."""
    words = [a for a in argv[1:] if not a.startswith("-")]
    if not words and any(a.startswith("--help") or a == "--version" for a in argv):
        return "help"
    if len(argv) < 2 or argv[1] not in actions:
        meant = f"; {words[0]!r} is none of these{hint(near_name(words[0], actions))}" if words else ""
        fail(ValueError(f"say what to do first: python -m {program} {'|'.join(actions)} --... (see --help){meant}"))
    return argv.pop(1)


def leaving_threads(main: Callable[[], Any]) -> None:
    """Run `main`; after a Ctrl-C, threads of the engine that are in the midst of a shard can only be left behind."""
    try:
        main()
    except KeyboardInterrupt:
        print("\ninterrupted; rerun the command to resume", file=sys.stderr, flush=True)
        os._exit(130)


def take_words(argv: list[str]) -> list[str]:
    """Remove the words before the first flag from the command line and return them."""
    count = next((n for n, word in enumerate(argv[1:]) if word.startswith("-")), len(argv) - 1)
    words = argv[1 : count + 1]
    del argv[1 : count + 1]
    return words


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
            print("\ninterrupted; rerun the command to resume", file=sys.stderr, flush=True)
            sys.exit(130)
        except MemoryError as error:
            fail(UserError(f"this process has no more memory{f' ({error})' if str(error) else ''}{LESS_MEMORY}"))
        except RuntimeError as error:
            if DEVICE_IS_FULL not in str(error):
                raise
            fail(UserError(f"the device's memory is full ({shorten(str(error))}){LESS_MEMORY}"))
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
