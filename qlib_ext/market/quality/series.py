"""What several families of checks need of a block: closes that count, what traded, returns and their parts."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from qlib_ext.market.quality.source import Block


class Series:
    """Derived series of the S stocks of a block over D days.

    The return of a day compares its close with the last close before it, however long ago: a suspension is one step.

    Parameters
    ----------
    block
        Bars as they lie on disk.
    """

    def __init__(self, block: Block):
        self.block = block
        self.shape = (len(block.folders), next((v.shape[1] for v in block.values.values()), 0))
        self._none = np.full(self.shape, np.nan, dtype=np.float32)

    def field(self, name: str) -> np.ndarray:
        """float32 `[S, D]`; NaN throughout where no stock of the block has the field."""
        return self.block.values.get(name, self._none)

    @cached_property
    def close(self) -> np.ndarray:
        """Closes that are finite and above zero, as float64 `[S, D]`; NaN elsewhere."""
        close = self.field("close").astype(np.float64)
        close[~(np.isfinite(close) & (close > 0))] = np.nan
        return close

    @cached_property
    def valid(self) -> np.ndarray:
        """Whether there is a close that counts: bool `[S, D]`."""
        return ~np.isnan(self.close)

    @cached_property
    def has_volume(self) -> np.ndarray:
        """Whether a stock ever has a volume above zero; vendors leave that of indices at 0: bool `[S]`."""
        return np.asarray((self.field("volume") > 0).any(axis=1))

    @cached_property
    def traded(self) -> np.ndarray:
        """Whether the stock traded: a close and volume, or a close alone where there is no volume at all."""
        traded: np.ndarray = self.valid & ((self.field("volume") > 0) | ~self.has_volume[:, None])
        return traded

    @cached_property
    def carried(self) -> np.ndarray:
        """Whether a close is the last one before, to float32: bool `[S, D]`."""
        return np.abs(self.log_return) < 1e-6

    @cached_property
    def before(self) -> np.ndarray:
        """Day of the last close before each day, -1 where there is none: int32 `[S, D]`."""
        return last_before(self.valid)

    @cached_property
    def gap(self) -> np.ndarray:
        """Days since the stock last traded: 1 for the day before; int32 `[S, D]`.

        A stock that has only carried a close so far last traded before its first one; 0 where there is no close
        before.
        """
        first = np.argmax(self.valid, axis=1).astype(np.int32)[:, None]
        last = last_before(self.traded)
        last = np.where(last < 0, first - 1, last)
        return np.where(self.before < 0, 0, np.arange(self.shape[1], dtype=np.int32) - last)

    @cached_property
    def log_return(self) -> np.ndarray:
        """Of the close against the last one: float64 `[S, D]`, NaN where either is missing."""
        return self._growth(np.log(self.close))

    @cached_property
    def log_factor(self) -> np.ndarray:
        """How the factor moved between the same two days; 0 where it is unknown."""
        factor = self.field("factor").astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            moved = self._growth(np.log(np.where(factor > 0, factor, np.nan)))
        return np.where(np.isfinite(moved), moved, 0.0)

    @cached_property
    def raw_close(self) -> np.ndarray:
        """Close in money: adjusted close / factor, and the close itself where the factor is unknown."""
        factor = self.field("factor").astype(np.float64)
        usable = np.isfinite(factor) & (factor > 0)
        return self.close / np.where(usable, factor, 1.0)

    @cached_property
    def age(self) -> np.ndarray:
        """How many closes a stock has had by each day, today's included: int32 `[S, D]`."""
        return np.cumsum(self.valid, axis=1, dtype=np.int32)

    def previous(self, values: np.ndarray) -> np.ndarray:
        """`values` `[S, D]` at the last close before each day; NaN where there is none."""
        taken = np.take_along_axis(values, np.maximum(self.before, 0), axis=1)
        return np.where(self.before < 0, np.nan, taken)

    def _growth(self, logs: np.ndarray) -> np.ndarray:
        return logs - self.previous(logs)


def last_before(mask: np.ndarray) -> np.ndarray:
    """Position of the last True before each position, -1 where there is none: int32 of `[S, D]`."""
    positions = np.where(mask, np.arange(mask.shape[1], dtype=np.int32), np.int32(-1))
    last = np.maximum.accumulate(positions, axis=1) if mask.shape[1] else positions
    return np.concatenate([np.full((len(mask), 1), -1, dtype=np.int32), last[:, :-1]], axis=1)[
        :, : mask.shape[1]
    ]


def run_lengths(mask: np.ndarray) -> np.ndarray:
    """How many True in a row end at each position: int32 of `[S, D]`."""
    positions = np.arange(mask.shape[1], dtype=np.int32)
    breaks = np.where(mask, np.int32(-1), positions)
    last = np.maximum.accumulate(breaks, axis=1) if mask.shape[1] else breaks
    return np.where(mask, positions - last, 0)


def runs(mask: np.ndarray, at_least: int) -> list[tuple[int, int, int, int]]:
    """For each row of `mask` `[S, D]` with a run of `at_least` True: row, start and length of the longest, how many."""
    lengths = run_lengths(mask)
    ends = lengths == at_least
    found = []
    for row in np.flatnonzero(ends.any(axis=1)):
        last = int(np.argmax(lengths[row]))
        longest = int(lengths[row, last])
        found.append((int(row), last - longest + 1, longest, int(ends[row].sum())))
    return found
