"""Conversations that stay in the browser: kept, opened, edited, asked again, deleted."""

from typing import Any

import pytest

from tests.serve.page.conftest import file
from tests.serve.page.stand_in import Script, images_of, question_of

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = pytest.mark.slow


def ask(page: Any, text: str) -> None:
    before = page.locator(".answer").count()
    page.fill("#question", text)
    page.click("#send")
    expect(page.locator(".answer .stats", has_text="token")).to_have_count(before + 1)


def drawer(page: Any, size: str) -> None:
    if size == "phone":
        page.click("#history-open")
        expect(page.locator("#history-close")).to_be_focused()


def test_a_conversation_outlives_the_page(page: Any, script: Script, size: str) -> None:
    page.set_input_files("#files", file())
    ask(page, "What is it?")
    page.reload()
    expect(page.locator("#empty")).to_be_visible()
    drawer(page, size)
    page.locator("#conversations .open", has_text="What is it?").click()
    expect(page.locator(".answer .text")).to_have_text("A red boat on the water.")
    expect(page.locator(".question figcaption")).to_contain_text("20×15 patches")
    expect(page.locator("#conversations .open[aria-current=true]")).to_have_count(1)
    ask(page, "And more?")
    assert images_of(script.asked[-1])[0].size == (640, 480)


def test_the_last_question_is_edited(page: Any, script: Script) -> None:
    page.set_input_files("#files", file())
    ask(page, "What is it?")
    page.fill("#question", "a draft")
    page.get_by_label("Edit the question").click()
    expect(page.locator("#question")).to_have_value("What is it?")
    expect(page.locator("#question")).to_be_focused()
    expect(page.locator("#editing")).to_be_visible()
    expect(page.locator("#tray")).to_be_visible()
    page.click("#edit-cancel")
    expect(page.locator(".answer .text")).to_have_text("A red boat on the water.")
    expect(page.locator("#question")).to_have_value("a draft")
    page.get_by_label("Edit the question").click()
    page.keyboard.press("Escape")
    expect(page.locator("#question")).to_have_value("a draft")
    page.get_by_label("Edit the question").click()
    ask_again = "What is it in bold?"
    page.fill("#question", ask_again)
    page.click("#send")
    expect(page.locator(".answer .text")).to_have_text("<b>bold</b>")
    assert [question_of(one) for one in script.asked] == ["What is it?", ask_again]
    assert len(script.asked[-1]["messages"]) == 1


def test_the_last_question_is_asked_again(page: Any, script: Script) -> None:
    ask(page, "One")
    ask(page, "Two")
    page.get_by_label("Ask again").click()
    expect(page.locator(".answer .stats", has_text="token")).to_have_count(2)
    assert [question_of(one) for one in script.asked] == ["One", "Two", "Two"]
    assert script.asked[1]["messages"] == script.asked[2]["messages"]


def test_an_edit_or_a_retry_that_fails_loses_no_answer(page: Any, script: Script) -> None:
    page.set_input_files("#files", file())
    ask(page, "What is it?")
    page.fill("#question", "a draft")
    script.refuse = [(500, "internal error")]
    page.get_by_label("Ask again").click()
    expect(page.locator("#failure-text")).to_have_text("Internal error. The answer of before is back.")
    expect(page.locator(".answer .text")).to_have_text("A red boat on the water.")
    expect(page.locator("#question")).to_have_value("a draft")
    page.click("#failure-retry")
    expect(page.locator("#failure")).to_be_hidden()
    expect(page.locator(".answer .stats")).to_contain_text("token")
    assert [question_of(one) for one in script.asked] == ["What is it?"] * 3
    script.refuse = [(500, "internal error")]
    page.get_by_label("Edit the question").click()
    page.fill("#question", "What is bold?")
    page.click("#send")
    expect(page.locator("#failure-text")).to_have_text("Internal error. Your question is back.")
    expect(page.locator("#editing")).to_be_visible()
    expect(page.locator("#question")).to_have_value("What is bold?")
    page.click("#edit-cancel")
    expect(page.locator(".answer .text")).to_have_text("A red boat on the water.")
    expect(page.locator("#question")).to_have_value("a draft")
    page.get_by_label("Edit the question").click()
    page.fill("#question", "What is bold?")
    page.click("#send")
    expect(page.locator(".answer .text")).to_have_text("<b>bold</b>")
    expect(page.locator("#question")).to_have_value("a draft")


