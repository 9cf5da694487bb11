"""Messages of Orbax, its event loops and TensorStore that tell no more than the errors that they raise, kept away."""

import logging
import sys


def hush_orbax() -> None:
    """Keep away what Orbax logs itself: of an item's folder, that it is not one of a whole checkpoint."""
    _filter("absl")


def hush_loops() -> None:
    """Keep away a traceback for each array of a failed save. For commands: other programs have hooks of their own."""
    _filter("asyncio")
    sys.unraisablehook = _report_unraisable


def _filter(name: str) -> None:
    log = logging.getLogger(name)
    if not any(isinstance(f, _NotOrbax) for f in log.filters):
        log.addFilter(_NotOrbax())


class _NotOrbax(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname and "never retrieved" not in record.getMessage()


def _report_unraisable(what: "sys.UnraisableHookArgs", /) -> None:
    """As Python does, but for what TensorStore still tells the event loop of a save that has failed."""
    if str(what.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(what)
