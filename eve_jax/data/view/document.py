"""A self-contained HTML page: its frame, escaped text and images inside it.

The page is well-formed XML, too. It loads and runs nothing, which its Content-Security-Policy enforces: images are data
URLs, the style sheet is the one whose hash the policy names.
"""

import base64
import hashlib
import html
import io
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from eve_jax.process.files import write_atomically


def document(title: str, style: str, body: str) -> str:
    """Return the page. `title` is escaped here, `body` is HTML."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return f"""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8"/>
<meta http-equiv="Content-Security-Policy" content="{policy}"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>{escaped(title)}</title>
<style>{style}</style>
{body}
</html>
"""


def escaped(text: str) -> str:
    """Return `text` as HTML; control characters get a visible sign, line ends an arrow before them."""
    return html.escape(visible(text).replace("\n", "↵\n"))


def visible(text: str) -> str:
    """Return `text` with a visible sign for control characters other than tabs and line ends; XML has all the rest."""
    text = re.sub(r"[\x00-\x08\x0b-\x1f]", lambda match: chr(0x2400 + ord(match[0])), text)
    return re.sub(r"[\x7f-\x9f\ufffe\uffff]", "\ufffd", text)


def html_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[str] = (), text_from: int | None = None
) -> str:
    """Return a table of cells that are HTML already, `head` escaped here.

    numbers: names in `head` of columns that are aligned to the right. text_from: the column from which on cells hold
    long texts.
    """
    kinds = [' class="n"' if name in numbers else "" for name in head]
    if text_from is not None:
        kinds[text_from:] = [' class="text"'] * (len(head) - text_from)
    top = "".join(f"<th{kind}>{escaped(name)}</th>" for name, kind in zip(head, kinds, strict=True))
    lines = "\n".join(
        f"<tr>{''.join(f'<td{kind}>{cell}</td>' for cell, kind in zip(row, kinds, strict=True))}</tr>" for row in rows
    )
    return f'<div class="table"><table>\n<tr>{top}</tr>\n{lines}\n</table></div>'


def data_url(image: Image.Image, kind: str = "PNG", **settings: Any) -> str:
    """Return the image as a data URL of a PNG or JPEG file; `settings` are those of Pillow's `save`."""
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def write_text(path: Path, text: str) -> None:
    """Write the file `path` at once, as UTF-8; halves of surrogate pairs, which an id may hold, are written out."""
    write_atomically(Path(os.path.realpath(path)), text.encode("utf-8", "backslashreplace"))
