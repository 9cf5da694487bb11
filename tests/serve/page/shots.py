"""Makes docs/page.png and docs/page_phone.png: `python -m tests.serve.page.shots`. The answers are scripted here."""

import io
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from playwright.sync_api import expect, sync_playwright

from tests.serve.page.conftest import CHROMIUM, opened
from tests.serve.page.stand_in import StandIn, Tokens

DOCS = Path(__file__).parents[3] / "docs"
SIZE = (1200, 800)
FINE = 2  # drawn so many times larger, then shrunk
SEEN: Tokens = (
    ("A", 0.97, {"The": 0.02}),
    (" small", 0.46, {" sail": 0.33, " red": 0.12, " boat": 0.05}),
    (" boat", 0.88, {" sail": 0.08, " ship": 0.03}),
    (" with", 0.93, {" on": 0.05}),
    (" a", 0.96, {" red": 0.03}),
    (" red", 0.91, {" white": 0.06}),
    (" sail", 0.98, {" flag": 0.01}),
    (" on", 0.74, {",": 0.11, " in": 0.08}),
    (" a", 0.62, {" the": 0.31, " calm": 0.05}),
    (" calm", 0.52, {" blue": 0.29, " lake": 0.07}),
    (" sea", 0.83, {" lake": 0.12}),
    (",", 0.35, {".": 0.52, " at": 0.09}),
    (" in", 0.27, {" with": 0.31, " at": 0.22}),
    (" front", 0.89, {" the": 0.06}),
    (" of", 0.999, {}),
    (" a", 0.71, {" the": 0.27}),
    (" low", 0.18, {" setting": 0.44, " yellow": 0.12}),
    (" sun", 0.95, {" hill": 0.02}),
    (".", 0.98, {",": 0.01}),
)
BLANK: Tokens = (
    ("The", 0.41, {"A": 0.3}),
    (" image", 0.77, {" photo": 0.1}),
    (" shows", 0.58, {" is": 0.3}),
    (" a", 0.63, {" an": 0.1}),
    (" man", 0.09, {" woman": 0.08, " gray": 0.07, " person": 0.05}),
    (" in", 0.34, {" with": 0.2}),
    (" a", 0.69, {" the": 0.2}),
    (" room", 0.12, {" field": 0.1, " street": 0.08}),
    (".", 0.88, {" with": 0.05}),
)


def scene() -> bytes:
    """A boat on the sea in the evening, as a PNG file."""
    w, h = (side * FINE for side in SIZE)
    image = Image.new("RGB", (w, h))
    draw = ImageDraw.Draw(image)
    horizon = int(h * 0.58)
    for y in range(h):
        in_sky = y < horizon
        share = y / horizon if in_sky else (y - horizon) / (h - horizon)
        high, low = ((86, 132, 196), (250, 206, 150)) if in_sky else ((94, 138, 160), (24, 62, 100))
        draw.line((0, y, w, y), fill=tuple(round(a + (b - a) * share) for a, b in zip(high, low, strict=True)))
    draw.ellipse((w * 0.7 - h * 0.1, horizon - h * 0.15, w * 0.7 + h * 0.1, horizon + h * 0.05), fill=(255, 232, 170))
    draw.rectangle((0, horizon, w, horizon + h * 0.06), fill=(94, 138, 160))
    draw.polygon(
        [(0, horizon), (0, h * 0.5), (w * 0.1, h * 0.46), (w * 0.22, h * 0.53), (w * 0.34, horizon)], fill=(70, 96, 112)
    )
    for n in range(9):
        top, half = horizon + h * (0.02 + 0.03 * n), w * (0.09 - 0.007 * n)
        box = (w * 0.7 - half, top, w * 0.7 + half, top + h * 0.008)
        draw.rounded_rectangle(box, h * 0.004, fill=(240, 205, 150))
    x, deck = w * 0.42, h * 0.74
    draw.polygon(
        [(x - h * 0.2, deck), (x + h * 0.22, deck), (x + h * 0.15, deck + h * 0.08), (x - h * 0.14, deck + h * 0.08)],
        fill=(92, 54, 38),
    )
    draw.rectangle((x - h * 0.2, deck - h * 0.012, x + h * 0.22, deck + h * 0.008), fill=(240, 236, 226))
    draw.line((x, deck, x, h * 0.2), fill=(60, 42, 34), width=int(h * 0.01))
    for side, tip, width, color in ((1, 0.22, 0.21, (200, 52, 44)), (-1, 0.28, 0.15, (236, 230, 216))):
        mast, foot = x + side * h * 0.015, deck - h * 0.04
        draw.polygon([(mast, h * tip), (mast, foot), (x + side * h * width, foot)], fill=color)
    stream = io.BytesIO()
    image.resize(SIZE, Image.Resampling.LANCZOS).save(stream, "png")
    return stream.getvalue()


def shoot(page: Any, name: str) -> None:
    """Write a screenshot of the page into docs."""
    page.wait_for_timeout(300)
    Image.open(io.BytesIO(page.screenshot())).convert("RGB").save(DOCS / name, optimize=True)


def main() -> None:
    """Ask, compare, show probabilities; once on a desktop, once on a phone before the question is sent."""
    server = StandIn()
    server.script.pause = 0.04
    server.script.seen, server.script.unseen = SEEN, BLANK
    boat = {"name": "boat.png", "mimeType": "image/png", "buffer": scene()}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        for size, scale in (("desktop", 1.5), ("phone", 2)):
            page = opened(browser, size, device_scale_factor=scale).new_page()
            page.goto(server.url)
            page.set_input_files("#files", boat)
            expect(page.locator("#cost")).to_contain_text("tokens")
            page.fill("#question", "What do you see?")
            if size == "phone":
                shoot(page, "page_phone.png")
                continue
            page.keyboard.press("Enter")
            page.locator(".answer").get_by_label("Compare with blank images").click()
            expect(page.locator(".two .stats").last).to_contain_text("token")
            page.get_by_label("Token probabilities", exact=True).first.click()
            page.locator(".token", has_text="calm").hover()
            shoot(page, "page.png")
        browser.close()


if __name__ == "__main__":
    main()
