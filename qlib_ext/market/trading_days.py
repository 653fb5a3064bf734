"""From the dates and timestamps of a source to trading days."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

_DATE = r"\s*\d{4}[-/.]\d{1,2}[-/.]\d{1,2}"  # a month or a year alone is no day
_OFFSET = r":\d{2}(?:\.\d+)?\s*(?:Z|z|UTC|[+-]\d{2}(?::?\d{2})?)\s*$|T\d{2,6}Z\s*$"
_NUMBER = r"\s*-?\d+(?:\.0*)?\s*"
# Seconds have ten digits from 2001 to 2286; milli-, micro- and nanoseconds have three more each.
_EPOCHS = ((1e11, "s"), (1e14, "ms"), (1e17, "us"), (np.inf, "ns"))
_EPOCH_BEGINS = (
    1e8  # seconds: March 1973; a smaller number is rather a count of days, as spreadsheets have it
)
_NAT = np.datetime64("NaT", "D")


class Days(NamedTuple):
    """Trading days of a column.

    Attributes
    ----------
    days : datetime64[D]
        NaT where a value cannot be read.
    taken : str
        What the values were, for a note where it could be otherwise: `midnight UTC`, `local time` or nothing.
    """

    days: np.ndarray
    taken: str = ""


def trading_days(
    values: pd.Series, timezone: str, *, date_format: str | None = None, keep_utc_dates: bool = True
) -> Days:
    """Read the days of a column of dates, timestamps or epochs.

    ======================================  =============================================================
    value                                   day
    ======================================  =============================================================
    2000-01-03, 2000/1/3, 20000103          as it stands
    with a time and an offset, or an epoch  the date in `timezone` at that moment
    with a time, no offset                  its date: the time is taken as local
    ======================================  =============================================================

    Epochs are numbers of at least nine digits: seconds, milli-, micro- or nanoseconds by their size.

    Parameters
    ----------
    values
        Texts, numbers, dates or timestamps.
    timezone
        Of the exchange, such as America/New_York.
    date_format
        As `strptime` takes it, for texts in another form.
    keep_utc_dates
        If every moment of the column is midnight UTC, it is a date that was stamped so, and is taken as it stands:
        converted, all of it would lie a day early west of Greenwich.
    """
    missing = values.isna().to_numpy()
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        return _from_moments(values, timezone, keep_utc_dates)
    if values.dtype.kind == "M":
        return _from_local(values)
    if values.dtype.kind in "iuf" and date_format is None:
        return _from_numbers(values.to_numpy(dtype=np.float64, na_value=np.nan), timezone, keep_utc_dates)
    # The same few thousand texts come again for every instrument: each is read once.
    positions, texts = pd.factorize(values.astype(str).to_numpy(dtype=object))
    unique = _from_texts(pd.Series(texts, dtype=object), timezone, date_format, keep_utc_dates)
    days = unique.days[positions]
    days[missing] = _NAT
    return Days(days, unique.taken)


def _from_texts(texts: pd.Series, timezone: str, date_format: str | None, keep_utc_dates: bool) -> Days:
    if date_format is not None:
        if "%z" in date_format:
            moments = pd.to_datetime(texts, format=date_format, utc=True, errors="coerce")
            return _from_moments(moments, timezone, keep_utc_dates)
        return _from_local(pd.to_datetime(texts, format=date_format, errors="coerce"))
    if texts.str.fullmatch(_NUMBER).any():
        numbers = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64)
        return _from_numbers(numbers, timezone, keep_utc_dates)
    texts = texts.where(texts.str.match(_DATE))
    aware = texts.str.contains(_OFFSET, na=False)
    moments = pd.to_datetime(texts.where(aware), format="ISO8601", utc=True, errors="coerce")
    local = pd.to_datetime(texts.where(~aware), format="ISO8601", errors="coerce")
    return _joined(_from_moments(moments, timezone, keep_utc_dates), _from_local(local))


def _from_numbers(numbers: np.ndarray, timezone: str, keep_utc_dates: bool) -> Days:
    size = np.abs(numbers)
    written = (size >= 1e7) & (size < _EPOCH_BEGINS)  # YYYYMMDD
    texts = pd.Series(np.where(written, numbers, 0).astype(np.int64)).astype(str)
    dates = pd.to_datetime(texts, format="%Y%m%d", errors="coerce")
    moments = np.full(len(numbers), np.datetime64("NaT", "ns"))
    low = _EPOCH_BEGINS
    for high, unit in _EPOCHS:
        part = (size >= low) & (size < high)
        moments[part] = pd.to_datetime(numbers[part], unit=unit, errors="coerce").to_numpy()
        low = high
    aware = pd.Series(moments).dt.tz_localize("UTC")
    return _joined(_from_moments(aware, timezone, keep_utc_dates), _from_local(dates))


def _joined(moments: Days, local: Days) -> Days:
    days = np.where(np.isnat(moments.days), local.days, moments.days)
    return Days(days, moments.taken or local.taken)


def _from_moments(moments: pd.Series, timezone: str, keep_utc_dates: bool) -> Days:
    utc = moments.dt.tz_convert("UTC").dt.tz_localize(None)
    local = moments.dt.tz_convert(timezone).dt.tz_localize(None)
    days = _from_local(local).days
    if keep_utc_dates:
        read = utc.dropna()
        dates = _from_local(utc).days
        if (read == read.dt.normalize()).all() and (dates[utc.notna()] != days[utc.notna()]).any():
            return Days(dates, "midnight UTC")
    return Days(days)


def _from_local(times: pd.Series) -> Days:
    days = times.to_numpy(dtype="datetime64[ns]").astype("datetime64[D]")
    read = times.dropna()
    return Days(days, "" if (read == read.dt.normalize()).all() else "local time")
