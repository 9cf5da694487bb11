"""Bodies of requests for the tests of the server."""

import base64
import io
import json
from typing import Any

import httpx
from PIL import Image

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
HTTP = httpx.Client(verify=False, timeout=30)  # certificates are not loaded, which takes long


def user(content: Any) -> dict[str, Any]:
    """A message of the user."""
    return {"role": "user", "content": content}


def chat(content: Any = "What is it?", **more: Any) -> dict[str, Any]:
    """A chat of a question after a short system sentence."""
    return {"messages": [{"role": "system", "content": "S"}, user(content)], **more}


def png(width: int = 64, height: int = 64, kind: str = "PNG", color: Any = (200, 10, 30), mode: str = "RGB") -> bytes:
    """An image file of one color."""
    file = io.BytesIO()
    Image.new(mode, (width, height), color).save(file, kind)
    return file.getvalue()


def uri(data: bytes, kind: str = "image/png") -> str:
    """A data URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def image(url: Any = None, **more: Any) -> dict[str, Any]:
    """An image part, by default of a small image."""
    return {"type": "image_url", "image_url": {"url": uri(png()) if url is None else url, **more}}


def text(said: str = "What is it?") -> dict[str, Any]:
    """A text part."""
    return {"type": "text", "text": said}


def events(stream: str) -> list[Any]:
    """The values of server-sent events, of which the last one is [DONE]."""
    blocks = stream.split("\n\n")
    assert blocks[-2:] == ["data: [DONE]", ""]
    assert all(block.startswith("data: ") for block in blocks[:-1])
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]
