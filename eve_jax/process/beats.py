"""Signs of progress, which the watchdog (`eve_jax.process.watchdog`) of a run counts."""

_count = 0


def beat() -> None:
    """Say that something has come to an end: a step, a phase, an item of a list. Costs nothing."""
    global _count
    _count += 1  # two threads at once may count one: all that matters is that it changes


def count() -> int:
    """Return how often `beat` was called."""
    return _count
