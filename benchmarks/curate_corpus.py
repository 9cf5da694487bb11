"""What curation says about the files and records of bad_corpus.py."""

import re
from typing import Any

from benchmarks import bad_corpus

# Bad for training, and otherwise for curation, which is of one image whose caption may be absent: their rules.
OTHERWISE = {
    **{"good_text": "images", "answer_alone": "images", "too_long": "max_words"},
    **dict.fromkeys(("no_conversations", "empty_conversations"), "min_words"),
}


def named(case: bad_corpus.Case, line: dict[str, Any] | None) -> bool:
    """Return whether the `line` of rejected.jsonl says what is wrong with the `case`."""
    if line is None:
        return False
    if case.id in OTHERWISE:
        return line["rule"] == OTHERWISE[case.id]
    return line["stage"] in ("ingest", "measure") and re.search(case.reason, line["value"]) is not None
