"""A lock that is an object of a bucket, written and removed under conditions on its generation."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from eve_jax.process import buckets
from eve_jax.process.owner import Held, Owner, owner_of


class BucketStore:
    """The lock at `url`: {owner's fields, "renewed": count, "time": of its owner's clock at the last renewal}.

    most: the greatest age in seconds that it is said to have, since clocks of hosts differ: a lock is never taken
    over before it was watched for a while. Methods raise OSError.
    """

    def __init__(self, url: str, most: float, clock: Callable[[], float] = time.time):
        self.place, self.most, self._clock = url, most, clock

    def create(self, owner: Owner) -> bool:
        """Create the lock if there is none; return whether it did."""
        buckets.write(self.place, self._text(owner, 0), instead_of=buckets.NONE_YET)
        found, _, _ = self._read()  # not what the write says: its first answer may have been lost
        if found is None:  # of a bucket that is not there a conditional write says no more
            buckets.names_below(self.place.rpartition("/")[0])
        return found is not None and found.get("token") == owner.token

    def read(self) -> Held | None:
        """Return the lock as it is now, None when there is none."""
        found, generation, text = self._read()
        if found is None:
            return None
        age = self._clock() - found["time"] if isinstance(found.get("time"), int | float) else 0.0
        return Held(owner_of(text, str(found.get("token", ""))), generation.hex(), min(max(0.0, age), self.most))

    def renew(self, token: str) -> bool:
        """Mark the lock as used now; return False when it is not that of `token` any more."""
        found, generation, _ = self._read()
        if found is None or found.get("token") != token:
            return False
        renewed = found | {"renewed": found["renewed"] + 1, "time": self._clock()}
        buckets.write(self.place, json.dumps(renewed).encode(), instead_of=generation or None)
        return True

    def remove(self, token: str) -> None:
        """Remove the lock if it is that of `token`."""
        found, generation, _ = self._read()
        if found is not None and found.get("token") == token:
            buckets.remove(self.place, generation or None)

    def _text(self, owner: Owner, renewed: int) -> bytes:
        return json.dumps(asdict(owner) | {"renewed": renewed, "time": self._clock()}).encode()

    def _read(self) -> tuple[dict[str, Any] | None, bytes, str]:
        data, generation = buckets.read(self.place)
        if data is None:
            return None, b"", ""
        text = data.decode("utf-8", "replace")
        try:
            found = json.loads(text)
        except ValueError:
            found = {}
        return (found if isinstance(found, dict) else {}), generation, text
