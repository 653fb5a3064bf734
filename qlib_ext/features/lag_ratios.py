"""Medians of a field's ratios at many lags, exact, without ever holding a lag's ratios at once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from qlib_ext.features.market_panel import day_blocks
from qlib_ext.features.medians import EVERYTHING, Count, bracket_of, median_of, sample_size, select

BLOCK_CELLS = 1 << 16  # days times stocks; what is computed on them fits into a core's cache


class LagRatios:
    """The ratios of a field at each of T lags, over all rows: medians without ever holding a lag's ratios at once.

    A random sample of the rows brackets each lag's median. One pass over the days, in blocks that stay in the
    processor's cache for all lags, counts what lies below the bracket and keeps what lies inside, about one value
    in a hundred; the median is among those, and exact. Where the sample misled, that lag is done without a bracket.

    Parameters
    ----------
    plane
        `[T - 1 + n, S]`: the field on the n fitted days and on the T - 1 days before them.
    base
        `[n, S]`: what the values of a row's window are divided by; NaN where there is no row.
    steps
        T; step 0 is the oldest lag.
    sample
        Positions in the flat `[n, S]` of a sample of the rows, or None where there are too few rows to need one.
    """

    def __init__(
        self,
        plane: np.ndarray,
        base: np.ndarray,
        steps: int,
        sample: np.ndarray | None,
        pool: ThreadPoolExecutor,
    ) -> None:
        self.plane, self.base, self.steps, self.pool = plane, base, steps, pool
        self._sampled = None if sample is None else self._ratios_of(sample)  # [T, rows of the sample]

    def medians(self, center: np.ndarray | None = None) -> np.ndarray:
        """`[T]` float32: the median at each lag, of the ratios or of their distances to `center` `[T]`."""
        brackets = list(self.pool.map(lambda step: self._bracket(step, center), range(self.steps)))
        counts = self._scan(range(self.steps), brackets, center)
        found = list(self.pool.map(select, counts))
        for step in [step for step, value in enumerate(found) if value is None]:
            (count,) = self._scan([step], [EVERYTHING], center)
            found[step] = median_of(np.concatenate(count.inside))
        return np.array(found, dtype=np.float32)

    def _bracket(self, step: int, center: np.ndarray | None) -> tuple[np.floating, np.floating]:
        if self._sampled is None:
            return EVERYTHING
        ratio = self._sampled[step]
        if center is not None:
            with np.errstate(all="ignore"):
                ratio = np.abs(ratio - center[step])
        return bracket_of(ratio)

    def _ratios_of(self, sample: np.ndarray) -> np.ndarray:
        base = self.base.reshape(-1).take(sample)
        ratios = np.empty((self.steps, len(sample)), np.float32)

        def fill(step: int) -> None:
            with np.errstate(all="ignore"):
                np.divide(self.plane[step:].reshape(-1).take(sample), base, out=ratios[step])

        list(self.pool.map(fill, range(self.steps)))
        return ratios

    def _scan(
        self,
        steps: Sequence[int],
        brackets: Sequence[tuple[np.floating, np.floating]],
        center: np.ndarray | None,
    ) -> list[Count]:
        blocks = list(day_blocks(self.base.shape, BLOCK_CELLS))
        shares = -(-len(blocks) // (4 * torch.get_num_threads()))
        parts = [blocks[i : i + shares] for i in range(0, len(blocks), shares)]
        counted = self.pool.map(lambda part: self._scan_blocks(part, steps, brackets, center), parts)
        return [Count.merge(of_lag) for of_lag in zip(*counted, strict=True)]

    def _scan_blocks(
        self,
        blocks: Sequence[slice],
        steps: Sequence[int],
        brackets: Sequence[tuple[np.floating, np.floating]],
        center: np.ndarray | None,
    ) -> list[Count]:
        counts = [Count(*bracket) for bracket in brackets]
        size = max((block.stop - block.start) * self.base.shape[1] for block in blocks)
        buffer = np.empty(size, np.float32)
        masks = np.empty((2, size), dtype=bool)
        with np.errstate(all="ignore"):
            for block in blocks:
                base = self.base[block].reshape(-1)
                ratio, (first, second) = buffer[: len(base)], masks[:, : len(base)]
                for step, count in zip(steps, counts, strict=True):
                    window = self.plane[block.start + step : block.stop + step].reshape(-1)
                    np.divide(window, base, out=ratio)
                    if center is not None:
                        np.subtract(ratio, center[step], out=ratio)
                        np.abs(ratio, out=ratio)
                    count.add(ratio, first, second)
        return counts


def sample_rows(rows: np.ndarray) -> np.ndarray | None:
    """Flat positions of random rows; None where all of them are few."""
    number = int(np.count_nonzero(rows))
    size = sample_size(number)
    if size is None:
        return None
    cells = int(size * rows.size / number)
    drawn = np.sort(np.random.default_rng(0).integers(0, rows.size, cells))
    return drawn[rows.reshape(-1)[drawn]]
