"""Bytes of a file, or values of a JSON file, changed at random."""

import json
import random
from copy import deepcopy
from typing import Any

WEIRD: tuple[Any, ...] = (
    *("\ud800", "x" * 300),
    *(
        None,
        True,
        -1,
        0,
        1,
        2**31,
        2**63,
        -(2**63),
        2**64,
        10**40,
        1e308,
        -0.5,
        float("nan"),
        float("inf"),
        "",
        "x",
        "\0",
    ),
    *("../x", "/etc/passwd", "..", "a/../../etc/passwd", [], {}, [[]], [None], [-1], ["x"], {"x": 1}, "9" * 5000),
)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` with some bytes changed, cut out, doubled, put in or cut off; of JSON mostly with other values."""
    if data[:1] in (b"{", b"[") and rng.random() < 0.6:
        try:
            return _other_values(data, rng)
        except ValueError:
            pass
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at, size = rng.randrange(len(out) + 1), rng.choice((1, 1, 2, 4, 8, 100))
        what = rng.randrange(6)
        if what == 0:
            out[at : at + size] = rng.randbytes(len(out[at : at + size]))
        elif what == 1:
            out[at : at + size] = rng.choice((0, 1, 127, 128, 255)).to_bytes(1, "little") * len(out[at : at + size])
        elif what == 2:
            number = rng.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, len(data), rng.randrange(2**64)))
            out[at : at + 8] = number.to_bytes(8, "little")[: len(out[at : at + 8])]
        elif what == 3:
            del out[at : at + size * rng.choice((1, 10, 1000))]
        elif what == 4:
            out[at:at] = out[max(at - size, 0) : at] * rng.choice((1, 3, 1000))
        else:
            del out[at:]
        out = out or bytearray(b"\0")
    return bytes(out)


def _other_values(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.05:
        return rng.choice((b"[", b'{"a":')) * 200_000
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places: list[tuple[Any, Any]] = []
        _places(value, places)
        if not places:
            break
        owner, key = rng.choice(places)
        what = rng.randrange(8)
        if what == 0:
            del owner[key]
        elif what == 1 and isinstance(owner, dict):
            owner[str(rng.choice(WEIRD))[:50]] = owner.pop(key)
        elif what == 2:
            owner[key] = deepcopy(owner[rng.choice(list(owner))] if isinstance(owner, dict) else [owner[key]] * 2)
        else:
            owner[key] = deepcopy(rng.choice(WEIRD))
    text = json.dumps(value)
    return text.encode("utf-8", "surrogatepass")


def _places(value: Any, found: list[tuple[Any, Any]]) -> None:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found.append((value, key))
        if len(found) < 3000:
            _places(inner, found)
