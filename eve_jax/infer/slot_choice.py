"""Which free slot a request gets, and whose cache entries it begins with."""

from collections.abc import Sequence
from typing import NamedTuple

from eve_jax.infer.prefix import Items, Kept, PrefixStore
from eve_jax.infer.slots import Slot

LEAST = 16  # fewer tokens in common are read again rather than copied


class Choice(NamedTuple):
    """A free slot, and the first `tokens` tokens of what its row begins with.

    source: another slot, or a row of the store, that they are copied from; None: the slot has them.
    saves: the row that the slot has is worth keeping, copied out before.
    """

    slot: Slot
    source: Slot | Kept | None
    tokens: int
    saves: bool


def choose(slots: Sequence[Slot], store: PrefixStore, items: Items) -> Choice:
    """Choose one of the free `slots` for a prompt of `items`, of which at least one token is left to be read.

    The prompt continues a free row that holds most of what it begins with, unless that loses more than half of the
    row; otherwise the row that was free for longest is taken, and the entries are copied there.
    """
    most = items.tokens - 1
    shared = {slot.number: slot.items.common(items, most) for slot in slots}
    free = [slot for slot in slots if slot.free]
    best = max(slots, key=lambda slot: (shared[slot.number], slot.free))
    near = max(free, key=lambda slot: shared[slot.number])
    if shared[near.number] + LEAST > shared[best.number]:
        best = near
    kept, in_store = store.best(items, most)
    tokens = shared[best.number]
    if best.free and tokens >= in_store and 2 * tokens >= best.length:
        return Choice(best, None, tokens, False)
    victim = min(free, key=lambda slot: (bool(slot.length), slot is best, slot.freed, slot.number))
    saves = victim.length >= LEAST and not _held_elsewhere(victim, slots, store)
    if kept is not None and in_store > tokens and in_store >= LEAST:
        return Choice(victim, kept, in_store, saves)
    if best is not victim and tokens >= LEAST:
        return Choice(victim, best, tokens, saves)
    return Choice(victim, None, shared[victim.number], saves)


def _held_elsewhere(victim: Slot, slots: Sequence[Slot], store: PrefixStore) -> bool:
    others = (slot.items for slot in slots if slot is not victim)
    return any(other.begins_with(victim.items) for other in others) or store.covers(victim.items)
