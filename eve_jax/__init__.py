"""Encoder-free vision-language models (EVE, EVEv2) in JAX: `from eve_jax import EVE`."""

from typing import TYPE_CHECKING, Any

from eve_jax.process import caches, old_names
from eve_jax.version import __version__

if TYPE_CHECKING:
    from eve_jax.infer.api import EVE

__all__ = ["EVE", "__version__"]

caches.share_with_matplotlib()  # before anything here imports it
old_names.install()


def __getattr__(name: str) -> Any:
    if name == "EVE":  # on demand: it brings jax, which most of the package does without
        from eve_jax.infer.api import EVE

        caches.cache_folder()  # without a home folder, matplotlib is told of another one, too
        return EVE
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
