"""What this machine's processor can do, by the flags that Linux lists of it."""

import functools
from pathlib import Path

_INFO = Path("/proc/cpuinfo")


@functools.cache
def has_flag(name: str, info: Path = _INFO) -> bool:
    """Return whether every core has the flag `name` (such as avx512_bf16); False where that cannot be told."""
    try:
        lines = info.read_text().splitlines()
    except OSError:
        return False
    flags = [set(line.partition(":")[2].split()) for line in lines if line.partition(":")[0].strip() == "flags"]
    return bool(flags) and all(name in own for own in flags)
