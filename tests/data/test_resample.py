"""Resizing by our own arithmetic: Pillow's values to the bit, the order of its passes by version, and falling back."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eve_jax.data.image import resample
from eve_jax.data.image.resample import Order, by_passes, by_pillow, order_of, resized

ROOT = Path(__file__).parents[2]


def installed() -> Order:
    order = order_of(by_pillow)
    assert order is not None, "the installed Pillow's order of passes is not known"
    return order


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("edges", [False, True])
def test_pillows_values(edges: bool) -> None:
    """Up and down, thin and wide, of one side, near the sizes where Pillow changes the order of its passes."""
    order, rng = installed(), np.random.default_rng(int(edges))
    for number in range(60):
        width, height = (int(side) for side in rng.integers(1, 260, 2))
        new_width, new_height = (max(1, round(side * rng.uniform(0.15, 2.2))) for side in (width, height))
        if number % 4 == 1:
            new_width = width
        if number % 4 == 2:  # 2 (W - w) = H - h, give or take one
            new_width = max(1, width - (height - new_height) // 2 + int(rng.integers(-1, 2)))
        image = noise(width, height, number)
        image = np.where(image > 127, 255, 0).astype(np.uint8) if edges else image
        found = by_passes(image, new_width, new_height, order)
        assert found.dtype == np.uint8
        assert np.array_equal(found, by_pillow(image, new_width, new_height)), (width, height, new_width, new_height)


def test_any_layout_and_sizes_of_nothing() -> None:
    image = noise(90, 70)
    flipped = image[::-1, ::-1].swapaxes(0, 1)
    assert np.array_equal(by_passes(flipped, 32, 64, installed()), by_pillow(np.ascontiguousarray(flipped), 32, 64))
    assert np.array_equal(by_passes(image, 90, 70, installed()), image)
    image.flags.writeable = False
    assert np.array_equal(by_passes(image, 32, 32, installed()), by_pillow(image, 32, 32))


def test_the_order_of_other_versions() -> None:
    """Pillow up to 12 always begins with the horizontal pass; other arithmetic is not taken for a known one."""

    def twelve(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
        return by_pillow(by_pillow(rgb, width, rgb.shape[0]), width, height)

    order = order_of(twelve)
    assert order is not None
    assert not order(10, 1000, 10, 32)
    image = noise(40, 200)
    assert np.array_equal(by_passes(image, 32, 64, order), twelve(image, 32, 64))
    assert order_of(lambda rgb, width, height: by_pillow(rgb, width, height) ^ 1) is None


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has resized enough images to look at Pillow, and has not done so."""
    monkeypatch.setattr(resample, "FEW", 0)
    monkeypatch.setattr(resample, "_order", resample._order.__wrapped__)


def test_pillow_resizes_where_it_has_other_values(
    anew: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def other(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
        return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR))

    resample.warn.cache_clear()
    monkeypatch.setattr(resample, "by_pillow", other)
    image = noise(70, 50)
    for _ in range(2):
        assert np.array_equal(resized(image, 32, 32), other(image, 32, 32))
    assert capsys.readouterr().err.count("warning: this version of Pillow resizes by other arithmetic") == 1


def test_the_first_few_images_are_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    ways: list[str] = []
    monkeypatch.setattr(resample, "FEW", 2)
    monkeypatch.setattr(resample, "_images", iter(range(10)))

    def noting(name: str) -> Callable[..., np.ndarray]:
        way = getattr(resample, name)

        def noted(*args: Any) -> np.ndarray:
            ways.append(name)
            return way(*args)

        return noted

    for name in ("by_pillow", "by_passes"):
        monkeypatch.setattr(resample, name, noting(name))
    order = installed()
    monkeypatch.setattr(resample, "_order", lambda: order)
    ways.clear()
    made = [resized(noise(50, 40), 32, 32) for _ in range(4)]
    assert ways == ["by_pillow"] * 2 + ["by_passes"] * 2
    assert all(np.array_equal(one, made[0]) for one in made)


def test_threads(anew: None) -> None:
    """Threads that begin together look at Pillow one at a time, and all have its values."""
    image = noise(130, 90)
    expected, found = by_pillow(image, 96, 64), []
    threads = [threading.Thread(target=lambda: found.append(resized(image, 96, 64))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(np.array_equal(one, expected) for one in found)


@pytest.mark.slow
def test_processes_that_begin_together_with_nothing_compiled(tmp_path: Path) -> None:
    code = (
        "import numpy as np; from eve_jax.data.image import resample as r; r.FEW = 0\n"
        "image = np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)\n"
        "assert r._order() is not None\n"
        "assert np.array_equal(r.resized(image, 96, 64), r.by_pillow(image, 96, 64)); print('equal')"
    )
    env = {**os.environ, "EVE_CACHE": str(tmp_path), "PYTHONPATH": str(ROOT)}
    for _ in range(2):  # the second time, everything is there
        started = [
            subprocess.Popen([sys.executable, "-c", code], env=env, stdout=-1, stderr=-1, text=True) for _ in range(4)
        ]
        assert [process.communicate(timeout=300) for process in started] == [("equal\n", "")] * 4
