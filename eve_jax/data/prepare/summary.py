"""What a conversion came to, as tables for people."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from eve_jax.data.field_counts import FieldCounts

BAR = 40  # characters of the longest bar of a histogram


def print_summary(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints the summary that `eve_jax.data.prepare.convert.convert` returns."""
    out = console or Console()
    out.print(
        f"{summary['kept']:,} records kept, {summary['dropped']:,} dropped; {summary['images']:,} images in "
        f"{summary['image_files']:,} files; {summary['text_only']:,} records of text alone, "
        f"{summary['several_images']:,} with several images; {summary['gigabytes']:.3f} GB in "
        f"{summary['shards']} shards",
        highlight=False,
        soft_wrap=True,
    )
    for name, counts in summary.get("sources", {}).items():
        line = FieldCounts.of_plain(counts).line(name)
        out.print(f"records of {line}", highlight=False, soft_wrap=True, markup=False)
    _counts(out, "dropped, see bad_records.jsonl", summary["reasons"])
    _counts(out, "image sizes (pixels)", summary["image_sizes"])
    table = summary.get("table")
    if table:
        out.print(
            f"lengths: {table['records']:,} records of {table['text_tokens']:,} text and {table['vision_tokens']:,} "
            f"vision tokens, the longest of {table['longest']:,}; {table['dropped']:,} left out",
            highlight=False,
            soft_wrap=True,
        )
        _counts(out, "left out of the lengths table", table["reasons"])


def _counts(out: Console, title: str, counts: Mapping[str, int]) -> None:
    if not counts:
        return
    grid = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2))
    most = max(counts.values())
    for name, count in counts.items():
        grid.add_row(name, f"{count:>12,}", "█" * max(round(BAR * count / most), 1))
    out.print(grid)
