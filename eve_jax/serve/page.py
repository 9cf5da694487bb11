"""The files of the page at /: read once, sent with a policy that lets them load and run nothing else."""

import hashlib
from importlib.resources import files
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "ico": "image/x-icon",
    "woff2": "font/woff2",
    "webmanifest": "application/manifest+json",
}


class _File(NamedTuple):
    data: bytes
    kind: str
    tag: str


class Page:
    """The page's files by their paths."""

    def __init__(self) -> None:
        self.files: dict[str, _File] = {}
        for entry in files("eve_jax.serve").joinpath("page").iterdir():
            kind = TYPES.get(entry.name.rpartition(".")[2])
            if kind and entry.is_file():
                data = entry.read_bytes()
                file = _File(data, kind, f'"{hashlib.sha256(data).hexdigest()[:32]}"')
                self.files["/" if entry.name == "index.html" else f"/{entry.name}"] = file

    async def __call__(self, request: Request) -> Response:
        """The response with a file."""
        file = self.files[request.url.path.rstrip("/") or "/"]
        headers = {**HEADERS, "ETag": file.tag}
        if request.headers.get("if-none-match") == file.tag:
            return Response(status_code=304, headers=headers)
        return Response(file.data, headers=headers, media_type=file.kind)
