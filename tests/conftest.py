"""Settings of the whole test run, made before JAX is imported: CPU, and compiled programs kept between runs."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("EVE_CACHE", str(Path(__file__).parent.parent / ".cache"))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(os.environ["EVE_CACHE"]) / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
