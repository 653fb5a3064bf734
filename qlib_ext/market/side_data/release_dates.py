"""Release dates of the figures of a series that come without: made from a lag that the user states.

What would look ahead is refused: a figure without a release date or a stated lag.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError, brief, nearest, one_of
from qlib_ext.market.finding import listed
from qlib_ext.market.side_data.rows import parse_periods
from qlib_ext.market.side_data.table import LAG

FREQUENCIES = {"day": "D", "month": "M", "quarter": "Q", "year": "Y"}
# What stands in for release dates by the kind of a series, where nothing better is known. Each is later than most
# figures are published: in the United States GDP comes out about a month after its quarter and again after two, the
# consumer prices and the labour market of a month within the first half of the next.
LAGS = {
    "quarterly": "end+60d",  # 60 days after the period's end
    "monthly": "month+45d",  # 45 days after the first day of the period's last month
    "rate": "end+1b",  # the next business day, Monday to Friday
}
_LAG = re.compile(r"(?:(end|month|start)\+)?(\d{1,4})([db])")
EVERY = ""  # the key of a lag or frequency that holds for all series that have none of their own
SPACED_DAYS = 20  # days that lie further apart are stamps of months or quarters


def released(
    frame: pd.DataFrame,
    lags: dict[str, str],
    frequencies: dict[str, str],
    path: Path,
    notes: list[str],
) -> pd.DataFrame:
    """Give every figure a release date: its own, or that of its series' lag."""
    series = frame["series"].astype(str).str.strip()
    names = [str(name) for name in series.unique()]
    for option, given in (("lag", lags), ("frequency", frequencies)):
        for name in given:
            if name not in names and name != EVERY:
                raise UserError(
                    f"`--{option} {name}={given[name]}` must name a series of `{path}`{nearest(name, names)}, which "
                    f"has {', '.join(names)}"
                )
    periods = parse_periods(frame["period"])
    own = frame["release_date"].astype(object)
    own = own.where(own.notna(), "")
    missing = own.astype(str).str.strip().eq("")
    lag_of = frame[LAG].astype(object).where(frame[LAG].notna(), "")
    lacking = []
    for name in names:
        rows = series.eq(name)
        frequency = frequencies.get(name, frequencies.get(EVERY))
        if frequency is not None:
            one_of(f"frequency of {name}", frequency, FREQUENCIES)
            ends = periods.loc[rows, "end"]
            words = ["" if pd.isna(end) else str(pd.Period(end, freq=FREQUENCIES[frequency])) for end in ends]
            periods.loc[rows] = parse_periods(pd.Series(words, index=ends.index))
        else:
            _check_stamps(name, periods[rows], path)
        unknown = rows & missing
        lag = lags.get(name, lags.get(EVERY))
        if lag is not None:
            lag = check_lag(name, lag)
        if not unknown.any():
            if name in lags:
                notes.append(f"the lag of {name} is not used: all its figures have release dates")
            continue
        if lag is None:
            lacking.append(name)
            continue
        days = release_days(periods[unknown], lag)
        own.loc[unknown] = days.dt.strftime("%Y-%m-%d").where(days.notna(), "").to_numpy()
        lag_of.loc[unknown] = lag
        notes.append(f"release dates of {name} follow from its periods and the stated lag {lag}")
    if lacking:
        known = ", ".join(f"{kind} ({lag})" for kind, lag in LAGS.items())
        raise UserError(
            f"`{path}` has figures of {listed(lacking)} without a release date: taken as known in the period that "
            "they are of, they would look ahead. Add a column `release_date`, or state a lag for each series, such "
            f"as `--lag {lacking[0]}=45d` (calendar days after the period's end) or by its kind, {known}"
        )
    done = frame.assign(period=periods["text"].where(periods["text"].notna(), frame["period"].astype(object)))
    done["release_date"] = own
    return done.drop(columns=LAG) if lag_of.eq("").all() else done.assign(**{LAG: lag_of})


def _check_stamps(name: str, periods: pd.DataFrame, path: Path) -> None:
    """Refuse days that stand for months or quarters: GDP of 1998-01-01 is that of the quarter that begins there."""
    days = periods.loc[periods["frequency"].eq("D"), "end"].drop_duplicates().sort_values()
    if len(days) < 3 or days.diff().dt.days.median() < SPACED_DAYS:
        return
    if (days.dt.days_in_month - days.dt.day <= 3).all():  # the last days of periods say when these end
        return
    raise UserError(
        f"the periods of {name} in `{path}` are days that lie {days.diff().dt.days.median():.0f} days apart, such as "
        f"{days.iloc[0]:%Y-%m-%d}: if they stand for months or quarters, the figures are known later than it seems. "
        f"Say what they are: `--frequency {name}=month` (or quarter, year, day)"
    )


def check_lag(name: str, lag: str) -> str:
    """The lag of a series as it is recorded, such as `end+60d`; otherwise a UserError that lists the forms."""
    match = _LAG.fullmatch(LAGS.get(lag, lag).replace(" ", ""))
    if match is None:
        raise UserError(
            f"the lag of {name} must be {', '.join(LAGS)}, or days after the period's end such as 60d or 1b (business "
            f"days), or after another day such as month+45d or start+100d; found {brief(lag)}"
        )
    anchor, number, unit = match.groups()
    return f"{anchor or 'end'}+{int(number)}{unit}"


def release_days(periods: pd.DataFrame, lag: str) -> pd.Series:
    """Release dates of `parse_periods` by a lag that `check_lag` has checked; NaT without a period."""
    anchor, count = lag.split("+")
    number, unit = int(count[:-1]), count[-1]
    end = periods["end"]
    first = {"end": end, "month": end - pd.to_timedelta(end.dt.day - 1, unit="D"), "start": periods["start"]}
    day = first[anchor]
    if unit == "d":
        return day + pd.Timedelta(days=number)
    known = day.notna().to_numpy()
    found = np.full(len(day), np.datetime64("NaT"), dtype="M8[D]")
    # From a Saturday the next business day is Monday, as it is from the Friday before.
    found[known] = np.busday_offset(day[known].to_numpy().astype("M8[D]"), number, roll="backward")
    return pd.Series(found.astype("M8[ns]"), index=day.index)
