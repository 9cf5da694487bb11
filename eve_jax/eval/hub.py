"""Data of benchmarks from the Hugging Face hub, fetched into its own cache; only where the user asks for it."""

from pathlib import Path
from typing import NamedTuple

from eve_jax.errors import UserError, shorten
from eve_jax.eval.task import DataSet

HUB = "hub"  # in place of the folder of --data


class Fetched(NamedTuple):
    """A data set's folder in the cache, and the commit that it has."""

    folder: Path
    revision: str


def fetch(data: DataSet) -> Fetched:
    """Return the files of `data`, downloaded where the cache lacks them. Raises UserError that names the repository."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(data.repository, repo_type="dataset", allow_patterns=data.patterns))
    except Exception as error:  # the hub's client raises many kinds, of itself and of its HTTP library
        reason = shorten(str(error).strip().split("\n")[0], 200)
        raise UserError(
            f"--data=hub: {data.repository} cannot be fetched ({reason}); without network, copy its "
            f"{', '.join(data.patterns)} to FOLDER/{data.repository} and give --data=FOLDER"
        ) from error
    return Fetched(folder, folder.name)
