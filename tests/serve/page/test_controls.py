"""Settings, theme, probabilities, code, the keyboard, and what axe says of every state of the page."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.serve.page.conftest import file, opened, png
from tests.serve.page.stand_in import Script, StandIn

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = pytest.mark.slow


def answered(page: Any, text: str = "What is it?", image: bool = True) -> None:
    if image:
        page.set_input_files("#files", file("it's a boat.png"))
    page.fill("#question", text)
    page.click("#send")
    expect(page.locator(".answer .stats").last).to_contain_text("token")


def test_settings_are_sent_kept_and_reset(page: Any, script: Script) -> None:
    page.click("#settings-open")
    given = {"system": "Be brief.", "temperature": "0.7", "top_p": "0.9", "max_tokens": "5", "seed": "11"}
    for name, value in given.items():
        page.fill(f"#set-{name}", value)
    page.get_by_label("Token probabilities").uncheck()
    page.click("#settings button[type=submit]")
    expect(page.locator("#settings")).to_be_hidden()
    page.reload()
    answered(page)
    body = script.asked[0]
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    sent = {name: body[name] for name in ("temperature", "top_p", "max_tokens", "seed")}
    assert sent == {"temperature": 0.7, "top_p": 0.9, "max_tokens": 5, "seed": 11}
    assert "logprobs" not in body
    expect(page.locator(".answer .stats")).to_contain_text("cut at the limit of tokens")
    expect(page.locator(".answer .token")).to_have_count(0)
    page.click("#settings-open")
    page.click("#set-reset")
    expect(page.locator("#set-system")).to_have_value("")
    expect(page.locator("#set-max_tokens")).to_have_value("")
    page.click("#settings-close")
    answered(page, image=False)
    assert "seed" not in script.asked[1] and script.asked[1]["temperature"] == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", "2.5"), ("top_p", "0"), ("max_tokens", "1.5"), ("seed", "-1"), ("temperature", "")],
)
def test_a_wrong_setting_is_marked_and_not_taken(page: Any, script: Script, name: str, value: str) -> None:
    page.click("#settings-open")
    page.fill(f"#set-{name}", value)
    expect(page.locator(f"#set-{name}")).to_have_attribute("aria-invalid", "true")
    page.click("#settings button[type=submit]")
    expect(page.locator("#settings")).to_be_visible()
    page.click("#settings-close")
    answered(page, image=False)
    assert script.asked[0].get(name) == {"temperature": 0, "top_p": 1}.get(name)


def test_the_theme_follows_the_system_or_the_switch(page: Any) -> None:
    dark, light = "rgb(22, 24, 28)", "rgb(255, 255, 255)"
    html = page.locator("html")
    page.emulate_media(color_scheme="dark")
    expect(html).to_have_css("background-color", dark)
    page.click("#theme")
    expect(html).to_have_css("background-color", light)
    page.reload()
    expect(html).to_have_css("background-color", light)
    page.emulate_media(color_scheme="light")
    page.click("#theme")
    expect(html).to_have_css("background-color", dark)
    page.click("#theme")
    expect(html).to_have_css("background-color", light)
    expect(page.locator("#theme")).to_have_attribute("aria-label", "Theme: as the system. Change to light")


def test_probabilities_by_pointer_and_by_keyboard(page: Any, size: str) -> None:
    answered(page)
    boat, tip = page.locator(".token", has_text="boat"), page.locator("#tip")
    boat.tap() if size == "phone" else boat.hover()
    expect(tip.locator("li")).to_have_text(["␣boat55%", "␣ship31%", "␣house6.0%"])
    expect(tip.locator(".chosen code")).to_have_text("␣boat")
    box = tip.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= page.viewport_size["width"]
    page.keyboard.press("Tab")
    page.mouse.move(5, 5)
    odds = page.get_by_label("Token probabilities", exact=True).first
    odds.click()
    expect(odds).to_have_attribute("aria-pressed", "true")
    tokens = page.locator(".shaded .token")
    expect(tokens).to_have_count(7)
    tokens.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(boat).to_be_focused()
    expect(boat).to_have_attribute("aria-label", "␣boat, 55%")
    expect(boat).to_have_attribute("aria-describedby", "tip")
    page.keyboard.press("End")
    expect(tip.locator(".chosen")).to_have_text(".99.5%")
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    page.keyboard.press("Home")
    expect(tip.locator(".chosen")).to_have_text("A93%")
    odds.click()
    expect(page.locator(".token[tabindex]")).to_have_count(0)


def test_the_answer_is_copied(page: Any) -> None:
    answered(page)
    page.get_by_label("Copy the answer").click()
    expect(page.locator("#toast")).to_contain_text("Answer copied")
    assert page.evaluate("navigator.clipboard.readText()") == "A red boat on the water."


@pytest.mark.parametrize("language", ["curl", "python"])
def test_the_code_asks_the_same(page: Any, script: Script, server: StandIn, tmp_path: Path, language: str) -> None:
    """The copied code runs as it is, next to the image's file, and sends what the page sent."""
    script.key = "k"
    page.reload()
    page.fill("#key-value", "k")
    page.keyboard.press("Enter")
    expect(page.locator("#key")).to_be_hidden()
    answered(page, "Is \"$HOME\" or `id` \\ or 'this' the name?\nSay — yes.")
    page.get_by_label("Copy as curl or Python").click()
    page.click(f"#code-{language}")
    page.click("#code-copy")
    expect(page.locator("#toast")).to_contain_text("Code copied")
    code = page.evaluate("navigator.clipboard.readText()")
    assert code == page.locator("#code-text").text_content()
    page.click("#code-close")
    (tmp_path / "it's a boat.png").write_bytes(png())
    if language == "python":
        pytest.importorskip("openai")
        command = [sys.executable, "-c", code]
    elif shutil.which("curl") and shutil.which("bash"):
        command = ["bash", "-c", code]
    else:
        pytest.skip("curl or bash is missing")
    ran = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "EVE_API_KEY": "k"}, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    said = ran.stdout.strip() if language == "python" else json.loads(ran.stdout)["choices"][0]["message"]["content"]
    assert said == "A red boat on the water."
    by_page, by_code = script.asked
    assert by_code == {name: value for name, value in by_page.items() if name not in ("stream", "stream_options")}


