"""What JAX compiles while something runs."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

COMPILED = "/jax/core/compile/backend_compile_duration"  # also when the program comes from the persistent cache


@contextmanager
def watched() -> Iterator[tuple[Counter[str], list[str]]]:
    """Programs made by name, and the events of JAX, as they come."""
    programs: Counter[str] = Counter()
    events: list[str] = []

    def on_duration(event: str, duration_secs: float, **more: Any) -> None:
        if event == COMPILED:
            programs[str(more["fun_name"])] += 1

    def on_event(event: str, **more: Any) -> None:
        events.append(event)

    jax.monitoring.register_event_duration_secs_listener(on_duration)
    jax.monitoring.register_event_listener(on_event)
    try:
        yield programs, events
    finally:
        jax.monitoring.unregister_event_duration_listener(on_duration)
        jax.monitoring.unregister_event_listener(on_event)
