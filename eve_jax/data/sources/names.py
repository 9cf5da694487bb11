"""Several sources in one text: names separated by commas, as in `config.data.records`."""

import glob
import os
import re

MOST_COMMAS = 15  # in a name that is found by trying


def split_names(text: str) -> list[str]:
    """Return the names in `text`, which are separated by commas.

    A comma belongs to a name where it is written `\\,`, or where a file or folder of that name exists, or a pattern
    matches; of several such names the longest is taken.
    """
    pieces = re.split(r"(?<!\\),", text)
    names = []
    while pieces:
        longest = min(len(pieces), MOST_COMMAS + 1)
        end = next((end for end in range(longest, 1, -1) if _exists(_name(",".join(pieces[:end])))), 1)
        names.append(_name(",".join(pieces[:end])))
        pieces = pieces[end:]
    return [name for name in names if name]


def _name(written: str) -> str:
    """Return the name that one item of the list stands for."""
    return written.strip().replace("\\,", ",")


def _exists(name: str) -> bool:
    return os.path.exists(name) or (glob.has_magic(name) and next(glob.iglob(name), None) is not None)
