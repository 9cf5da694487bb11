"""Writes report.html and report.png of a folder that `launch.curate` or `launch.caption` made."""

import os
from pathlib import Path

from eve_jax.curate.report import captions, curation
from eve_jax.curate.report.content import Content
from eve_jax.curate.report.figure import draw_report
from eve_jax.curate.report.page import page_of
from eve_jax.data.sources.records import Records
from eve_jax.data.view.document import write_text
from eve_jax.errors import UserError
from eve_jax.process.files import write_atomically

PAGE, PICTURE = "report.html", "report.png"


def write_report(folder: Path, source: Records | None = None, to: Path | None = None) -> list[Path]:
    """Write the reports of `folder`, into it or into the folder `to`, each complete or not at all; return their paths.

    source: of captions, the records that were captioned. Raises UserError for a folder that is neither a finished
    curation nor finished captions, and OSError.
    """
    content = content_of(folder, source)
    target = folder if to is None else to
    target.mkdir(parents=True, exist_ok=True)
    page, picture = target / PAGE, target / PICTURE
    write_text(page, page_of(content))
    write_atomically(Path(os.path.realpath(picture)), lambda part: draw_report(content, part))
    return [page, picture]


def content_of(folder: Path, source: Records | None = None) -> Content:
    """Return what the reports of `folder` show. Raises UserError."""
    if (folder / curation.CURATED).is_file():
        return curation.curation_content(folder)
    if (folder / captions.CAPTION).is_file() and (folder / captions.FUNNEL).is_file():
        return captions.caption_content(folder, source)
    raise UserError(
        f"{folder}: neither {curation.CURATED} of a curation nor {captions.CAPTION} and {captions.FUNNEL} of captions "
        "is there; name a folder that launch.curate or launch.caption has finished"
    )
