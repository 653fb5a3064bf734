"""The rows of a table of side data: days, periods, codes and numbers, read from whatever a file has them as."""

from __future__ import annotations

import datetime as dt
import re

import numpy as np
import pandas as pd

from qlib_ext.market.finding import Finding
from qlib_ext.market.side_data.faults import fault

# What a blank number looks like in a CSV file. Codes are never blank: `NA` and `NAN` are codes.
BLANK = ("", "NA", "N/A", "NaN", "nan", "null", "None")
# Years that a Timestamp cannot hold; vendors write 9999-12-31 for "still in force".
FAR = pd.Timestamp("2261-12-31")
FIRST_YEAR = 1678


class Rows:
    """The rows of a table: columns turned into types, faults collected."""

    def __init__(self, frame: pd.DataFrame, where: str):
        self.frame = frame
        self.where = where
        self.found: list[Finding] = []
        self._codes: pd.Series | None = None
        self._days: pd.Series | None = None

    def label(self, codes: pd.Series, days: pd.Series) -> None:
        """What a row is called in the findings that follow."""
        self._codes, self._days = codes, days

    def report(self, wrong: np.ndarray, kind: str, message: str) -> None:
        """One finding for the rows `wrong` (bool), told by the first of them."""
        count = int(np.count_nonzero(wrong))
        if not count:
            return
        row = int(np.argmax(wrong))
        code = None if self._codes is None else str(self._codes.iloc[row])
        day = None if self._days is None else f"{self._days.iloc[row]:%Y-%m-%d}"
        what = f"row {row + 1}" + ("" if code is None else f" ({code}, {day})")
        rest = f" ({count} rows are like it)" if count > 1 else ""
        self.found.append(
            fault(kind, f"{self.where}: {what} {message}{rest}", instrument=code, date=day, count=count)
        )

    def texts(self, name: str, upper: bool = False) -> pd.Series:
        """A column of names or codes as categories in the order of the alphabet; a blank is a fault."""
        codes, uniques = pd.factorize(self.frame[name])
        words = [str(word).strip() for word in uniques]
        categories, back = np.unique(
            np.array([word.upper() if upper else word for word in words], dtype=object), return_inverse=True
        )
        codes = np.append(back, -1)[codes]  # code -1, a missing value, is the last
        blank = codes == -1
        if len(categories) and categories[0] == "":
            blank |= codes == 0
        self.report(blank, "side-missing-value", f"has no `{name}`")
        return pd.Series(pd.Categorical.from_codes(codes, categories=categories))

    def days(self, name: str, open_ended: bool = False) -> pd.Series:
        """A column of days as Timestamps; a blank is NaT where the column may be open, and a fault elsewhere."""
        column = self.frame[name]
        if getattr(column.dtype, "tz", None) is not None:
            everyone = np.ones(len(column), dtype=bool)
            self.report(
                everyone, "side-bad-date", f"has a time zone in `{name}`; write the exchange's local day"
            )
            return pd.Series(pd.NaT, index=column.index)
        codes, uniques = pd.factorize(column)
        empty = np.array([isinstance(word, str) and not word.strip() for word in uniques], dtype=bool)
        parsed = [
            pd.NaT if is_empty else parse_day(word) for is_empty, word in zip(empty, uniques, strict=True)
        ]
        days = pd.DatetimeIndex([*parsed, pd.NaT])[codes]  # code -1, a missing value, is the last
        blank = np.append(empty, True)[codes]
        wrong = np.asarray(days.isna()) & ~blank
        if wrong.any():
            found = column.iloc[int(np.argmax(wrong))]
            times = "; `qlib-ext data side-data` reads times of day" if ":" in str(found) else ""
            self.report(
                wrong,
                "side-bad-date",
                f"must have a day such as 2010-01-04 as `{name}`, found {found!s}{times}",
            )
        if not open_ended:
            self.report(blank, "side-missing-value", f"has no `{name}`")
        return pd.Series(days)

    def numbers(self, name: str) -> np.ndarray:
        """A column of numbers as float64, NaN for blanks."""
        column = self.frame[name]
        if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
            numbers = column.to_numpy(dtype=float, na_value=np.nan)
            blank = np.isnan(numbers)
        else:
            text = column.astype(object)
            blank = (text.isna() | text.isin(BLANK)).to_numpy()
            numbers = pd.to_numeric(text.where(~blank), errors="coerce").to_numpy(dtype=float)
        wrong = ~np.isfinite(numbers) & ~blank
        if wrong.any():
            found = column.iloc[int(np.argmax(wrong))]
            self.report(wrong, "side-bad-number", f"must have a finite number as `{name}`, found {found!s}")
        return numbers

    def periods(self, name: str) -> pd.DataFrame:
        """A column of reference periods, as `parse_periods` reads them."""
        periods = parse_periods(self.frame[name])
        wrong = periods["frequency"].isna().to_numpy()
        if wrong.any():
            found = self.frame[name].iloc[int(np.argmax(wrong))]
            self.report(
                wrong,
                "side-bad-period",
                f"must have a period such as 1998, 1998Q1, 1998-01 or 1998-01-31 as `{name}`, found {found!s}",
            )
        return periods


