"""The order of rows: micro-batches of one row shape each, and steps of them that are all near the mixture.

rows by shape -> groups of as many rows as a micro-batch has -> spread evenly over the run
              -> in every block of some steps, groups exchanged so that each step has its share of everything
"""

from itertools import pairwise

import numpy as np

from eve_jax.data.plan.packing import MAX_WINDOW, Packed, pack
from eve_jax.process.compiled import njit

BLOCK = 32  # steps among which groups are exchanged


def group_rows(
    table: Packed, last_round: int, counts: np.ndarray, menu: np.ndarray, rows: int, fill_up: bool
) -> tuple[Packed, list[np.ndarray]]:
    """Groups of `rows` rows per shape: int64 [groups, rows] row numbers of the returned table, -1 for padding rows.

    Rows that are left over, the emptiest of the last round (rows from `last_round` on), are packed anew into as few
    groups as possible, and padding rows complete those; without `fill_up` they are left away.
    """
    full: list[np.ndarray] = []
    rest: list[np.ndarray] = []
    for k in range(len(menu)):
        mine = np.flatnonzero(table.shape == k)
        n_rest = len(mine) % rows
        if not fill_up:
            full.append(mine[: len(mine) - n_rest].reshape(-1, rows))
            continue
        last = mine[np.searchsorted(mine, last_round) :]  # rows of two rounds may hold the same record: never mix those
        emptiest = _smallest(table.tokens[last], n_rest)
        keep = np.ones(len(mine), bool)
        keep[len(mine) - len(last) + emptiest] = False
        full.append(mine[keep])
        rest.append(last[emptiest])
    if not fill_up:
        return table, full
    table, rest = _pack_rest(table, rest, counts, menu, rows, [len(mine) for mine in full])
    groups = []
    for mine, more in zip(full, rest, strict=True):
        padding = np.full(-(len(mine) + len(more)) % rows, -1)
        groups.append(np.concatenate([mine, more, padding]).reshape(-1, rows))
    return table, groups


def _smallest(values: np.ndarray, n: int) -> np.ndarray:
    """Places of the `n` smallest values int32 [m] (all if there are fewer), the earlier of equal ones; sorted."""
    if n >= len(values):
        return np.arange(len(values))
    key = (values.astype(np.int64) << 32) | np.arange(len(values))
    return np.sort(np.argpartition(key, n)[:n])


