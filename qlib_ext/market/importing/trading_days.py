"""From the dates and timestamps of a source to trading days."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

_DATE = r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}"  # a month or a year alone is no day
_OFFSET = r":\d{2}(?:\.\d+)?\s*(?:Z|z|UTC|[+-]\d{2}(?::?\d{2})?)$|T\d{2,6}Z$"
_NUMBER = r"-?\d+(?:\.\d*)?"
# Seconds have ten digits from 2001 to 2286; milli-, micro- and nanoseconds have three more each.
_EPOCHS = ((1e11, "s"), (1e14, "ms"), (1e17, "us"), (np.inf, "ns"))
_EPOCH_BEGINS = (
    1e8  # seconds: March 1973; a smaller number is rather a count of days, as spreadsheets have it
)


class Days(NamedTuple):
    """Trading days of a column.

    Attributes
    ----------
    days : datetime64[D]
        NaT where a value cannot be read.
    taken : str
        How the values were taken, where it could be otherwise: `midnight UTC`, `local time` or nothing.
    """

    days: np.ndarray
    taken: str = ""


class _Stamps(NamedTuple):
    """What single values say."""

    utc: np.ndarray  # datetime64[D], the date in UTC of a moment
    local: np.ndarray  # datetime64[D], the date in the time zone; NaT where a value cannot be read
    moment: np.ndarray  # bool, whether the value names a moment
    at_midnight: np.ndarray  # bool: a moment at midnight UTC, or a date without a time


class DayReader:
    """Read the days of columns of dates, timestamps or epochs.

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
    timezone
        Of the exchange, such as America/New_York.
    date_format
        As `strptime` takes it, for texts in another form.
    keep_utc_dates
        If every moment of a column is midnight UTC, it is a date that was stamped so, and is taken as it stands:
        converted, all of it would lie a day early west of Greenwich.
    """

    def __init__(self, timezone: str, *, date_format: str | None = None, keep_utc_dates: bool = True):
        self.timezone = timezone
        self.date_format = date_format
        self.keep_utc_dates = keep_utc_dates
        # The same few thousand texts come again in every file; reading them is most of the work.
        self._position: dict[str, int] = {}
        self._known = self._times(pd.Series([], dtype="datetime64[ns]"))

    def read(self, values: pd.Series) -> Days:
        """Days of a column of texts, numbers, dates or timestamps."""
        stamps = self._stamps(values)
        moment = stamps.moment
        if (
            self.keep_utc_dates
            and stamps.at_midnight[moment].all()
            and (stamps.utc[moment] != stamps.local[moment]).any()
        ):
            return Days(np.where(moment, stamps.utc, stamps.local), "midnight UTC")
        timed = ~stamps.at_midnight & ~moment & ~np.isnat(stamps.local)
        return Days(stamps.local, "local time" if timed.any() else "")

    def _stamps(self, values: pd.Series) -> _Stamps:
        if isinstance(values.dtype, pd.DatetimeTZDtype):
            return self._moments(values)
        if values.dtype.kind == "M":
            return self._times(values)
        if values.dtype.kind in "iuf" and self.date_format is None:
            return self._numbers(values.to_numpy(dtype=np.float64, na_value=np.nan))
        column, texts = pd.factorize(values.where(values.notna(), "").astype(str).to_numpy(dtype=object))
        new = [text for text in texts if text not in self._position]
        if new:
            read = self._texts(pd.Series(new, dtype=object))
            self._position.update(
                zip(new, range(len(self._known.utc), len(self._known.utc) + len(new)), strict=True)
            )
            self._known = _Stamps(*(np.concatenate(pair) for pair in zip(self._known, read, strict=True)))
        at = np.array([self._position[text] for text in texts], dtype=np.int64)[column]
        return _Stamps(*(part[at] for part in self._known))

    def _texts(self, texts: pd.Series) -> _Stamps:
        texts = texts.str.strip()
        if self.date_format is not None:
            aware = "%z" in self.date_format
            read = pd.to_datetime(texts, format=self.date_format, utc=aware, errors="coerce")
            return self._moments(read) if aware else self._times(read)
        number = texts.str.fullmatch(_NUMBER)
        dated = texts.str.match(_DATE)
        aware = dated & texts.str.contains(_OFFSET)
        stamps = self._numbers(pd.to_numeric(texts.where(number), errors="coerce").to_numpy(dtype=np.float64))
        moments = pd.to_datetime(texts.where(aware), format="ISO8601", utc=True, errors="coerce")
        stamps = _joined(stamps, self._moments(moments))
        times = pd.to_datetime(texts.where(dated & ~aware), format="ISO8601", errors="coerce")
        return _joined(stamps, self._times(times))

    def _numbers(self, numbers: np.ndarray) -> _Stamps:
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
        return _joined(self._moments(pd.Series(moments).dt.tz_localize("UTC")), self._times(dates))

    def _moments(self, moments: pd.Series) -> _Stamps:
        utc = moments.dt.tz_convert("UTC").dt.tz_localize(None)
        local = moments.dt.tz_convert(self.timezone).dt.tz_localize(None)
        midnight = (utc == utc.dt.normalize()).to_numpy()
        return _Stamps(_dates(utc), _dates(local), moments.notna().to_numpy(), midnight)

    def _times(self, times: pd.Series) -> _Stamps:
        midnight = (times == times.dt.normalize()).to_numpy()
        return _Stamps(_dates(times), _dates(times), np.zeros(len(times), dtype=bool), midnight)


def _joined(first: _Stamps, second: _Stamps) -> _Stamps:
    """Of each value what could be read of it."""
    use = np.isnat(first.local)
    return _Stamps(*(np.where(use, other, one) for one, other in zip(first, second, strict=True)))


def _dates(times: pd.Series) -> np.ndarray:
    return times.to_numpy(dtype="datetime64[ns]").astype("datetime64[D]")
