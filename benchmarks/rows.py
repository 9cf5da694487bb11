"""Tables whose rows take minutes each: finished ones are kept in a file and are not made again."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path


def read(file: Path | None, names: Iterable[str]) -> dict[str, str]:
    """The finished rows in `file`, by the one of `names` that stands in backticks in each; none where it is missing."""
    kept = file.read_text().splitlines() if file and file.is_file() else []
    return {name: row for name in names for row in kept if f"`{name}`" in row}


def add(rows: dict[str, str], names: Iterable[str], make: Callable[[str], str], file: Path | None) -> None:
    """Make the rows of `names` that `rows` has not, in this order; each is in `file` as soon as it is finished."""
    for name in names:
        if name not in rows:
            rows[name] = make(name)
            if file:
                with file.open("a") as out:
                    out.write(f"{rows[name]}\n")


def show(head: str, rows: list[str], as_json: bool) -> None:
    """Print the table, and with `as_json` its cells as a line of JSON last."""
    print(head, "|---" * (head.count("|") - 1) + "|", *rows, sep="\n")
    if as_json:
        print(json.dumps([[cell.strip() for cell in row.strip("|").split("|")] for row in rows]))
