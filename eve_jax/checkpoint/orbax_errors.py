"""Errors of Orbax and TensorStore: in the system's words where a disk is to blame, and said once."""

import errno
import logging
import os
import sys


def disk_reason(error: Exception) -> str:
    """The system's own words in an error of Orbax or TensorStore; "" when it comes from something else."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    known = (os.strerror(n) for n in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.EIO))
    return next((words for words in known if words in str(error)), "")


def hush_orbax() -> None:
    """Keep Orbax and its event loops from a traceback for each array of a failed save: the error is raised, too."""
    for name in ("absl", "asyncio"):
        log = logging.getLogger(name)
        if not any(isinstance(f, _NotOrbax) for f in log.filters):
            log.addFilter(_NotOrbax())
    sys.unraisablehook = _report_unraisable


class _NotOrbax(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname and "never retrieved" not in record.getMessage()


def _report_unraisable(what: "sys.UnraisableHookArgs", /) -> None:
    """As Python does, but for what TensorStore still tells the event loop of a save that has failed."""
    if str(what.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(what)
