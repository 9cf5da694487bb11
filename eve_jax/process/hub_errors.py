"""Why the Hugging Face hub's client failed, in a line for people."""

from eve_jax.errors import shorten
from eve_jax.process.unreached import unreached


def reason(error: Exception) -> str:
    """Return why the hub's client failed, in one line."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.GatedRepoError):
        return "it is gated; ask for access on its page and log in (hf auth login)"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "it has none of that name, or it is private (hf auth login)"
    if isinstance(error, errors.RevisionNotFoundError):
        return "it has no such revision"
    if isinstance(error, errors.LocalEntryNotFoundError) and is_offline():
        return "HF_HUB_OFFLINE is set, and the cache does not have it"
    if why := _unreached(error):
        return f"the hub at {constants.ENDPOINT} cannot be reached ({why}); check the network and HF_ENDPOINT"
    return shorten(" ".join(str(error).split()) or type(error).__name__, 200)


def is_offline() -> bool:
    """Return whether HF_HUB_OFFLINE keeps the hub's client from the network."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def login_hint(error: Exception) -> str:
    """Return the end of a message that says to log in, "" where the hub was not reached or is at fault itself."""
    status = getattr(getattr(error, "response", None), "status_code", 0)
    return "" if _unreached(error) or status >= 500 else "; log in with hf auth login"


def _unreached(error: Exception) -> str:
    """Return why the hub was not reached; "" where it was, or where HF_HUB_OFFLINE is set."""
    return "" if is_offline() else unreached(error)
