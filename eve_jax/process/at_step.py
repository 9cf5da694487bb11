"""FOLDER@STEP: a stage folder of ours at one of its checkpoints, wherever a config's `init` is taken."""

import os
import re
from pathlib import Path
from typing import NamedTuple

AT_STEP = re.compile(r"(.+)@(\d+)", re.DOTALL | re.ASCII)


class AtStep(NamedTuple):
    """A checkpoint as it was named: its folder, and the step; None for the newest that is sound."""

    folder: str
    step: int | None


def at_step(name: str | Path) -> AtStep:
    """Return what `name` stands for, FOLDER or FOLDER@STEP; a folder of that very name is meant where there is one."""
    text = os.fspath(name)
    found = AT_STEP.fullmatch(text)
    if found is None or os.path.lexists(text):
        return AtStep(text, None)
    return AtStep(found[1], int(found[2]))


def folder_of(name: str | Path) -> str:
    """Return the folder of the checkpoint that `name` stands for, FOLDER or FOLDER@STEP."""
    return at_step(name).folder
