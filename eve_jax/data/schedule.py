"""The order of rows: micro-batches of one row shape each, spread evenly over the steps."""

import numpy as np

from eve_jax.data.packing import Packed, pack

MAX_WINDOW = 512  # records looked at for each pick when left-over rows are packed anew


def group_rows(
    table: Packed, last_epoch: int, counts: np.ndarray, menu: np.ndarray, rows: int, fill_up: bool
) -> tuple[Packed, list[np.ndarray]]:
    """Groups of `rows` rows per shape: int64 [groups, rows] row numbers of the returned table, -1 for padding rows.

    Rows that are left over, the emptiest of the last epoch (rows from `last_epoch` on), are packed anew into as few
    groups as possible, and padding rows complete those; without `fill_up` they are left away.
    """
    ids, rest = [], []
    tokens = np.add.reduceat(counts[table.entries].sum(1), table.first[:-1])
    for k in range(len(menu)):
        mine = np.flatnonzero(table.shape == k)
        last = mine[mine >= last_epoch]  # rows of different epochs may hold the same record: never mix those
        emptiest = last[np.argsort(tokens[last], kind="stable")[: len(mine) % rows]]
        ids.append(np.setdiff1d(mine, emptiest))
        rest.append(np.sort(emptiest))
    if not fill_up:
        return table, [mine[: len(mine) // rows * rows].reshape(-1, rows) for mine in ids]
    table, rest = _pack_rest(table, rest, counts, menu, rows, [len(mine) for mine in ids])
    groups = []
    for mine, more in zip(ids, rest, strict=True):
        padding = np.full(-(len(mine) + len(more)) % rows, -1)
        groups.append(np.concatenate([mine, more, padding]).reshape(-1, rows))
    return table, groups


def _pack_rest(
    table: Packed, rest: list[np.ndarray], counts: np.ndarray, menu: np.ndarray, rows: int, n_full: list[int]
) -> tuple[Packed, list[np.ndarray]]:
    """Packs left-over rows (numbers, per shape) anew into the one shape that makes the fewest groups in all."""

    def cost(option: list[np.ndarray]) -> tuple[int, int]:
        n_rows = [len(mine) + full for mine, full in zip(option, n_full, strict=True)]
        return sum(-(-n // rows) for n in n_rows), sum(n_rows)

    best_table, best = table, rest
    for target in range(len(menu)):
        shape = menu[target]
        fits = [np.array([(counts[table.rows(r[None])[0]] <= shape).all() for r in mine], bool) for mine in rest]
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
            best_table, best = table.joined(packed), option
    return best_table, best


def spread(groups: list[np.ndarray], menu: np.ndarray, rows: int, micro_batches: int) -> tuple[np.ndarray, np.ndarray]:
    """The order of all groups: shape int32 [B] and row numbers int64 [B, rows], where B = steps * micro_batches.

    Each shape's groups are spread evenly over the run; those with images and those of text alone separately, so that
    a step of text alone occurs only where there are fewer groups with images than steps. Padding groups come last.
    """
    number = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    time = np.concatenate([(np.arange(len(group)) + 0.5) / max(len(group), 1) for group in groups])
    row_ids = np.concatenate(groups)
    n_padding = -len(number) % micro_batches
    if n_padding:
        number = np.concatenate([number, np.full(n_padding, np.bincount(number).argmax())])
        time = np.concatenate([time, np.full(n_padding, np.inf)])
        row_ids = np.concatenate([row_ids, np.full((n_padding, rows), -1)])
    steps = len(number) // micro_batches
    order = np.argsort(time, kind="stable")
    has_vision = menu[number[order], 0] > 0
    vision, text = order[has_vision], order[~has_vision]
    n_vision = np.diff(np.arange(steps + 1) * len(vision) // steps)
    v, t = np.cumsum(n_vision) - n_vision, np.cumsum(micro_batches - n_vision) - (micro_batches - n_vision)
    ordered = np.concatenate(
        [
            np.concatenate([vision[v[k] : v[k] + n_vision[k]], text[t[k] : t[k] + micro_batches - n_vision[k]]])
            for k in range(steps)
        ]
    )
    return number[ordered].astype(np.int32), row_ids[ordered]
