"""What every embedder is: a function from images to features."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

Images = Sequence[UInt8[np.ndarray, "H W 3"]]


class Embedder(NamedTuple):
    """embed: upright RGB images of any sizes to float32 [n, D]. side: pixels of their shorter side that it looks at."""

    embed: Callable[[Images], Float32[np.ndarray, "n D"]]
    side: int
