"""The version of the package, which goes into config.json and the metadata of checkpoints."""

from typing import Any

__version__ = "0.2.0.dev0"
VERSION_FIELD = "eve_jax_version"  # of config.json, of an export's config.json, and of a checkpoint's metadata


def versioned(values: dict[str, Any]) -> dict[str, Any]:
    """Return `values` with the version that writes them."""
    return values | {VERSION_FIELD: __version__}


def other_version(values: dict[str, Any]) -> str:
    """Return "; eve_jax X wrote it, this is Y" for what another version wrote, for the end of an error; else ""."""
    wrote = values.get(VERSION_FIELD, "0.1.0")
    return "" if wrote == __version__ else f"; eve_jax {wrote} wrote it, this is {__version__}"
