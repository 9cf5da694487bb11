"""Files on their way to a bucket share the memory that there is for them."""

import threading
from pathlib import Path

import pytest

from eve_jax.process import buckets
from eve_jax.process.room import Room
from tests.buckets import Buckets


def test_room() -> None:
    """No more is held at a time than there is room for, but for one that is larger."""
    room, held, most, turn = Room(10), [0], [0], threading.Lock()

    def hold(size: int) -> None:
        with room.taken(size):
            with turn:
                held[0] += size
                most[0] = max(most[0], held[0])
                assert held[0] <= max(10, size)
            with turn:
                held[0] -= size

    assert buckets.together(hold, [3, 4, 12, 5, 1, 10] * 20) == [None] * 120
    assert most == [12]


def test_files_that_are_sent_together_wait_for_memory(
    url: str, store: Buckets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, most, turn, write = [0], [0], threading.Lock(), buckets.write

    def counted(url: str, data: bytes) -> bytes:
        with turn:
            held[0] += len(data)
            most[0] = max(most[0], held[0])
        try:
            return write(url, data)
        finally:
            with turn:
                held[0] -= len(data)

    monkeypatch.setattr(buckets, "write", counted)
    room = Room(20)
    monkeypatch.setattr(buckets, "_sending", lambda: room)
    for name in "abcdefgh":
        (tmp_path / name).write_bytes(name.encode() * (50 if name == "e" else 4))
    buckets.together(lambda name: buckets.upload(tmp_path / name, f"{url}/{name}"), "abcdefgh")
    assert most == [50]
    assert {len(data) for data, _ in store.objects.values()} == {4, 50}
