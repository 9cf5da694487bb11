"""Charts for TensorBoard, in the folder tensorboard/."""

from eve_jax.train.metrics import charted
from eve_jax.train.writers.base import Line, RunInfo


class TensorBoardWriter:
    """Writes a scalar for each charted metric; steps after `run.start` that are there are marked as replaced."""

    def __init__(self, run: RunInfo):
        from tensorboardX import SummaryWriter  # slow to import, and only training needs it

        self._board = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.start + 1)

    def write(self, line: Line) -> None:
        """Add the step's scalars."""
        for name, value in line.items():
            if value is not None and charted(name) and self._lives():
                self._board.add_scalar(name, value, line["step"])

    write_evaluation = write

    def flush(self) -> None:
        """Leave it to the board's own thread, which writes every two minutes."""

    def close(self) -> None:
        """Write what is left."""
        if self._lives():
            self._board.close()

    def _lives(self) -> bool:
        """Return False when the board's thread has died of a full disk: it would have us wait for ever."""
        return self._board.file_writer.event_writer._worker.is_alive()