def _pack_rest(
    table: Packed, rest: list[np.ndarray], counts: np.ndarray, menu: np.ndarray, rows: int, n_full: list[int]
) -> tuple[Packed, list[np.ndarray]]:
    """Packs left-over rows (numbers, per shape) anew into the one shape that makes the fewest groups in all."""

    def cost(option: list[np.ndarray]) -> tuple[int, int]:
        n_rows = [len(mine) + full for mine, full in zip(option, n_full, strict=True)]
        return sum(-(-n // rows) for n in n_rows), sum(n_rows)

    largest = [_largest(table, mine, counts) for mine in rest]
    best_table, best = table, rest
    for target, shape in enumerate(menu):
        fits = [(most <= shape).all(1) for most in largest]
        moved = np.concatenate([mine[can] for mine, can in zip(rest, fits, strict=True)])
        if not len(moved):
            continue
        entries, _ = table.rows(moved)
        order = entries[np.argsort(-counts[entries].sum(1), kind="stable")]
        packed = pack(counts, order, shape[None], window=min(len(order), MAX_WINDOW))
        packed.shape[:] = target
        option = [mine[~can] for mine, can in zip(rest, fits, strict=True)]
        option[target] = np.concatenate([option[target], len(table) + np.arange(len(packed))])
        if cost(option) < cost(best):
            best_table, best = Packed.joined([table, packed]), option
    return best_table, best


def _largest(table: Packed, rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Of each of the rows, the largest number of patches, specials and text tokens of one record, [m, 3]."""
    entries, first = table.rows(rows)
    return np.maximum.reduceat(counts[entries], first[:-1], axis=0) if len(rows) else np.zeros((0, 3), np.int32)


def row_content(table: Packed, starts: np.ndarray) -> np.ndarray:
    """What steps should share evenly, float32 [rows, 1 + sources]: of each row its vision tokens, as a share of the
    mean row's tokens, and its samples of each source, as a share of the mean row's samples.

    starts int64 [sources + 1]: the first entry of each source, and the end. A single source is not counted.
    """
    vision = table.vision / table.tokens.mean()
    samples = samples_by_source(table.entries, table.first, starts) if len(starts) > 2 else np.zeros((len(table), 0))
    return np.concatenate([vision[:, None], samples * (len(table) / len(table.entries))], 1).astype(np.float32)


@njit
def samples_by_source(entries, first, starts):
    """How many entries of each source a row has, int32 [rows, sources]; arguments as of `Packed`, `row_content`."""
    out = np.zeros((len(first) - 1, len(starts) - 1), np.int32)
    for row in range(len(first) - 1):
        for i in range(first[row], first[row + 1]):
            source = 0
            while entries[i] >= starts[source + 1]:
                source += 1
            out[row, source] += 1
    return out


def spread(
    groups: list[np.ndarray], content: np.ndarray, rows: int, micro_batches: int, round_starts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The order of all groups: shape int32 [B] and row numbers int64 [B, rows], where B = steps * micro_batches.

    content: float [table rows, c], see `row_content`; round_starts: int64, the first row of each round. Rounds follow
    each other, and each shape's groups are spread evenly over theirs; then the groups of some steps in a row (at most
    BLOCK) are dealt so that each step is near their mean, and none is of text alone where there are as many groups
    with images as steps. Groups of padding rows, which complete the run, are dealt among the last steps.
    """
    number = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    turn = np.concatenate([np.searchsorted(round_starts, group[:, 0], side="right") - 1 for group in groups])
    row_ids = np.concatenate(groups)
    n_padding = -len(number) % micro_batches
    if n_padding:
        number = np.concatenate([number, np.full(n_padding, np.bincount(number).argmax())])
        turn = np.concatenate([turn, np.full(n_padding, len(round_starts))])
        row_ids = np.concatenate([row_ids, np.full((n_padding, rows), -1)])
    held = np.where(row_ids[..., None] >= 0, content[row_ids], 0.0).sum(1)
    order = np.argsort(turn + _place_within(turn, number), kind="stable")
    if micro_batches > 1:
        ends = _blocks(np.cumsum(np.bincount(turn)) // micro_batches)
        order = _evenly(order, held[order, 0] > 0, len(number) - n_padding, ends, micro_batches)
        order = _dealt(order, held, ends, micro_batches)
    return number[order].astype(np.int32), row_ids[order]


def _place_within(turn: np.ndarray, number: np.ndarray) -> np.ndarray:
    """The place of each group among those of its shape and round, from 0 to 1."""
    _, kind, sizes = np.unique(np.stack([number, turn]), axis=1, return_inverse=True, return_counts=True)
    by_kind = np.argsort(kind, kind="stable")
    place = np.empty(len(kind))
    place[by_kind] = np.arange(len(kind)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return (place + 0.5) / sizes[kind]


def _blocks(ends: np.ndarray) -> np.ndarray:
    """Steps (the last one's number plus one) at which blocks end: where rounds do, and every BLOCK steps or fewer."""
    blocks: list[int] = []
    for start, end in pairwise([0, *ends.tolist()]):
        n = -(-(end - start) // BLOCK)
        blocks += [start + (end - start) * b // n for b in range(1, n + 1)]
    return np.array(blocks)


def _evenly(order: np.ndarray, has_vision: np.ndarray, n_real: int, ends: np.ndarray, micro_batches: int) -> np.ndarray:
    """`order` with the groups with images spread evenly over blocks of steps that end at `ends`; padding stays last."""
    steps = len(order) // micro_batches
    real = np.arange(len(order)) < n_real
    vision, text = order[has_vision & real], order[~has_vision & real]
    until_text = np.minimum(ends * micro_batches - ends * len(vision) // steps, len(text))
    until_vision = np.minimum(ends * micro_batches, n_real) - until_text
    parts, v, t = [], 0, 0
    for next_v, next_t in zip(until_vision, until_text, strict=True):
        parts += [text[t:next_t], vision[v:next_v]]
        v, t = next_v, next_t
    return np.concatenate([*parts, order[n_real:]])


def _dealt(order: np.ndarray, held: np.ndarray, ends: np.ndarray, micro_batches: int) -> np.ndarray:
    """`order` with the groups of each block of steps dealt to its steps; held: float [groups, c], their contents."""
    out = []
    for block in np.split(order, ends[:-1] * micro_batches):
        n_steps = len(block) // micro_batches
        mine = held[block]
        away = mine - mine.mean(0)
        text_only = mine[:, 0] <= 0
        farthest = np.argsort(-np.where(text_only, np.inf, (away**2).sum(1)), kind="stable")
        spare = (~text_only).sum() >= n_steps  # enough groups with images for every step to have one
        step = _deal(away[farthest], text_only[farthest], n_steps, micro_batches, micro_batches - int(spare))
        out.append(block[farthest[np.argsort(step, kind="stable")]])
    return np.concatenate(out)


@njit
def _deal(away, text_only, n_steps, micro_batches, most_text):
    """The step of each group, in turn the one whose sum then is nearest to the mean of all."""
    total = np.zeros((n_steps, away.shape[1]))
    size, n_text = np.zeros(n_steps, np.int64), np.zeros(n_steps, np.int64)
    step = np.empty(len(away), np.int64)
    for g in range(len(away)):
        best, least = -1, np.inf
        for s in range(n_steps):
            if size[s] == micro_batches or (text_only[g] and n_text[s] >= most_text):
                continue
            change = 0.0
            for j in range(away.shape[1]):
                change += away[g, j] * (2 * total[s, j] + away[g, j])
            if change < least:
                best, least = s, change
        total[best] += away[g]
        size[best] += 1
        n_text[best] += text_only[g]
        step[g] = best
    return step
