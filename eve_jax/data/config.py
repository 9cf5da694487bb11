"""The section `data` of a stage's config, checked; what its fields mean is said in configs/base.py."""

from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from eve_jax.batch import MOST_ROWS, ROW_MULTIPLE
from eve_jax.data.image.rule import FITS, MODES, PILLOW_PIXELS
from eve_jax.data.plan.mixture import check_mixture, parse_numbers
from eve_jax.data.plan.plan import MAX_SHAPES
from eve_jax.data.samples.too_long import LONG, check_long
from eve_jax.data.text.templates import OWN, TEMPLATES
from eve_jax.errors import Field, FieldError
from eve_jax.process import places
from eve_jax.process.cores import MOST_THREADS, MOST_WORKERS
from eve_jax.process.section import Section, setting

# Fields that came later, and what was done before them.
LATER_DATA = {"draft": False, "area": [0, 0], "image_tokens": 0}


@dataclass(frozen=True, kw_only=True)
class DataConfig(Section, Mapping[str, Any]):
    """The section `data` of a stage's config; a mapping, too, as the settings are that come with a checkpoint."""

    PATH = "data."

    records: str
    images: str
    tokenizer: str
    template: str = setting(choices=ChainMap[str, Any]({OWN: None}, TEMPLATES))
    image_first: bool
    special_text: bool
    image_mode: str = setting(choices=MODES)
    max_size: int = setting(low=0)
    fit: str = setting(choices=FITS)
    max_aspect: float = setting(low=0)
    max_pixels: int = setting(low=1, high=PILLOW_PIXELS)
    draft: bool
    area: tuple[int, int] = setting(low=0)
    image_tokens: int = setting(low=0)
    patch: int = setting(low=2, multiple=2)
    teacher: tuple[int, int] = setting(low=1)
    vision_tokenizer: str
    repeats: str = setting(reads=partial(parse_numbers, "repeats"))
    weights: str = setting(reads=partial(parse_numbers, "weights"))
    max_tokens: int = setting(low=1)
    long: str = setting(choices=LONG)
    row_tokens: int = setting(low=ROW_MULTIPLE, multiple=ROW_MULTIPLE)
    max_shapes: int = setting(low=1, high=MAX_SHAPES)
    rows: int = setting(low=1, high=MOST_ROWS)
    micro_batches: int = setting(low=1, high=MOST_ROWS)
    epochs: int = setting(low=1)
    max_bad: float = setting(low=0)
    workers: int = setting(low=0, high=MOST_WORKERS)
    threads: int = setting(low=-1, high=MOST_WORKERS)
    prefetch: int = setting(low=0)
    timeout: float = setting(low=0)

    def __getitem__(self, name: str) -> Any:
        if name not in self.__dataclass_fields__:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dataclass_fields__)

    def __len__(self) -> int:
        return len(self.__dataclass_fields__)

    def check(self) -> None:
        """Raise FieldError for fields that do not go together."""
        check_long(self.long, self.image_mode)
        check_mixture(self.repeats, self.weights)
        if self.max_bad >= 1 and self.max_bad % 1:
            what = "a share of the records (below 1) or a whole number of them"
            raise FieldError(Field("data.max_bad"), f"={self.max_bad:g}: expected {what}")


class StageFields(Protocol):
    """The fields of a stage's config that its data follows from; `eve_jax.config.stage.Config` has them."""

    @property
    def name(self) -> str: ...
    @property
    def stage(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def init(self) -> str: ...
    @property
    def data(self) -> DataConfig: ...
    @property
    def model(self) -> Any: ...
    @property
    def train(self) -> Any: ...


def images_in_bucket(data: DataConfig) -> bool:
    """Return whether each image is asked of a bucket when it is needed."""
    return places.url_of(data.images) is not None


def reading_threads(data: DataConfig) -> int:
    """Return how many threads build rows, -1 for one a core: MOST_THREADS where these would wait for a bucket."""
    return MOST_THREADS if data.threads < 0 and images_in_bucket(data) else data.threads
