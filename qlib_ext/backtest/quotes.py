"""What the exchange knows of a stock on a day: read for all stocks at once, and looked up in its place."""

from __future__ import annotations

import bisect
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from qlib.backtest.high_performance_ds import BaseQuote, NumpyQuote
from qlib.data import D

from qlib_ext.checks import UserError
from qlib_ext.features.engine.evaluation import Program, evaluator
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.market.store import QlibStore

DAY = pd.Timedelta(days=1).value


def read_quotes(
    store: QlibStore, codes: Sequence[str], fields: Sequence[str], first: Any, last: Any
) -> pd.DataFrame:
    """The table of Qlib's `D.features`, bit for bit.

    Fields, and arithmetic of fields of some days ago, are computed for all stocks at once. Qlib is asked where there is
    another expression, or a stock whose files do not begin and end on the same days.

    Parameters
    ----------
    store
        The one that Qlib reads.
    codes
        Stocks; those without bars have no rows.
    fields
        Expressions, which are the names of the columns too.
    first, last
        Days.

    Returns
    -------
    DataFrame
        float32, indexed by `instrument` and `datetime`: the days from a stock's first to its last, with and without values.
    """
    known = {*store.instruments()}
    stocks = [code for code in sorted({*codes}) if code.upper() in known]
    market = _market(store, stocks, fields)
    if market is None:
        table = D.features(list(codes), list(fields), first, last, freq="day", disk_cache=True)
        return table.set_axis([*fields], axis=1)
    days = slice(*market.calendar.slice_locs(pd.Timestamp(first), pd.Timestamp(last)))
    rows = market.listed[days].T
    index = pd.MultiIndex(
        levels=[stocks, market.calendar[days]], codes=np.nonzero(rows), names=["instrument", "datetime"]
    )
    return pd.DataFrame({text: evaluator(text, market)(days).T[rows] for text in fields}, index=index)


def _market(store: QlibStore, stocks: Sequence[str], fields: Sequence[str]) -> MarketPanel | None:
    """The bars that expressions read; None where only Qlib knows what they come to."""
    try:
        programs = [Program([text]) for text in fields]
    except UserError:  # an operator of the user's own
        return None
    names = sorted({name for program in programs for name in program.fields})
    compound = {name for program in programs if len(program.nodes) > 1 for name in program.fields}
    spans = store.spans(names, stocks)
    there = spans[..., 1] > 0
    begin, stop = np.where(there, spans[..., 0], len(store.calendar)).min(axis=0), spans[..., 1].max(axis=0)
    uneven = (spans != np.stack([begin, stop], axis=-1)).any(axis=-1)
    asked = there | np.isin(names, [*compound])[:, None]
    if not all(program.plain for program in programs) or (uneven & asked & there.any(axis=0)).any():
        return None
    day = np.arange(len(store.calendar))[:, None]
    listed = (begin <= day) & (day < stop)
    market = MarketPanel(
        tuple(names), store.calendar, tuple(stocks), store.read(names, stocks), listed, missing_fields=()
    )
    market.__dict__["listed"] = listed  # by the files: Qlib has rows without a value too
    return market


class DailyQuote(BaseQuote):
    """Qlib's quotes, of which one bar is read from its place in a table.

    A step of a backtest by day is one bar. Qlib looks for it in an index, converts types and slices for it, or remembers
    the last 512 answers, fewer than it asks for on one day of a large account. What is asked of several bars is Qlib's
    own answer.

    Parameters
    ----------
    quote_df
        Indexed by `instrument` and `datetime`, sorted by both.
    freq, region
        As Qlib's `NumpyQuote` takes them.
    """

    def __init__(self, quote_df: pd.DataFrame, freq: str, region: str = "cn") -> None:
        super().__init__(quote_df, freq)
        self.table, self.freq, self.region = quote_df, freq, region
        self.columns = {name: quote_df[name].to_numpy(np.float64) for name in quote_df}
        numbers, codes = pd.factorize(quote_df.index.get_level_values("instrument"))
        moments = quote_df.index.get_level_values("datetime").as_unit("ns").asi8
        ends = np.searchsorted(numbers, range(len(codes) + 1)).tolist()
        self.places = {
            code: (ends[k], moments[ends[k] : ends[k + 1]].tolist()) for k, code in enumerate(codes)
        }

    def get_all_stock(self) -> Any:
        """Codes of the stocks."""
        return self.places.keys()

    def get_data(
        self, stock_id: str, start_time: Any, end_time: Any, field: str, method: str | None = None
    ) -> Any:
        """What Qlib says of a field in a step."""
        if stock_id not in self.places:
            return None
        (begin, days), first, last = self.places[stock_id], start_time.value, end_time.value
        row = bisect.bisect_left(days, first)
        after = bisect.bisect_right(days, last, lo=row)
        if after == row:
            return None
        if after > row + 1 or days[row] != first:
            return self._several.get_data(stock_id, start_time, end_time, field, method)
        value = self.columns[field][begin + row]
        if last - first < DAY:
            return value
        # From here on as Qlib puts bars together in a step that is longer, as a Friday's is.
        if method == "all":
            return bool(value)
        return {"ts_data_last": None, "sum": 0.0}.get(method or "", value) if np.isnan(value) else value

    @functools.cached_property
    def _several(self) -> NumpyQuote:
        return NumpyQuote(self.table, self.freq, self.region)
