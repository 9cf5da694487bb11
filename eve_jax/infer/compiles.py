"""How many programs JAX compiles in this process, those that come from the persistent cache included."""

from typing import Any

import jax

COMPILED = "/jax/core/compile/backend_compile_duration"


class Compiles:
    """Counts from the time it is made until `close`."""

    def __init__(self) -> None:
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._on_duration)

    def _on_duration(self, event: str, duration_secs: float, **more: Any) -> None:
        self.count += event == COMPILED

    def close(self) -> None:
        """Count no more."""
        jax.monitoring.unregister_event_duration_listener(self._on_duration)
