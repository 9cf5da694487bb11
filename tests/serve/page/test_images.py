"""Images of a question: how they arrive, their order, their patches and size, and blank ones in their place."""

import base64
from typing import Any

import pytest

from tests.serve.page.conftest import file, png
from tests.serve.page.stand_in import Script, images_of, is_blank

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = pytest.mark.slow

# Makes files of base64 data and hands them to the page as an event of the clipboard or of a drag would.
HAND_OVER = """([kind, images]) => {
  const transfer = new DataTransfer();
  for (const [name, type, data] of images) {
    const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type }));
  }
  const more = kind === "paste" ? { clipboardData: transfer } : { dataTransfer: transfer };
  const make = kind === "paste" ? ClipboardEvent : DragEvent;
  document.body.dispatchEvent(new make(kind, { bubbles: true, cancelable: true, ...more }));
}"""


def hand_over(page: Any, kind: str, *images: tuple[str, bytes], mime: str = "image/png") -> None:
    page.evaluate(HAND_OVER, [kind, [[name, mime, base64.b64encode(data).decode()] for name, data in images]])


def names(page: Any) -> list[str]:
    buttons = page.locator("#thumbs button").all()
    return [str(one.get_attribute("aria-label")).split(": ")[1] for one in buttons]


def test_paste_drop_and_files_add_up_to_the_models_limit(page: Any, script: Script) -> None:
    expect(page.locator("#model")).to_have_text("eve-v2-demo")
    hand_over(page, "paste", ("a.png", png()))
    expect(page.locator("#name")).to_have_text("a.png")
    hand_over(page, "dragenter", ("b.png", png()))
    expect(page.locator("#drop")).to_be_visible()
    hand_over(page, "drop", ("b.png", png(300, 700)), ("c.png", png(64, 64)))
    expect(page.locator("#drop")).to_be_hidden()
    expect(page.locator("#thumbs button")).to_have_count(3)
    page.set_input_files("#photo", file("d.png"))
    expect(page.locator("#thumbs button")).to_have_count(4)
    hand_over(page, "drop", ("e.png", png()))
    expect(page.locator("#toast")).to_contain_text("4 images at most")
    assert names(page) == ["a.png", "b.png", "c.png", "d.png"]


def test_the_order_can_be_changed_by_keyboard_and_images_removed(page: Any, script: Script) -> None:
    sizes = {"a.png": (640, 480), "b.png": (300, 700), "c.png": (64, 96)}
    page.set_input_files("#files", [file(name, width=w, height=h) for name, (w, h) in sizes.items()])
    expect(page.locator("#thumbs button")).to_have_count(3)
    expect(page.locator("#tray-note")).to_contain_text("64×96")
    forward = page.get_by_label("Move the image forward")
    forward.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("c.png is now image 2 of 3")
    expect(forward).to_be_focused()
    page.keyboard.press("Enter")
    expect(forward).to_be_disabled()
    expect(page.get_by_label("Move the image back")).to_be_focused()
    assert names(page) == ["c.png", "a.png", "b.png"]
    page.get_by_label("Image 2: a.png").click()
    page.get_by_label("Remove a.png").click()
    assert names(page) == ["c.png", "b.png"]
    page.fill("#question", "What?")
    page.click("#send")
    expect(page.locator(".answer .stats")).to_contain_text("token")
    assert [one.size for one in images_of(script.asked[0])] == [(64, 96), (300, 700)]


def test_the_patches_follow_the_size_limit(page: Any, script: Script) -> None:
    page.set_input_files("#files", file(width=1200, height=900))
    note = page.locator("#tray-note")
    expect(note).to_have_text("1200×900 pixels · 29×22 patches · 661 tokens")
    box = page.locator("#stage .grid").get_attribute("viewBox")
    assert box == "0 0 29 22"
    page.locator("#max-size").focus()
    page.keyboard.press("Home")
    expect(page.locator("#max-size-value")).to_have_text("64 px")
    expect(note).to_contain_text("2×2\u00a0patches · 7\u00a0tokens")
    page.fill("#question", "Small?")
    page.click("#send")
    expect(page.locator(".answer .stats")).to_contain_text("token")
    assert script.asked[0]["max_size"] == 64
    page.set_input_files("#files", file(width=1200, height=900))
    page.click("#max-size-reset")
    expect(note).to_contain_text("29×22")
    expect(page.locator("#max-size-reset")).to_be_hidden()


def test_images_over_the_context_are_told_before_they_are_sent(page: Any, script: Script) -> None:
    script.model = {**script.model, "max_model_len": 600}
    page.reload()
    page.set_input_files("#files", file(width=1200, height=900))
    expect(page.locator("#cost")).to_have_text("1 image, 661 of 600 tokens: too many")


