"""Which days are looked at, and which of them in one changed market."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qlib_ext.lookahead.changed_market import Block

BLOCK_DAYS = 10  # after each day of a batch so many days become others


def choose(segments: Sequence[np.ndarray], days: int, number: int) -> list[int]:
    """`number` days t of the segments that have a day after them, spread evenly, with the last of each segment.

    Parameters
    ----------
    segments
        Positions of the days of each segment.
    days
        D, the days of the calendar.
    number
        How many; all where there are fewer.
    """
    pool = np.unique(np.concatenate([np.asarray(part, dtype=int) for part in segments]))
    pool = pool[pool < days - 1]
    last = {int(part[part < days - 1][-1]) for part in map(np.asarray, segments) if (part < days - 1).any()}
    if len(pool) <= number:
        return pool.tolist()
    rest = np.setdiff1d(pool, [*last])
    spread = rest[np.linspace(0, len(rest) - 1, max(0, number - len(last))).round().astype(int)]
    return sorted({*spread.tolist(), *last})


def plan(days: Sequence[int], spacing: int) -> list[list[int]]:
    """Batches: days apart by at least `spacing`, each day in one batch, as few batches as that takes.

    One changed market serves a whole batch: the days after each of its days are others, and by the next of its days
    what a feature remembers of them is forgotten, if it remembers no more than `spacing` less the changed days.
    """
    batches: list[list[int]] = []
    for day in sorted(days):
        ready = [batch for batch in batches if day - batch[-1] >= spacing]
        if ready:
            min(ready, key=lambda batch: batch[-1]).append(day)
        else:
            batches.append([day])
    return batches


def blocks(batch: Sequence[int], days: int) -> list[Block]:
    """The days that become others after each day of a batch; all days where the batch is one day."""
    if len(batch) == 1:
        return [(batch[0] + 1, days)]
    return [(day + 1, min(day + 1 + BLOCK_DAYS, days)) for day in batch]
