"""The progress line of a run on the terminal."""

from collections import deque

from eve_jax.process.progress import ProgressBar
from eve_jax.train.writers.base import Line, RunInfo


class ProgressLine:
    """A bar of the steps with loss, tokens a second over the last 20 steps, and MFU where the peak is known."""

    def __init__(self, run: RunInfo):
        self._rates: deque[tuple[float, float]] = deque(maxlen=20)
        self._bar = ProgressBar(run.name, run.steps, run.start, status="compiling ...", keep=True, off=run.quiet)

    def write(self, line: Line) -> None:
        """Show the step."""
        self._rates.append((line["tokens"] or 0, line["seconds"] or 0.0))
        rate = sum(t for t, _ in self._rates) / max(sum(s for _, s in self._rates), 1e-9)
        mfu = "" if line["mfu"] is None else f"  MFU {line['mfu']:.0%}"
        loss = "loss not finite" if line["loss"] is None else f"loss {line['loss']:.4f}"
        status = f"{loss if line['targets'] else 'no targets'}  {rate:,.0f} tokens/s{mfu}"
        self._bar.set(int(line["step"] or 0), status)

    def flush(self) -> None:
        """Do nothing: a step is shown when it is written."""

    def close(self) -> None:
        """Leave the line as it is."""
        self._bar.close()