def test_what_is_no_image_is_refused_by_name(page: Any) -> None:
    expect(page.locator("#model")).to_have_text("eve-v2-demo")
    page.set_input_files("#files", {"name": "notes.png", "mimeType": "image/png", "buffer": b"no image"})
    expect(page.locator("#toast")).to_contain_text("notes.png is not an image that this browser can read")
    expect(page.locator("#tray")).to_be_hidden()
    hand_over(page, "drop", ("a.pdf", b"%PDF"), mime="application/pdf")
    expect(page.locator("#toast")).to_contain_text("Only image files")


def test_an_image_that_is_too_large_is_reduced_and_that_is_said(page: Any, script: Script) -> None:
    page.set_input_files("#files", file(width=6000, height=4500))
    expect(page.locator("#tray-note")).to_contain_text("reduced to 3265×2449 before sending".replace(" ", "\u00a0"))
    page.fill("#question", "Large?")
    page.click("#send")
    expect(page.locator(".answer .stats")).to_contain_text("token")
    assert images_of(script.asked[0])[0].size == (3265, 2449)


def test_a_small_image_is_sent_byte_by_byte(page: Any, script: Script) -> None:
    page.set_input_files("#files", file())
    page.fill("#question", "Same?")
    page.click("#send")
    expect(page.locator(".answer .stats")).to_contain_text("token")
    url = script.asked[0]["messages"][0]["content"][0]["image_url"]["url"]
    assert base64.b64decode(url.partition(",")[2]) == png()


def test_a_model_without_images_takes_none(page: Any, script: Script) -> None:
    script.model = {**script.model, "images": None}
    page.reload()
    expect(page.locator("#facts")).to_contain_text("text only")
    expect(page.locator("#add")).to_be_disabled()
    hand_over(page, "paste", ("a.png", png()))
    expect(page.locator("#toast-text")).to_have_text("This model takes no images")


def test_the_same_question_with_blank_images(page: Any, script: Script) -> None:
    page.set_input_files("#files", [file(), file("b.png", width=300, height=700)])
    page.fill("#question", "What is it?")
    page.click("#send")
    page.locator(".answer").get_by_label("Compare with blank images").click()
    expect(page.locator(".two .text")).to_have_text(["A red boat on the water.", "I see gray."])
    with_images, without = script.asked
    assert (
        [one.size for one in images_of(without)]
        == [one.size for one in images_of(with_images)]
        == [(640, 480), (300, 700)]
    )
    assert all(map(is_blank, images_of(without)))
    assert not any(map(is_blank, images_of(with_images)))
    page.reload()
    page.locator("#conversations .open").first.dispatch_event("click")
    expect(page.locator(".two .text")).to_have_text(["A red boat on the water.", "I see gray."])


def test_every_answer_is_compared_when_the_setting_is_on(page: Any, script: Script) -> None:
    page.click("#settings-open")
    page.get_by_label("Compare with blank images").check()
    page.click("#settings button[type=submit]")
    page.fill("#question", "No image")
    page.click("#send")
    expect(page.locator(".answer .stats")).to_contain_text("token")
    page.set_input_files("#files", file())
    page.fill("#question", "An image")
    page.click("#send")
    expect(page.locator(".two .text").last).to_have_text("I see gray.")
    assert len(script.asked) == 3
    script.refuse = [(500, "Internal error")]
    page.get_by_label("Ask again").click()
    expect(page.locator("#failure")).to_contain_text("Internal error")


def test_a_comparison_that_fails_leaves_the_answer(page: Any, script: Script) -> None:
    page.set_input_files("#files", file())
    page.fill("#question", "What is it?")
    page.click("#send")
    expect(page.locator(".answer .stats")).to_contain_text("token")
    script.refuse = [(500, "Internal error")]
    page.locator(".answer").get_by_label("Compare with blank images").click()
    expect(page.locator("#failure")).to_contain_text("The comparison failed")
    expect(page.locator(".answer .text")).to_have_text("A red boat on the water.")
    page.click("#failure-retry")
    expect(page.locator(".two .text")).to_have_text(["A red boat on the water.", "I see gray."])
    expect(page.locator("#failure")).to_be_hidden()


def test_the_large_view_and_the_switch_of_the_grid(page: Any) -> None:
    page.set_input_files("#files", file())
    page.fill("#question", "What is it?")
    page.click("#send")
    expect(page.locator(".answer .stats")).to_contain_text("token")
    expect(page.locator(".question .grid")).to_have_count(1)
    page.locator(".question").get_by_label("Patch grid").click()
    expect(page.locator(".question .grid")).to_have_count(0)
    page.get_by_label("boat.png: show large").click()
    expect(page.locator("#viewer")).to_be_visible()
    expect(page.locator("#viewer .grid")).to_have_count(1)
    page.click("#viewer-grid")
    expect(page.locator("#viewer .grid")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()
    page.get_by_label("boat.png: show large").click()
    page.click("#viewer-close")
    expect(page.locator("#viewer")).to_be_hidden()
