"""A page in Debian's Chromium, at a stand-in of the server."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from tests.serve.page.stand_in import Script, StandIn

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
SIZES = {"desktop": (1200, 800), "phone": (390, 844)}
DEADLINE = 8_000  # ms that an expectation waits on a loaded machine


@pytest.fixture(scope="module")  # while it is there an event loop runs, in which other tests cannot run theirs
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the page's tests need the extra `page`")
    if not CHROMIUM.exists():
        pytest.skip(f"the page's tests need Chromium: {CHROMIUM} is missing (apt-get install chromium)")
    playwright.expect.set_options(timeout=DEADLINE)
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server() -> Iterator[StandIn]:
    server = StandIn()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def script(server: StandIn) -> Iterator[Script]:
    """A fresh script of the server."""
    server.script = Script()
    yield server.script
    server.script.go.set()


def opened(browser: Any, size: str, **more: Any) -> Any:
    """A context of the browser as large as a desktop or a phone, with touch on the latter."""
    width, height = SIZES[size]
    phone = {"is_mobile": True, "has_touch": True, "device_scale_factor": 2} if size == "phone" else {}
    context = browser.new_context(viewport={"width": width, "height": height}, **{**phone, **more})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(DEADLINE)
    return context


@pytest.fixture(params=SIZES)
def size(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def page(browser: Any, server: StandIn, script: Script, size: str) -> Iterator[Any]:
    """The page, loaded, at both sizes. Fails for faults of scripts and of the policy that the browser reports."""
    context = opened(browser, size)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "console",
        lambda one: faults.append(one.text) if one.type == "error" and "Failed to load" not in one.text else None,
    )
    page.goto(server.url)
    yield page
    context.close()
    assert faults == []


def png(width: int = 640, height: int = 480, color: str = "#c8442e") -> bytes:
    """An image with a boat, so that it is not one color."""
    image = Image.new("RGB", (width, height), "#a9cdf0")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, height * 0.6, width, height), fill="#2f6f9f")
    draw.polygon(
        [
            (width * 0.3, height * 0.55),
            (width * 0.7, height * 0.55),
            (width * 0.62, height * 0.7),
            (width * 0.38, height * 0.7),
        ],
        fill=color,
    )
    stream = io.BytesIO()
    image.save(stream, "png")
    return stream.getvalue()


def file(name: str = "boat.png", **more: Any) -> dict:
    """An image as `set_input_files` takes it."""
    return {"name": name, "mimeType": "image/png", "buffer": png(**more)}
