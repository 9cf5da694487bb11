import sys

sys.path.insert(0, "/work/wt/remote18")
from pathlib import Path

from eve_jax.process import buckets

D = Path("/tmp/s/remote18/data")
fs = [p for p in D.rglob("*") if p.is_file() and p.stat().st_size]
buckets.together(lambda p: buckets.upload(p, f"gs://bkt/data/{p.relative_to(D)}"), fs)
