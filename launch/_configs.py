"""What `--config=` takes: NAME, PATH/FILE.py or MODULE:FUNCTION, each with `:args`, and overrides of its fields."""

import importlib
import importlib.util
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from eve_jax.errors import UserError, shorten
from eve_jax.process import paths
from eve_jax.process.checks import hint, near_name
from launch._flags import too_early

CONFIGS = Path(__file__).parents[1] / "configs"
PACKAGES = tuple(CONFIGS.parent / name for name in ("configs", "eve_jax", "launch"))
NOT_CONFIGS = {"__init__", "base", "args", "tree", "dense", "baseline", "towers", "members"}


def _find_configs() -> None:
    """Let the package `configs` have our modules, also where the project around has one, which keeps its others."""
    package = importlib.import_module("configs")
    found = [*getattr(package, "__path__", ())]
    if str(CONFIGS) not in map(os.path.realpath, found) and str(CONFIGS) not in found:
        package.__path__ = [str(CONFIGS), *found]


_find_configs()


def known_configs() -> list[str]:
    """Return the names that `--config=` takes."""
    return sorted(p.stem for p in CONFIGS.glob("*.py") if p.stem not in NOT_CONFIGS)


def define_config() -> Any:
    """Define `--config` and its overrides; returns the flag holder."""
    text = (
        f"NAME[:args], with NAME of {', '.join(known_configs())}, PATH/FILE.py[:args] or MODULE:FUNCTION[:args]; "
        "fields: --config.FIELD=VALUE"
    )
    holder = config_flags.DEFINE_config_file("config", None, text)
    flags.FLAGS["config"].parser = _ConfigParser()
    return holder


class _ConfigParser(flags.ArgumentParser):
    """Reads the value of `--config` by `load_config` and refuses overrides of fields that are not there."""

    def parse(self, argument: str) -> ConfigDict:
        """Return the config. Raise UserError."""
        config = load_config(argument)
        _check_overrides(sys.argv, config)
        return config.lock()

    def flag_type(self) -> str:
        """Return what --help calls it."""
        return "config"


def load_config(value: str) -> ConfigDict:
    """Return the config that `value` stands for: NAME[:args], PATH/FILE.py[:args] or MODULE:FUNCTION[:args].

    Raise UserError naming what was not found, or what is wrong with a file or function of the user's own.
    """
    name, _, rest = value.partition(":")
    if name in known_configs():
        return importlib.import_module(f"configs.{name}").get_config(rest)
    if name.endswith(".py"):
        file = Path(paths.expand(name, "--config"))
        if not file.is_file():
            raise UserError(f"--config={value}: there is no file {file}")
        return _made(value, str(file), lambda: _run_file(file), "get_config", rest)
    function, _, arg = rest.partition(":")
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name) or not function or not _is_module(name):
        also = f"; there is no module {name!r} on Python's path either" if function else ""
        raise UserError(
            f"--config={value}: unknown config {name!r}; known: {', '.join(known_configs())}, or your own, "
            f"--config=PATH/FILE.py or --config=MODULE:FUNCTION{also}{hint(near_name(name, known_configs()))}"
        )
    return _made(value, f"module {name}", lambda: importlib.import_module(name), function, arg)


def stage_named(config: ConfigDict, name: str) -> ConfigDict:
    """Return the stage `name` of a recipe; the config itself where it is that of one stage and `name` is "".

    Raise UserError that names the stages for one that is not there, and for a name where there is no recipe.
    """
    if "order" not in config:
        if name:
            raise UserError(f"--stage={name}: {config.name} is one stage, not a recipe: leave --stage out")
        return config
    if name not in config.order:
        wrong = f"--stage={name} is not one of" if name else f"{config.name} is a recipe of several stages: name one,"
        stages = ("" if name else "--stage=") + ", ".join(config.order)
        raise UserError(f"{wrong} {shorten(stages, 400)}{hint(near_name(name, config.order)) if name else ''}")
    return config.stages[name]


def _is_module(name: str) -> bool:
    """Return True for a module that can be found; modules around it are imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # of a module around it that is not there, or is no package
        return False


def _run_file(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _made(value: str, where: str, open_module: Callable[[], ModuleType], name: str, arg: str) -> ConfigDict:
    """Return what the function `name` of a module of the user's own returns. Raise UserError."""
    try:
        module = open_module()
        if not callable(getattr(module, name, None)):
            found = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
            raise UserError(
                f"--config={value}: {where} cannot be used: it has no function {name}{hint(near_name(name, found))}"
            )
        config = getattr(module, name)(arg)
    except UserError:
        raise
    except Exception as error:
        said = error.msg if isinstance(error, SyntaxError) else error
        reason = " ".join(f"{type(error).__name__}{_place(error)}: {said}".split())
        raise UserError(f"--config={value}: {where} cannot be used ({reason}); it defines {name}(arg)") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config={value}: {name} of {where} returns {type(config).__name__}, not a ConfigDict")
    return config


def _place(error: Exception) -> str:
    """Return " in FILE, line N": the last line of the user's own code that an error went through; "" for none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" in {error.filename}, line {error.lineno}"
    others = tuple(f"{folder}{os.sep}" for folder in (*sysconfig.get_paths().values(), *PACKAGES))
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(("<", *others))]
    return f" in {own[-1].filename}, line {own[-1].lineno}" if own else ""


def _check_overrides(argv: list[str], config: ConfigDict) -> None:
    """Raise UserError for an argument --config.FIELD before `--config`, or that `config` does not have."""
    begun = False
    for item in argv:
        begun |= re.match(r"--?config(=|$)", item) is not None
        found = re.match(r"--config\.([^=]+)", item)
        if found is None:
            continue
        if not begun:
            raise too_early(f"config.{found[1]}")
        node: Any = config
        path = found[1].split(".")
        for depth, key in enumerate(path):
            if not isinstance(node, ConfigDict) or key not in node:
                known = list(node.keys()) if isinstance(node, ConfigDict) else []
                inside = [k for k in known if isinstance(node[k], ConfigDict) and path[-1] in node[k]]
                near = near_name(key, known) or (f"{inside[0]}.{path[-1]}" if inside else "")
                meant = f"config.{'.'.join([*path[:depth], near])}" if near else ""
                raise UserError(
                    f"--config.{found[1]}: there is no field config.{'.'.join(path[: depth + 1])}{hint(meant)}"
                )
            node = node[key]
