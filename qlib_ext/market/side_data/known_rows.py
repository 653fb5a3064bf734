"""The day at whose close each row of a user's table was known, and one row for each stock and day.

A time of day after the close counts for the next day. Of the rows that became known for the same close, the newest
counts, or their mean; of reports, that of the latest period, as last restated.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError
from qlib_ext.market.codes import is_index, region
from qlib_ext.market.exchange_days import EXCHANGES, day_of_knowing, exchange_timezone
from qlib_ext.market.side_data.rows import Rows, parse_day
from qlib_ext.market.side_data.side_data import SideDataError
from qlib_ext.market.store import QlibStore, read_mapping

SEVERAL = ("newest", "mean")
_TIMED = re.compile(r"\d{4}[-/.]?\d\d[-/.]?\d\d[T ]\d\d:?\d\d.*")
_OFFSET = re.compile(r".*[T ].*(Z|UTC|[+-]\d\d(:?\d\d)?)")  # after the time, not within the day


def exchange_of(store: QlibStore) -> str | None:
    """The exchange whose close counts: that of the import, else that which the codes look like; None for another."""
    settings = read_mapping(store.root / "import.json").get("settings")
    if isinstance(settings, dict):
        named = settings.get("exchange") or EXCHANGES.get(str(settings.get("region")))
        if named:
            return str(named)
    return EXCHANGES.get(region([code for code in store.instruments() if not is_index(code)]) or "")


def known_days(column: pd.Series, exchange: str | None, where: str) -> tuple[pd.Series, pd.Series]:
    """Days at whose close the rows of a column of days or time stamps were known, and the moments themselves.

    Both are NaT where nothing can be read.

    Raises
    ------
    UserError
        If there are times of day and no exchange whose close they could be held against.
    """
    moments = _moments(column, exchange, where)
    if (moments.dropna() == moments.dropna().dt.normalize()).all():
        return moments, moments
    _require(exchange, where)
    return pd.Series(day_of_knowing(pd.DatetimeIndex(moments), str(exchange)), moments.index), moments


def one_row_a_day(
    frame: pd.DataFrame,
    fields: Sequence[str],
    exchange: str | None,
    several: str,
    after_close: bool,
    where: str,
) -> tuple[pd.DataFrame, list[str]]:
    """Rows by the day on which they were known.

    Parameters
    ----------
    frame
        `datetime`, whatever says when a row was known; `instrument`, where it is of a stock; `period`, where it is of a
        report; and `fields`.
    several
        What counts of the rows that were known for the same close: the `newest`, or the `mean`.
    after_close
        Whether days without a time are those on which a row came out after the close.
    where
        What messages call the table.

    Returns
    -------
    frame, notes
        `datetime`, `instrument` and `fields`, and what was done.

    Raises
    ------
    SideDataError
        If a period or a number cannot be read, a row was known before its period ended, or two rows of one moment say
        different things.
    """
    keys = [key for key in ("instrument", "datetime") if key in frame]
    day, moment = known_days(frame["datetime"], exchange, where)
    timed = moment != moment.dt.normalize()
    if day.isna().any() or not (timed.any() or after_close or several == "mean" or "period" in frame):
        return frame[[*keys, *fields]], []  # whose days are told of by the checks of every table
    notes = []
    late = (day > moment).sum()
    if late:
        notes.append(f"{late} of {len(frame)} rows came after the close of {exchange}: known on the next day")
    if after_close:
        day = day + pd.to_timedelta((~timed).astype(int), unit="D")
    rows = Rows(frame, where)
    table = frame[keys].assign(datetime=day, **{field: rows.numbers(field) for field in fields})
    table["moment"], table["period"] = moment, pd.Timestamp.min
    if "period" in frame:
        table["period"] = rows.periods("period")["end"]
        rows.label(frame.get("instrument", table["period"].astype(str)), day)
        early = (table["period"] > day).to_numpy()
        rows.report(
            early, "side-released-early", "is known before its period ends; give the day of announcement"
        )
    if several == "newest":
        repeated = table.duplicated([*keys, "moment", "period"]).to_numpy()
        rows.report(
            repeated,
            "side-doubled-row",
            "repeats a stock and moment; keep one row for each, or take `--several mean`",
        )
    if rows.found:
        raise SideDataError(f"{rows.found[0].message}. Nothing was written")
    table = table.sort_values([*keys, "period", "moment"], kind="stable", ignore_index=True)
    if "period" in frame:
        older = _of_older_periods(table, fields)
        if older:
            notes.append(
                f"{older} figures are of an earlier period than one that was known by then: left out"
            )
    days = table.groupby(keys, observed=True, sort=False)[list(fields)]
    done = (days.mean() if several == "mean" else days.last()).reset_index()
    if len(done) < len(table):
        what = "the mean" if several == "mean" else "the newest"
        notes.append(f"{len(table) - len(done)} rows were known on the same day as another: {what} counts")
    return done[[*keys, *fields]], notes


def _of_older_periods(table: pd.DataFrame, fields: Sequence[str]) -> int:
    """Take out figures of a period before one that was known by the same close; how many there were."""
    stocks = table["instrument"] if "instrument" in table else pd.Series(0, table.index)
    ends = table["period"].to_numpy().astype("M8[D]").astype(np.int64)
    count = 0
    for field in fields:
        there = table[field].notna()
        told = pd.Series(ends, table.index).where(there)
        at_once = told.groupby([stocks, table["datetime"]], observed=True).transform("max")
        newest = at_once.groupby(stocks, observed=True).cummax()
        older = there & (ends < newest)
        table.loc[older, field] = np.nan
        count += int(older.sum())
    return count


def _moments(column: pd.Series, exchange: str | None, where: str) -> pd.Series:
    """Local time stamps of a column, at midnight where it says the day alone; NaT where nothing can be read."""
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return _local(column, exchange, where)
    if column.dtype.kind == "M":
        return column.astype("M8[ns]")
    codes, uniques = pd.factorize(column)
    found = pd.Series([parse_day(word) for word in uniques], dtype="M8[ns]")
    texts = pd.Series([str(word).strip() for word in uniques], dtype=object)
    timed = found.isna() & texts.map(lambda text: _TIMED.fullmatch(text) is not None).astype(bool)
    aware = timed & texts.map(lambda text: _OFFSET.fullmatch(text) is not None).astype(bool)
    found[timed & ~aware] = pd.to_datetime(texts[timed & ~aware], format="ISO8601", errors="coerce")
    if aware.any():
        moments = pd.to_datetime(texts[aware], format="ISO8601", errors="coerce", utc=True)
        found[aware] = _local(moments, exchange, where)
    taken = pd.DatetimeIndex([*found, pd.NaT])[codes]  # code -1, a missing value, is the last
    return pd.Series(taken, column.index)


def _local(moments: pd.Series, exchange: str | None, where: str) -> pd.Series:
    zone = exchange_timezone(_require(exchange, where))
    return moments.dt.tz_convert(zone).dt.tz_localize(None).astype("M8[ns]")


def _require(exchange: str | None, where: str) -> str:
    if exchange is None:
        raise UserError(
            f"{where} has times of day, and the codes of the store do not tell which exchange's close they come before: "
            "say it, such as `--exchange XSHG`"
        )
    return exchange
