"""Settings of `transformers`, made before it is imported: no network, remote code in a folder of the test run."""

import os

from tests.scratch import scratch

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_MODULES_CACHE"] = str(scratch("eve_jax_modules_"))
