"""Experts: what OCR, a detector and tags find in the images that are left, as JSON, a file a shard."""

from dataclasses import asdict, dataclass
from functools import cache
from threading import Lock

import numpy as np
import pyarrow as pa
from PIL import Image

from eve_jax.curate.experts.config import ExpertsConfig
from eve_jax.curate.experts.endpoint import ImageRefused
from eve_jax.curate.experts.form import write_findings
from eve_jax.curate.experts.open import LookAt, open_experts
from eve_jax.curate.rows import Rows, by_shard
from eve_jax.curate.stage import Stage, key_of
from eve_jax.curate.stages.measure import Measure, Source
from eve_jax.curate.verdicts import Verdicts
from eve_jax.data.image.patches import open_image

NAME, VERSION, RULE = "experts", 1, "refused"
SIDE = 2048  # pixels of the longer side that experts see at most
SCHEMA = pa.schema({"index": pa.int64(), "experts": pa.string(), "reason": pa.string()})
WHERE = ("url", "timeout", "patience", "threads")  # settings that the findings do not depend on
_opening = Lock()


@dataclass(frozen=True, eq=False)
class Experts:
    """Makes a shard of SCHEMA for the records of it that are in `index`, int64 [n] ascending, and not there yet.

    Its key does not depend on what was selected: experts never look at an image twice.
    """

    stage: Stage
    source: Source
    size: int
    max_pixels: int
    config: ExpertsConfig
    index: np.ndarray

    def missing(self) -> list[int]:
        """Return the numbers of the shards whose findings are not all there, and make the folder."""
        self.stage.folder.mkdir(parents=True, exist_ok=True)
        return [number for number, span in by_shard(self.index, self.size) if len(self._left(number, span)[0])]

    def __call__(self, number: int) -> None:
        """Write shard `number`. Raises UserError for experts that cannot be used or reached."""
        span = next(span for shard, span in by_shard(self.index, self.size) if shard == number)
        left, kept = self._left(number, span)
        look, records = opened(self.config), self.source.open()
        rows = [self._row(look, records.read(int(one))[0].images[0], int(one)) for one in left]
        table = pa.concat_tables([kept, pa.Table.from_pylist(rows, SCHEMA)]).sort_by("index")
        self.stage.write(number, {name: table[name] for name in SCHEMA.names}, SCHEMA)

    def _left(self, number: int, span: slice) -> tuple[np.ndarray, pa.Table]:
        """Return those of the shard's records that have no findings yet, and the findings that are there."""
        if not self.stage.shard(number).is_file():
            return self.index[span], SCHEMA.empty_table()
        kept = self.stage.read(number)
        return np.setdiff1d(self.index[span], kept["index"].to_numpy()), kept

    def _row(self, look: LookAt, file: object, index: int) -> dict[str, object]:
        image = open_image(file, self.max_pixels)  # type: ignore[arg-type]
        image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
        try:
            return {"index": index, "experts": write_findings(look(np.asarray(image))), "reason": ""}
        except ImageRefused as error:
            return {"index": index, "experts": "", "reason": str(error)}

    def found(self) -> list[str]:
        """Return the JSON of the records `index`, in order; "" of those that an endpoint refused."""
        return self._column("experts")

    def verdicts(self, rows: Rows) -> Verdicts:
        """Return what is left of `rows`, the records `index`, without those that an endpoint refused."""
        reasons = self._column("reason")
        refused = [reason for reason in reasons if reason]
        return Verdicts(np.array([not reason for reason in reasons], bool), [RULE] * len(refused), refused)

    def _column(self, name: str) -> list[str]:
        values: list[str] = []
        for number, span in by_shard(self.index, self.size):
            table = self.stage.read(number, ["index", name])
            places = np.searchsorted(table["index"].to_numpy(), self.index[span])
            values += table[name].take(pa.array(places)).to_pylist()
        return values


@cache
def _opened(config: ExpertsConfig) -> LookAt:
    return open_experts(config)


def opened(config: ExpertsConfig) -> LookAt:
    """Return the experts of a config, loaded once in a process."""
    with _opening:
        return _opened(config)


def experts_stage(measure: Measure, config: ExpertsConfig, index: np.ndarray) -> Experts:
    """Return what has experts look at the records `index`, int64 [n] ascending, of those that `measure` measured."""
    key = key_of(NAME, VERSION, {"experts": identity(config)}, measure.stage.key)
    return Experts(Stage(measure.stage.out, NAME, key), measure.source, measure.size, measure.max_pixels, config, index)


def identity(config: ExpertsConfig) -> dict[str, object]:
    """Return the settings that the findings depend on: of the experts that run, and not how they are reached."""
    return {
        expert: {name: value for name, value in asdict(getattr(config, expert)).items() if name not in WHERE}
        | {"endpoint": bool(getattr(config, expert).url)}
        for expert in sorted(config.run)
    }
