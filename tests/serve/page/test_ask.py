"""Questions and answers: streams, stops, faults of the server, the API key, and a server that is away."""

import threading
from typing import Any

import pytest

from tests.serve.page.conftest import file
from tests.serve.page.stand_in import Script, StandIn, images_of

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = pytest.mark.slow


def ask(page: Any, text: str = "What is it?") -> None:
    page.fill("#question", text)
    page.click("#send")


def test_two_turns_send_the_whole_conversation(page: Any, script: Script) -> None:
    page.set_input_files("#files", [file("a.png"), file("b.png", color="#00ff00")])
    expect(page.locator("#cost")).to_contain_text("2 images, 632")
    ask(page)
    expect(page.locator(".answer .stats")).to_contain_text("652 read · 7 tokens · first after")
    ask(page, "And really?")
    expect(page.locator(".answer .text")).to_have_text(["A red boat on the water."] * 2)
    first, second = script.asked
    assert len(images_of(first)) == len(images_of(second)) == 2
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][1]["content"] == "A red boat on the water."
    assert [part["type"] for part in first["messages"][0]["content"]] == ["image_url", "image_url", "text"]
    settings = {name: first[name] for name in ("model", "temperature", "top_p", "stream", "logprobs", "top_logprobs")}
    assert settings == {
        "model": "eve-v2-demo",
        "temperature": 0,
        "top_p": 1,
        "stream": True,
        "logprobs": True,
        "top_logprobs": 5,
    }
    assert not {"max_tokens", "seed", "max_size"} & set(first)


def test_an_answer_is_text_and_never_markup(page: Any) -> None:
    ask(page, "Write in bold")
    expect(page.locator(".answer .text")).to_have_text("<b>bold</b>")
    expect(page.locator(".answer b")).to_have_count(0)


@pytest.mark.parametrize("by", ["button", "Escape"])
def test_stop_keeps_what_was_written_and_frees_the_server(page: Any, script: Script, size: str, by: str) -> None:
    script.go.clear()
    page.set_input_files("#files", file())
    ask(page)
    expect(page.locator(".answer .text")).to_have_text("A")
    expect(page.locator(".answer")).to_have_attribute("aria-busy", "true")
    expect(page.locator("#send")).to_be_hidden()
    page.click("#stop") if by == "button" else page.keyboard.press("Escape")
    expect(page.locator(".answer .stats")).to_contain_text("stopped · 1 token")
    expect(page.locator("#question" if size == "desktop" else "#log")).to_be_focused()
    expect(page.locator("#send")).to_be_visible()
    for _ in range(50):
        if script.left:
            break
        threading.Event().wait(0.1)
    assert script.left == 1
    script.go.set()
    ask(page, "Go on")
    expect(page.locator(".answer")).to_have_count(2)


def test_stop_before_the_first_token_takes_the_turn_back(page: Any, script: Script) -> None:
    script.pause = 5
    page.set_input_files("#files", file())
    ask(page, "Slow?")
    expect(page.locator(".dots")).to_be_visible()
    page.click("#stop")
    expect(page.locator(".question")).to_have_count(0)
    expect(page.locator("#question")).to_have_value("Slow?")
    expect(page.locator("#tray-note")).to_contain_text("20×15")


def test_a_refusal_is_shown_and_the_turn_taken_back(page: Any, script: Script) -> None:
    script.refuse = [(400, "The prompt of 5000 tokens exceeds the context"), (503, "Too many requests wait")]
    page.set_input_files("#files", file())
    ask(page, "Too long?")
    expect(page.locator("#failure")).to_contain_text("The prompt of 5000 tokens exceeds the context")
    expect(page.locator("#alert")).to_contain_text("exceeds the context")
    expect(page.locator(".question")).to_have_count(0)
    expect(page.locator("#question")).to_have_value("Too long?")
    expect(page.locator("#tray")).to_be_visible()
    page.click("#failure-retry")
    expect(page.locator("#failure")).to_contain_text("The server is busy")
    expect(page.locator("#failure")).to_contain_text("Try again in 3 s")
    page.click("#failure-close")
    expect(page.locator("#failure")).to_be_hidden()
    page.click("#send")
    expect(page.locator(".answer .text")).to_have_text("A red boat on the water.")


