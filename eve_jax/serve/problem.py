"""Errors as clients get them: a status, and OpenAI's error object. They never hold a path or an exception's text."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from eve_jax.errors import shorten

TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    408: "RequestTimeoutError",
    413: "RequestTooLargeError",
    421: "MisdirectedRequestError",
    422: "UnprocessableEntityError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
}


class Problem(Exception):
    """A request that is not answered: its status, what is wrong and what to do, and the field that it is about."""

    def __init__(self, message: str, param: str | None = None, status: int = 400, **headers: str):
        super().__init__(message)
        self.message, self.param, self.status = shorten(message, 1000), param, status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    @property
    def body(self) -> dict[str, Any]:
        """The error object."""
        kind = TYPES.get(self.status, "BadRequestError")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.status}}

    def response(self, headers: Mapping[str, str] | None = None) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(self.body, self.status, {**self.headers, **(headers or {})})


def busy(message: str, seconds: int = 1) -> Problem:
    """Return the error that asks to try again after `seconds`."""
    return Problem(message, status=503, Retry_After=str(seconds))


def stopping() -> Problem:
    """Return the error of requests that come, or are not answered yet, when the server ends."""
    return busy("the server is stopping: try again later", 10)
