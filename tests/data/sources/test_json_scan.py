"""Lines of JSONL are found by any size of the blocks that the file is read in, without numba."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from eve_jax.data.sources import json_files

LINES = (b'{"a": 1}', b'  {"b": 2}\r', b"", b" ", b"\t\r", b'\v{"c": 3}', b'{"text": "' + b"x" * 50 + b'"}')


@pytest.mark.parametrize("block", [1, 3, 64, 1 << 20])
def test_lines_but_blank_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(json_files, "SCAN_BYTES", block)
    draw = random.Random(block)
    for number in range(30):
        data = b"\n".join(draw.choices(LINES, k=draw.randrange(1, 60))) + draw.choice([b"", b"\n", b"\n\n ", b"\r\n"])
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(data)
        file = json_files.JsonFile(path)
        expected = [(line, n) for n, line in enumerate(data.split(b"\n"), 1) if line.strip(b" \t\r")]
        assert [file._read(index) for index in range(len(file))] == [(line, f"{path}:{n}") for line, n in expected]


def test_curation_and_captions_import_no_compiler(tmp_path: Path) -> None:
    """Each takes longer to import than a hundred images to measure, and the memory of a thousand."""
    (tmp_path / "a.jsonl").write_text('{"image": "a.jpg", "caption": "a bus"}\n')
    code = (
        "import sys; import eve_jax.curate.run, eve_jax.caption.write, launch.curate;"
        "from eve_jax.data.sources.records import open_records;"
        f"open_records({str(tmp_path / 'a.jsonl')!r})[0];"
        "print(sorted({'numba', 'jax', 'jaxtyping', 'tensorflow', 'torch', 'daft'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