def test_conversations_are_begun_and_deleted(page: Any, script: Script, size: str) -> None:
    for text in ("First", "Second"):
        ask(page, text)
        drawer(page, size)
        page.click("#new")
        expect(page.locator("#empty")).to_be_visible()
        expect(page.locator("#question")).to_be_focused()
    drawer(page, size)
    titles = page.locator("#conversations .title")
    expect(titles).to_have_text(["Second", "First"])
    page.get_by_label("Delete Second").click()
    expect(titles).to_have_text(["First"])
    expect(page.locator("#status")).to_have_text("1 conversation deleted")
    page.click("#toast-undo")
    expect(titles).to_have_text(["Second", "First"])
    page.click("#delete-all")
    expect(titles).to_have_count(0)
    expect(page.locator("#no-conversations")).to_be_visible()
    page.click("#toast-undo")
    page.locator("#conversations .open", has_text="First").click()
    expect(page.locator(".bubble")).to_have_text("First")
    if size == "phone":
        expect(page.locator("#history")).to_be_hidden()


def test_the_open_conversation_is_deleted_while_it_is_answered(page: Any, script: Script, size: str) -> None:
    script.go.clear()
    page.fill("#question", "Wait, bold")
    page.click("#send")
    expect(page.locator(".answer .text")).to_have_text("<b>")
    drawer(page, size)
    page.get_by_label("Delete Wait, bold").click()
    expect(page.locator("#empty")).to_be_visible()
    expect(page.locator("#conversations li")).to_have_count(0)
    page.reload()
    expect(page.locator("#no-conversations")).to_be_attached()
    assert page.evaluate("Object.keys(localStorage).length") == 0


def test_leaving_while_it_is_answered_keeps_the_part(page: Any, script: Script, size: str) -> None:
    script.go.clear()
    page.fill("#question", "Wait, bold")
    page.click("#send")
    expect(page.locator(".answer .text")).to_have_text("<b>")
    drawer(page, size)
    page.click("#new")
    expect(page.locator("#empty")).to_be_visible()
    expect(page.locator("#question")).to_have_value("")
    drawer(page, size)
    page.locator("#conversations .open").click()
    expect(page.locator(".answer .stats")).to_contain_text("stopped")


def test_a_question_left_without_an_answer_is_kept(page: Any, script: Script, size: str) -> None:
    script.pause = 5
    page.fill("#question", "Slow?")
    page.click("#send")
    expect(page.locator(".dots")).to_be_visible()
    drawer(page, size)
    page.click("#new")
    script.pause = 0
    drawer(page, size)
    page.locator("#conversations .open").click()
    expect(page.locator(".bubble")).to_have_text("Slow?")
    page.get_by_label("Ask again").click()
    expect(page.locator(".answer .text")).to_have_text("Yes.")


def test_what_storage_holds_is_not_believed(page: Any) -> None:
    kept = {
        "eve:settings": '{"temperature": 9, "seed": "x", "top_p": 0.5}',
        "eve:conversation:1": "{",
        "eve:conversation:2": '{"id": 2}',
    }
    for name, value in kept.items():
        page.evaluate("([name, value]) => localStorage.setItem(name, value)", [name, value])
    page.reload()
    expect(page.locator("#model")).to_have_text("eve-v2-demo")
    expect(page.locator("#conversations li")).to_have_count(0)
    page.click("#settings-open")
    expect(page.locator("#set-temperature")).to_have_value("0")
    expect(page.locator("#set-top_p")).to_have_value("0.5")


def test_a_full_storage_is_told(page: Any) -> None:
    page.evaluate(
        "for (let size = 2 ** 22; size >= 1; size /= 2)"
        "  try { for (;;) localStorage.setItem('x' + Math.random(), 'y'.repeat(size)) } catch {}"
    )
    ask(page, "Kept?")
    expect(page.locator("#toast")).to_contain_text("storage is full")
    expect(page.locator(".answer .text")).to_have_text("Yes.")


def test_a_second_tab_sees_the_conversation(page: Any, size: str) -> None:
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.locator("#model")).to_have_text("eve-v2-demo")
    ask(page, "Shared?")
    expect(other.locator("#conversations .title")).to_have_text("Shared?")
