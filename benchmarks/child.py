"""A command of this repository that ends with a line of JSON, in a process of its own."""

import json
import subprocess
import sys
from typing import Any


def child(module: str, *arguments: str) -> dict[str, Any]:
    """The JSON line that a process ends with; its progress is shown. When it has none: "error", and its "last" line."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True)
    lines = done.stdout.splitlines()
    try:
        return json.loads(lines[-1])
    except (IndexError, json.JSONDecodeError):
        return {
            "error": f"{module} {' '.join(arguments)} ended with status {done.returncode}",
            "last": lines[-1] if lines else "",
        }
