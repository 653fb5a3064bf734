"""Normalisation of labels across the stocks of a day."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from qlib.data.dataset.processor import Processor

from qlib_ext.checks import UserError, brief, one_of, words

RANK_TO_UNIT = 3.46  # Qlib's factor: the standard deviation of a uniform variable is 1 / sqrt(12) = 1 / 3.46


class CrossSectionNorm(Processor):
    """Normalise named columns day by day, so that a loss compares stocks and not days.

    Parameters
    ----------
    columns
        Columns of `fields_group` to normalise; the others are left as they are (a class must not be ranked).
    method
        `rank`: (percentile rank - 0.5) * 3.46, as Qlib's CSRankNorm; `zscore`: (x - mean) / standard deviation of
        the day, as Qlib's CSZScoreNorm.
    fields_group
        Column group of `columns`.

    Notes
    -----
    Missing values stay missing and do not count. A day with one value gets NaN from `zscore`.
    """

    per_day = True

    def __init__(
        self, columns: Sequence[str] = ("RETURN",), method: str = "rank", fields_group: str = "label"
    ) -> None:
        self.columns = words("columns", columns)
        self.method = one_of("method", method, ("rank", "zscore"))
        self.fields_group = fields_group

    def __call__(self, df: pd.DataFrame) -> pd.DataFrame:
        """Normalise the columns in `df`."""
        for name in self.columns:
            column = (self.fields_group, name)
            if column not in df.columns:
                known = (
                    ", ".join(df[self.fields_group].columns) if self.fields_group in df.columns else "none"
                )
                raise UserError(f"`columns` must be labels of the handler ({known}), found {brief(name)}")
            days = df[column].groupby(level="datetime")
            if self.method == "rank":
                ranks = _percentile_ranks(df[column].to_numpy(), days.ngroup().fillna(-1).to_numpy(np.int64))
                df[column] = (ranks - 0.5) * RANK_TO_UNIT
            else:
                df[column] = (df[column] - days.transform("mean")) / days.transform("std")
        return df

    def is_for_infer(self) -> bool:
        """Labels only: there is nothing to normalise at inference."""
        return False


def _percentile_ranks(values: np.ndarray, days: np.ndarray) -> np.ndarray:
    """What `groupby(...).rank(pct=True)` of pandas gives, in a quarter of its time.

    Parameters
    ----------
    values
        `[rows]`, NaN where missing.
    days
        `[rows]` int: the number of each row's day, below 0 where it has none.
    """
    by_day = np.argsort(days, kind="stable")
    bounds = np.flatnonzero(np.diff(days[by_day], prepend=-1, append=-1))
    ranks = np.full(len(values), np.nan)
    for first, stop in itertools.pairwise(bounds):
        rows = by_day[first:stop]
        rows = rows[~np.isnan(values[rows])]
        order = np.argsort(values[rows])
        ascending = values[rows[order]]
        new = np.ones(len(rows), dtype=bool)
        np.not_equal(ascending[1:], ascending[:-1], out=new[1:])
        ties = np.flatnonzero(new)  # the first of each run of equal values
        lengths = np.diff(ties, append=len(rows))
        ranks[rows[order]] = np.repeat(ties + (lengths + 1) / 2, lengths) / len(rows)
    return ranks