def parse_periods(column: pd.Series) -> pd.DataFrame:
    """Read reference periods.

    Parameters
    ----------
    column
        Texts such as 1998, 1998Q1, 1998-01 or 1998-01-31, or days.

    Returns
    -------
    DataFrame
        A row for each of `column`: `text` in the forms above, `frequency` (Y, Q, M or D), `ordinal` (grows by 1 from
        a period to the next), `start` and `end` (first and last day). All but `ordinal` are missing where there is no
        period to read.
    """
    codes, uniques = pd.factorize(column)
    periods = [_period(word) for word in uniques]
    records = [
        (None, None, -1, pd.NaT, pd.NaT)
        if period is None
        else (
            str(period),
            period.freqstr[0],
            period.ordinal,
            period.start_time.normalize(),
            period.end_time.normalize(),
        )
        for period in [*periods, None]  # code -1, a missing value, is the last
    ]
    table = pd.DataFrame(records, columns=["text", "frequency", "ordinal", "start", "end"])
    table = table.astype({"start": "M8[ns]", "end": "M8[ns]"})
    return table.iloc[codes].set_axis(column.index)


_PERIOD = re.compile(r"(\d{4})(?:-?[Qq]([1-4])|(?:-|[Mm])(0?[1-9]|1[0-2]))?")


def _period(word: object) -> pd.Period | None:
    match = _PERIOD.fullmatch(str(word).strip())
    if match:
        year, quarter, month = match.groups()
        if not FIRST_YEAR <= int(year) <= FAR.year:
            return None
        if quarter:
            return pd.Period(f"{year}Q{quarter}", freq="Q")
        return pd.Period(f"{year}-{int(month):02d}", freq="M") if month else pd.Period(year, freq="Y")
    day = parse_day(word)
    return None if pd.isna(day) else pd.Period(day, freq="D")


_DAY = re.compile(r"(\d{4})(?:([-/.])(\d{1,2})\2(\d{1,2})|(\d{2})(\d{2}))(?:[T ]00:00(?::00(?:\.0+)?)?)?")


def parse_day(word: object) -> pd.Timestamp:
    """The day that a text such as 2010-01-04, a number such as 20100104 or a date names; NaT where it names none.

    The year comes first; a time other than midnight, or a time zone, is no day. Years that a Timestamp cannot hold,
    such as that of 9999-12-31, give the last day that this package uses.
    """
    if isinstance(word, dt.date) and not isinstance(word, dt.datetime):
        word = word.isoformat()
    if isinstance(word, (dt.datetime, np.datetime64)):
        day = pd.Timestamp(word)
        if day.tz is not None or day != day.normalize() or day.year < FIRST_YEAR:
            return pd.NaT
        return FAR if day.year > FAR.year else day.as_unit("ns")
    if not isinstance(word, (str, int, float, np.number)):
        return pd.NaT
    whole = isinstance(word, (float, np.floating)) and word % 1 == 0
    match = _DAY.fullmatch(f"{word:.0f}" if whole else str(word).strip())
    if match is None:
        return pd.NaT
    year, _, month, day_of_month, two, digits = match.groups()
    if int(year) > FAR.year:
        return FAR
    if int(year) < FIRST_YEAR:
        return pd.NaT
    try:
        return pd.Timestamp(int(year), int(month or two), int(day_of_month or digits))
    except ValueError:
        return pd.NaT