def test_a_stream_that_fails_takes_the_turn_back(page: Any, script: Script) -> None:
    script.break_after = 3
    ask(page, "Yes or no? bold")
    expect(page.locator(".answer .text")).to_have_text("<b>bold</b>")
    script.break_after = 2
    ask(page, "Once more, bold")
    expect(page.locator("#failure")).to_contain_text("The model ran out of memory")
    expect(page.locator(".answer")).to_have_count(1)
    expect(page.locator("#question")).to_have_value("Once more, bold")


def test_a_draft_that_was_begun_meanwhile_is_kept(page: Any, script: Script) -> None:
    script.go.clear()
    script.break_after = 2
    ask(page, "First, bold")
    expect(page.locator(".answer .text")).to_have_text("<b>")
    page.fill("#question", "second")
    script.go.set()
    expect(page.locator("#question")).to_have_value("First, bold\nsecond")


def test_the_key_is_asked_once(page: Any, script: Script, server: StandIn) -> None:
    script.key = "s3cret"
    page.reload()
    dialog = page.locator("#key")
    expect(dialog).to_be_visible()
    expect(page.locator("#key-value")).to_be_focused()
    page.fill("#key-value", "wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-text")).to_contain_text("did not accept")
    page.fill("#key-value", "s3cret")
    page.click("#key button[type=submit]")
    expect(page.locator("#model")).to_have_text("eve-v2-demo")
    ask(page)
    expect(page.locator(".answer .text")).to_have_text("Yes.")
    page.reload()
    expect(page.locator("#model")).to_have_text("eve-v2-demo")
    expect(dialog).to_be_hidden()
    assert page.evaluate("JSON.stringify(localStorage)").count("s3cret") == 0
    page.click("#settings-open")
    page.click("#set-forget")
    page.click("#settings-close")
    ask(page, "Again?")
    expect(dialog).to_be_visible()
    page.click("#key-cancel")
    expect(page.locator("#failure")).to_contain_text("asks for an API key")
    expect(page.locator("#question")).to_have_value("Again?")


def test_a_server_that_starts_is_waited_for(page: Any, script: Script) -> None:
    script.starting = True
    page.reload()
    expect(page.locator("#banner")).to_contain_text("The server is starting")
    page.fill("#question", "Ready?")
    expect(page.locator("#send")).to_be_disabled()
    script.starting = False
    page.click("#banner-retry")
    expect(page.locator("#banner")).to_be_hidden()
    expect(page.locator("#send")).to_be_enabled()


def test_without_network_the_question_stays(page: Any) -> None:
    expect(page.locator("#model")).to_have_text("eve-v2-demo")
    page.context.set_offline(True)
    expect(page.locator("#banner")).to_contain_text("You are offline")
    ask(page, "Anyone?")
    expect(page.locator("#failure")).to_contain_text("cannot be reached")
    expect(page.locator("#question")).to_have_value("Anyone?")
    page.context.set_offline(False)
    expect(page.locator("#banner")).to_be_hidden()
    page.click("#failure-retry")
    expect(page.locator(".answer .text")).to_have_text("Yes.")


def test_what_streams_is_followed_until_the_reader_scrolls(page: Any, script: Script) -> None:
    line = "one more line of the answer\n" * 50
    script.answers["long"] = tuple((line, 0.9, {}) for _ in range(12))
    script.pause = 0.25
    ask(page, "A long one")
    expect(page.locator(".answer .text")).to_contain_text(line.strip())
    expect(page.locator("#to-end")).to_be_hidden()
    page.evaluate("document.getElementById('log').scrollTo(0, 0)")
    expect(page.locator("#to-end")).to_be_visible()
    expect(page.locator(".answer .stats")).to_contain_text("12 tokens")
    assert page.evaluate("document.getElementById('log').scrollTop") == 0
    page.click("#to-end")
    expect(page.locator("#to-end")).to_be_hidden()
