"""The page loads under its policy, asks about an image, and shows the streamed answer."""

from typing import Any

import pytest

from tests.serve.page.conftest import file, opened
from tests.serve.page.stand_in import Script, StandIn, images_of


def test_a_question_about_an_image_is_answered(browser: Any, server: StandIn, script: Script) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    context = opened(browser, "desktop")
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(server.url)
    expect(page.locator("#model")).to_have_text("eve-v2-demo")
    page.set_input_files("#files", file())
    expect(page.locator("#cost")).to_have_text("1 image, 316 of 4,096 tokens")
    page.fill("#question", "What is on the water?")
    page.keyboard.press("Enter")
    expect(page.locator(".answer .text")).to_have_text("A red boat on the water.")
    assert images_of(script.asked[0])[0].size == (640, 480)
    assert faults == []
    context.close()
