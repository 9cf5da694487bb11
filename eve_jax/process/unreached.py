"""Errors of clients of a service that was not reached, whatever HTTP library they have."""

from eve_jax.errors import shorten

NO_ANSWER = ("TransportError", "ConnectionError", "TimeoutError", "gaierror")  # of Python and of HTTP libraries


def unreached(error: BaseException) -> str:
    """Return why nobody answered, by the errors that `error` comes from; "" where somebody did."""
    chain = [error]
    while (below := chain[-1].__cause__ or chain[-1].__context__) is not None and below not in chain:
        chain.append(below)
    if not any(kind.__name__ in NO_ANSWER for one in chain for kind in type(one).__mro__):
        return ""
    return shorten(getattr(chain[-1], "strerror", None) or str(chain[-1]) or type(chain[-1]).__name__, 100)
