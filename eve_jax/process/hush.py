"""Messages of libraries that belong into the errors that they go with, or tell no more than these, kept away.

Of Orbax, its event loops and TensorStore; and of libtiff, which says on stderr alone what it cannot decode.
"""

import ctypes
import functools
import logging
import platform
import sys
import threading
from pathlib import Path
from typing import Any

_tiff = threading.local()
BY_ADDRESS = ("x86_64", "aarch64")  # machines that pass the values of a message, a va_list, by its address
_LENGTH = 300  # bytes of a message of libtiff that are read


def hush_orbax() -> None:
    """Keep away what Orbax logs itself: of an item's folder, that it is not one of a whole checkpoint."""
    _filter("absl")


def hush_loops() -> None:
    """Keep away a traceback for each array of a failed save. For commands: other programs have hooks of their own."""
    _filter("asyncio")
    sys.unraisablehook = _report_unraisable


def tiff_errors_begin() -> None:
    """Keep what libtiff says away from stderr from now on, and forget what it said in this thread."""
    _hush_libtiff()
    _tiff.said = ""


def tiff_error() -> str:
    """Return what libtiff said last in this thread since `tiff_errors_begin`, "" for nothing."""
    return getattr(_tiff, "said", "")


@functools.cache
def _hush_libtiff() -> list[Any]:
    """Take over the handlers of messages of the libtiff that Pillow has loaded; returns what has to live on.

    Where it is not found, it continues as before.
    """
    from PIL import _imaging  # noqa: F401  which loads it

    if platform.machine() not in BY_ADDRESS:
        return []
    try:
        places = {line.split(maxsplit=5)[-1].strip() for line in Path("/proc/self/maps").read_text().splitlines()}
        library = ctypes.CDLL(next(place for place in sorted(places) if Path(place).name.startswith("libtiff")))
        c = ctypes.CDLL(None)
        handlers = library.TIFFSetErrorHandler, library.TIFFSetWarningHandler
    except (OSError, StopIteration, AttributeError):
        return []
    kind = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)

    def noted(_: bytes, form: bytes, values: int) -> None:
        text = ctypes.create_string_buffer(_LENGTH)
        c.vsnprintf(text, ctypes.c_size_t(_LENGTH), ctypes.c_char_p(form), ctypes.c_void_p(values))
        _tiff.said = text.value.decode("utf-8", "replace")

    error, warning = kind(noted), kind(lambda *_: None)
    for handler, taken in zip(handlers, (error, warning), strict=True):
        handler.argtypes, handler.restype = [kind], ctypes.c_void_p
        handler(taken)
    return [error, warning]


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
