"""The page at the application of `launch.serve`: facts, grids, streams, probabilities and refusals."""

from collections.abc import Iterator
from typing import Any

import pytest

from eve_jax import EVE
from tests.serve.page.conftest import file, opened
from tests.weights import folders

expect = pytest.importorskip("playwright.sync_api").expect
scripted = pytest.importorskip("tests.serve.scripted")  # which requires the extra `serve`
settings = pytest.importorskip("eve_jax.serve.settings")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    hf = folders.write_hf(tmp_path_factory.mktemp("served") / "hf", *folders.golden())
    eve = EVE.from_pretrained(hf, fit="shrink")
    keyed = settings.ServeSettings(names=("eve",), quiet=True, max_images=2, api_keys=("k",))
    with scripted.serving(eve, scripted.Scripted(eve), keyed) as served:
        yield served.url


def test_a_conversation(browser: Any, address: str, size: str) -> None:
    context = opened(browser, size)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(address)
    page.fill("#key-value", "k")
    page.keyboard.press("Enter")
    expect(page.locator("#model")).to_have_text("eve")
    page.set_input_files("#files", [file("a.png", width=96, height=64), file("b.png", width=64, height=160)])
    expect(page.locator("#cost")).to_have_text("2 images, 25 of 512 tokens")
    page.fill("#question", "What is it?")
    page.click("#send")
    expect(page.locator(".answer .text")).to_contain_text("réd bus, 图.")
    expect(page.locator(".answer .stats")).to_contain_text("read")
    expect(page.locator(".answer .token").first).to_be_attached()
    page.locator(".answer").get_by_label("Compare with blank images").click()
    expect(page.locator(".two .stats").last).to_contain_text("read")
    page.set_input_files("#files", file("c.png", width=64, height=64))
    page.fill("#question", "One image too many?")
    page.click("#send")
    expect(page.locator("#failure")).to_contain_text("image")
    expect(page.locator("#question")).to_have_value("One image too many?")
    context.close()
    assert faults == []
