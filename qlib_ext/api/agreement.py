"""How scores agree with returns: the metrics of the report, of tables as a notebook has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError
from qlib_ext.metrics import cross_section
from qlib_ext.metrics.precision import precision_at as precision_of_matrices

DAY, STOCK = "datetime", "instrument"
Table: TypeAlias = pd.Series | pd.DataFrame


def ic(scores: Table, labels: Table) -> pd.Series:
    """Pearson correlation of scores and labels across the stocks of each day.

    Parameters
    ----------
    scores, labels
        Indexed (datetime, instrument), in either order, or a day a row and a stock a column. Of a table with several columns
        the first counts, such as `score` and `RETURN`. A stock counts on a day when both are there.

    Returns
    -------
    A value a day that both have, NaN on a day with fewer than two stocks or where all are equal.

    Raises
    ------
    UserError
        If a table has no days and stocks, or one twice, or the two share no day.

    Examples
    --------
    >>> days = pd.MultiIndex.from_product([pd.to_datetime(["2020-01-02"]), ["A", "B", "C"]], names=["datetime", "instrument"])
    >>> ic(pd.Series([1.0, 2.0, 3.0], days), pd.Series([0.01, 0.02, 0.03], days)).round(6).tolist()
    [1.0]
    """
    return _daily(scores, labels, cross_section.pearson, "IC")


def rank_ic(scores: Table, labels: Table) -> pd.Series:
    """Rank correlation of scores and labels across the stocks of each day; see `ic`.

    Examples
    --------
    >>> days = pd.MultiIndex.from_product([pd.to_datetime(["2020-01-02"]), ["A", "B", "C"]], names=["datetime", "instrument"])
    >>> rank_ic(pd.Series([1.0, 2.0, 3.0], days), pd.Series([0.3, 0.2, 0.1], days)).round(6).tolist()
    [-1.0]
    """
    return _daily(scores, labels, cross_section.spearman, "RankIC")


def precision_at(scores: Table, labels: Table, n: int) -> pd.Series:
    """Share of the n highest scored stocks of each day whose label is above 0; tables as `ic` takes them.

    Examples
    --------
    >>> days = pd.MultiIndex.from_product([pd.to_datetime(["2020-01-02"]), ["A", "B", "C"]], names=["datetime", "instrument"])
    >>> precision_at(pd.Series([1.0, 2.0, 3.0], days), pd.Series([0.3, -0.2, 0.1], days), 2).tolist()
    [0.5]
    """
    return _daily(scores, labels, lambda x, y: precision_of_matrices(x, y, n), f"Precision@{n}")


def ic_summary(scores: Table, labels: Table, *, span_days: int = 1) -> pd.Series:
    """IC and RankIC over all days: mean, ICIR (mean over deviation), and statistic t after Newey and West.

    Parameters
    ----------
    scores, labels
        As `ic` takes them.
    span_days
        Days of return that a label holds: neighbouring days then share all but one.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> table = pd.DataFrame(rng.normal(size=(4, 9)), pd.date_range("2020-01-06", periods=4))
    >>> ic_summary(table, table + rng.normal(size=(4, 9))).index.tolist()
    ['IC', 'ICIR', 'IC, t', 'RankIC', 'RankICIR', 'RankIC, t', 'days']
    """
    found: dict[str, float] = {}
    for name, daily in (("IC", ic(scores, labels)), ("RankIC", rank_ic(scores, labels))):
        values = daily.to_numpy()
        found[name] = float(np.nanmean(values)) if daily.notna().any() else np.nan
        found[f"{name}IR"] = cross_section.icir(values)
        found[f"{name}, t"] = cross_section.newey_west_t(values, span_days=span_days)
        found["days"] = float(daily.notna().sum())
    return pd.Series({**{key: value for key, value in found.items() if key != "days"}, "days": found["days"]})


def as_scores(table: Table, *, name: str) -> pd.Series:
    """The first column of a table, or all of a wide one, indexed (datetime, instrument) and sorted.

    Raises
    ------
    UserError
        If it has no days and stocks, or one twice.
    """
    if not isinstance(table, (pd.Series, pd.DataFrame)):
        raise UserError(f"`{name}` must be a Series or a DataFrame, found {type(table).__name__}")
    index = table.index
    if isinstance(table, pd.DataFrame) and isinstance(index, pd.DatetimeIndex):
        found = table.rename_axis(index=DAY, columns=STOCK).stack()
    elif isinstance(index, pd.MultiIndex) and set(index.names) == {DAY, STOCK}:
        found = table.iloc[:, 0] if isinstance(table, pd.DataFrame) else table
        found = found.reorder_levels([DAY, STOCK])
    else:
        raise UserError(
            f"`{name}` must be indexed ({DAY}, {STOCK}), or a day a row and a stock a column, found an index of "
            f"{', '.join(map(str, index.names))}: name its levels so, table.rename_axis(['{DAY}', '{STOCK}'])"
        )
    twice = found.index[found.index.duplicated()]
    if len(twice):
        raise UserError(f"`{name}` must have one row for each day and stock, found {twice[0]} more than once")
    return found.sort_index()


def _daily(
    scores: Table, labels: Table, measure: Callable[[np.ndarray, np.ndarray], np.ndarray], name: str
) -> pd.Series:
    a, b = (as_scores(x, name=each).unstack(STOCK) for each, x in (("scores", scores), ("labels", labels)))
    a, b = a.align(b, join="inner", axis=0)
    a, b = a.align(b, join="inner", axis=1)
    if a.empty:
        raise UserError("`scores` and `labels` must share days and stocks, found none that both have")
    return pd.Series(measure(a.to_numpy(float), b.to_numpy(float)), a.index, name=name)