def test_everything_by_keyboard_alone(page: Any, script: Script, size: str) -> None:
    expect(page.locator("#model")).to_have_text("eve-v2-demo")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#question")).to_be_focused()
    page.keyboard.type("Line one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("line two")
    if size == "desktop":
        page.keyboard.press("Enter")
    else:
        page.locator("#send").focus()
        page.keyboard.press("Space")
    expect(page.locator(".answer .text")).to_have_text("Yes.")
    expect(page.locator("#status")).to_have_text("Answer: Yes.")
    assert script.asked[0]["messages"][0]["content"] == "Line one\nline two"
    reached = set()
    for _ in range(30):
        page.keyboard.press("Shift+Tab")
        reached.add(
            page.evaluate(
                "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent.trim()"
            )
        )
    expected = {
        "Settings",
        "Copy the answer",
        "Copy as curl or Python",
        "Ask again",
        "Edit the question",
        "Add images",
        "Token probabilities",
    }
    assert expected - reached == set()


def test_a_starter_fills_the_question(page: Any) -> None:
    page.get_by_role("button", name="Describe this image.").click()
    expect(page.locator("#question")).to_have_value("Describe this image.")
    expect(page.locator("#question")).to_be_focused()


def test_nothing_is_wider_than_the_screen(page: Any) -> None:
    wide = "[document.documentElement, document.getElementById('log')].some((one) => one.scrollWidth > one.clientWidth)"
    assert not page.evaluate(wide)
    page.set_input_files("#files", [file("a.png", width=4000, height=40), file("b.png", width=40, height=4000)])
    expect(page.locator("#thumbs button")).to_have_count(2)
    answered(page, "w" * 500, image=False)
    assert not page.evaluate(wide)
    page.locator(".answer").get_by_label("Compare with blank images").click()
    expect(page.locator(".two .stats").last).to_contain_text("token")
    assert not page.evaluate(wide)


def faults_of(page: Any) -> list[str]:
    """The serious faults that axe finds."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {[node['html'][:120] for node in one['nodes']]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser: Any, server: StandIn, script: Script, size: str, scheme: str) -> None:
    context = opened(
        browser, size, color_scheme=scheme, bypass_csp=True, reduced_motion="reduce"
    )  # axe is put into the page
    page = context.new_page()
    page.goto(server.url)
    expect(page.locator("#model")).to_have_text("eve-v2-demo")
    faults = {"empty": faults_of(page)}
    page.set_input_files("#files", [file(), file("b.png")])
    expect(page.locator("#cost")).to_contain_text("2 images")
    faults["draft"] = faults_of(page)
    answered(page, image=False)
    page.locator(".answer").get_by_label("Compare with blank images").click()
    expect(page.locator(".two .stats").last).to_contain_text("token")
    page.get_by_label("Token probabilities", exact=True).first.click()
    page.locator(".token").nth(2).focus()
    faults["answer"] = faults_of(page)
    script.refuse = [(400, "No")]
    page.fill("#question", "Wrong?")
    page.click("#send")
    expect(page.locator("#failure")).to_be_visible()
    faults["failure"] = faults_of(page)
    page.get_by_label(": show large").first.click()
    faults["viewer"] = faults_of(page)
    page.click("#viewer-close")
    page.click("#settings-open")
    faults["settings"] = faults_of(page)
    page.click("#settings-close")
    page.get_by_label("Copy as curl or Python").first.click()
    faults["code"] = faults_of(page)
    page.click("#code-close")
    if size == "phone":
        page.click("#history-open")
        faults["drawer"] = faults_of(page)
    script.key = "k"
    page.reload()
    expect(page.locator("#key")).to_be_visible()
    faults["key"] = faults_of(page)
    context.close()
    assert {state: found for state, found in faults.items() if found} == {}
