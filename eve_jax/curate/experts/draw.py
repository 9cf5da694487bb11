"""Findings drawn into an image: boxes and lines of OCR with their names."""

from PIL import Image, ImageDraw, ImageFont

from eve_jax.curate.experts.form import Findings, area

COLORS = {"boxes": ("#f28c28", "#d1495b", "#3aa655", "#a663cc", "#e0b000"), "ocr": ("#1e88e5",)}
INK = "white"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw_findings(image: Image.Image, findings: Findings) -> Image.Image:
    """Return a copy of the RGB `image` with its boxes, the largest first, and its lines of OCR drawn into it.

    Names and scores stand at the boxes; tags are not drawn, since they have no place.
    """
    drawn = image.convert("RGB")
    pen = ImageDraw.Draw(drawn)
    size = max(10, round(max(drawn.size) / 38))
    font = ImageFont.load_default(size)
    thick = max(1, size // 7)
    names = sorted({one["name"] for one in findings.get("boxes", ())})
    for expert, colors in COLORS.items():
        for one in sorted(findings.get(expert, ()), key=area, reverse=True):
            color = colors[names.index(one["name"]) % len(colors)] if expert == "boxes" else colors[0]
            text = f"{one['name']} {one['score']:.2f}" if expert == "boxes" else one["text"]
            x1, y1, x2, y2 = (at * side for at, side in zip(one["box"], drawn.size * 2, strict=True))
            pen.rectangle((x1, y1, x2, y2), outline=color, width=thick)
            _label(pen, text, (x1, y1), color, font)
    return drawn


def _label(
    pen: ImageDraw.ImageDraw,
    text: str,
    corner: tuple[float, float],
    color: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Write `text` on a ground of `color` above `corner`, or below it at the upper edge."""
    x, y = corner
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    high = bottom - top + 4
    y = y - high if y >= high else y
    pen.rectangle((x, y, x + right - left + 4, y + high), fill=color)
    pen.text((x + 2 - left, y + 2 - top), text, INK, font)
