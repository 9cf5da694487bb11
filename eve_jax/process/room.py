"""Memory that threads share: what one of them is to hold waits until there is room for it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Room:
    """Room for `size` bytes at a time; for what is larger, all of it. Threads may call the methods."""

    def __init__(self, size: int):
        self.size, self._free = size, size
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Hold `size` bytes in the block, which waits for them."""
        size = min(size, self.size)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= size)
            self._free -= size
        try:
            yield
        finally:
            with self._changed:
                self._free += size
                self._changed.notify_all()
