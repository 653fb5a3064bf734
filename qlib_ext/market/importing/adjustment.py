"""Adjustment of prices and volumes for splits and dividends.

adjusted price = raw price * factor, adjusted volume = raw volume / factor; so price times volume is money either way.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qlib_ext.checks import UserError
from qlib_ext.market.columns import STATUSES
from qlib_ext.market.importing.evidence import as_fraction, unlike_rises
from qlib_ext.market.importing.files import read_table
from qlib_ext.market.importing.import_settings import ImportSettings
from qlib_ext.market.importing.notes import Notes, at
from qlib_ext.market.importing.trading_days import DayReader

PRICES = ("open", "high", "low", "close", "vwap")
NEEDS: Mapping[str, tuple[str, ...]] = {
    "factor": ("factor",),
    "adj_close": ("adj_close",),
    "actions": (),
    "change": ("change",),
    "adjusted": (),
    "none": (),
}
ACTION_COLUMNS: Mapping[str, tuple[frozenset[str], ...]] = {
    field: (frozenset(names.split()),)
    for field, names in {
        "date": "date exdate exday exdividenddate exdividend datetime timestamp 日期 除权除息日 除权日 除息日",
        "code": "code symbol ticker instrument tscode stockcode 代码 股票代码",
        "split": "split splits splitratio stocksplit stocksplits ratio",
        "dividend": "dividend dividends cash cashdividend amount dividendamount dps",
    }.items()
}


def choose_adjustment(adjustment: str, fields: Collection[str], has_actions: bool) -> str:
    """The adjustment that `auto` stands for, and a check of the one that is given.

    Parameters
    ----------
    adjustment
        As in `ImportSettings`.
    fields
        That every file of the source has.
    has_actions
        Whether there is a table of splits and dividends.

    Raises
    ------
    UserError
        If what the adjustment needs is not there, or it is not clear what to take.
    """
    if adjustment == "auto":
        ways = [way for way in ("factor", "adj_close") if way in fields] + ["actions"] * has_actions
        if len(ways) > 1:
            raise UserError(
                f"the source has more than one way to adjust prices, {', '.join(ways)}: choose with `--adjustment`"
            )
        return ways[0] if ways else "adjusted"
    if adjustment == "actions" and not has_actions:
        raise UserError(
            "`adjustment` actions needs a table of splits and dividends: name it with `--actions FILE`, or its columns in "
            "the source with `--column split=NAME` and `--column dividend=NAME`"
        )
    if has_actions and adjustment != "actions":
        raise UserError(f"`--actions` goes with `--adjustment actions`, found {adjustment}")
    for field in NEEDS[adjustment]:
        if field not in fields:
            raise UserError(
                f"`adjustment` {adjustment} needs a column of each file: name it with `--column {field}=NAME`"
            )
    return adjustment


@dataclass(frozen=True)
class Actions:
    """Splits and dividends of one instrument, one row a day.

    Attributes
    ----------
    days : datetime64[D] array [A]
        Ascending: the first day on which a share trades without what it gave.
    split : float array [A]
        Shares after the split for one share before it; 1 where there was none.
    dividend : float array [A]
        Cash for one share before the split, in the currency of the raw prices; 0 where there was none.
    """

    days: np.ndarray
    split: np.ndarray
    dividend: np.ndarray


def read_actions(
    path: str | Path, settings: ImportSettings, days: DayReader, notes: Notes
) -> dict[str, Actions]:
    """Read a table of splits and dividends: `date` (the ex-day), `code`, and `split`, `dividend` or both.

    A split of 0 or nothing is none, and so is an empty dividend. Equal rows count once; other rows of the same day
    add their dividends and multiply their splits.

    Raises
    ------
    UserError
        If the file cannot be read, has neither a split nor a dividend, or holds one that cannot be.
    """
    table = read_table(path, settings, days, ACTION_COLUMNS, ("date", "code"), notes)
    values = [field for field in ("split", "dividend") if field in table]
    if not values:
        raise UserError(
            f"`{path}` must have a column `split` (shares for one share), `dividend` (cash a share), or both"
        )
    for field in values:
        wrong = table[~(np.isfinite(table[field]) | table[field].isna()) | (table[field] < 0)]
        if len(wrong):
            row = wrong.iloc[0]
            raise UserError(
                f"`{path}` must have finite values of `{field}` that are not negative, found {row[field]:g} for "
                f"{row['code']} on {row['date'].date()}"
            )
    before = len(table)
    table = table.drop_duplicates()
    notes.add("{row} of splits and dividends that stood there twice: counted once", before - len(table))
    table = table.assign(
        split=table["split"].replace(0.0, np.nan).fillna(1.0) if "split" in table else 1.0,
        dividend=table["dividend"].fillna(0.0) if "dividend" in table else 0.0,
    )
    by_day = (
        table.groupby(["code", "date"], sort=True).agg({"split": "prod", "dividend": "sum"}).reset_index()
    )
    return {
        str(code): Actions(
            rows["date"].to_numpy().astype("datetime64[D]"),
            rows["split"].to_numpy(),
            rows["dividend"].to_numpy(),
        )
        for code, rows in by_day.groupby("code")
    }


def factor_of_actions(
    code: str, days: np.ndarray, close: np.ndarray, actions: Actions | None, notes: Notes
) -> np.ndarray:
    """Factor of each day from splits and dividends, 1 on the first day.

    With the last raw close P before an ex-day, a dividend D and a split of S shares for one::

        factor after = factor before * S * P / (P - D)

    the share is worth (P - D) / S on the ex-day if nothing else happens, and the adjusted price stays where it was.
    An action on a day without a bar counts from the next bar on. Since the factor begins at 1 and not at the last
    day, later actions change nothing before them.

    Parameters
    ----------
    code
        For messages.
    days
        datetime64[D] `[n]`, ascending.
    close
        Raw `[n]`, NaN where there is none.
    actions
        Of this instrument; None for one without.
    notes
        Is told of actions outside of the bars.

    Returns
    -------
    float64 `[n]`

    Raises
    ------
    UserError
        If a dividend is not below the price before it.
    """
    steps = np.ones(len(days))
    if actions is None:
        return steps
    position = days.searchsorted(actions.days)
    price, at = np.nan, -1
    for index, day, split, dividend in zip(
        position, actions.days, actions.split, actions.dividend, strict=True
    ):
        if index != at:
            known = close[:index][~np.isnan(close[:index])]
            price, at = (known[-1] if known.size else np.nan), index
        if np.isnan(price) or index == len(days):
            side = "before the first" if np.isnan(price) else "after the last"
            notes.add(
                f"{{row}} of splits and dividends {side} bar of the stock: not used", 1, [f"{code} {day}"]
            )
            continue
        if dividend >= price:
            raise UserError(
                f"a dividend must be below the price before it, found {dividend:g} for {code} on {day}, and a close of "
                f"{price:g}: is it per share, and are the prices raw?"
            )
        steps[index] *= split * price / (price - dividend)
        price = (price - dividend) / split
    return np.cumprod(steps)


def adjusted(
    values: Mapping[str, np.ndarray], adjustment: str, volume: str, factor: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Adjusted fields of one instrument.

    Parameters
    ----------
    values
        Fields of the source `[n]`.
    adjustment
        Not `auto`.
    volume
        `raw` or `adjusted`: what the source's volume is.
    factor
        `[n]`, or None where it is not known.

    Returns
    -------
    dict
        Prices, volume, `factor` where it is known, and every other field as it was, without `adj_close`.
    """
    other = ("adj_close", "factor", *STATUSES)
    fields = {field: array for field, array in values.items() if field not in other}
    if factor is None:
        return fields
    if adjustment != "adjusted":
        for field in PRICES:
            if field in fields:
                fields[field] = fields[field] * factor
    if volume == "raw" and "volume" in fields:
        fields["volume"] = fields["volume"] / factor
    fields["factor"] = factor
    return fields


def factor_of_change(close: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Factor of each day from a change that knows the ex-days: it steps where the change lies above the rise.

    Parameters
    ----------
    close
        Raw `[n]`, NaN where there is none.
    change
        Of the source, a fraction or in percent `[n]`.

    Returns
    -------
    float64 `[n]`, 1 on the first day.
    """
    there = np.flatnonzero(close > 0)
    steps = np.ones(len(close))
    if there.size > 1:
        own = as_fraction(change[there][1:], close[there])
        above, _, _ = unlike_rises(close[there], own)
        rise = close[there][1:] / close[there][:-1]
        steps[there[1:][above]] = (1 + own[above]) / rise[above]
    return np.cumprod(steps)


def factor_of_columns(
    code: str, days: np.ndarray, values: Mapping[str, np.ndarray], adjustment: str, notes: Notes
) -> np.ndarray | None:
    """Factor of each day from the columns of one instrument: `factor`, or adjusted close / close.

    A factor holds until the next one, so a missing one is that of the last bar before. A bar before the first one
    has none, and loses its prices where they are raw; an instrument without any factor keeps them, with 1.

    Returns
    -------
    float64 `[n]`, or None where prices are adjusted by a factor that is not known.
    """
    if adjustment == "none":
        return np.ones(len(days))
    if adjustment == "adj_close":
        factor = values["adj_close"] / values["close"]
    elif "factor" in values:
        factor = values["factor"]
    else:
        return None
    there = np.flatnonzero(~np.isnan(factor))
    if there.size == len(factor):
        return factor
    if there.size == 0:
        if adjustment == "adjusted":
            return factor
        notes.add("{instrument} without any factor: taken as 1 (an index has none)", places=[code])
        return np.ones(len(days))
    last = np.searchsorted(there, np.arange(len(factor)), side="right") - 1
    carried = np.where(last >= 0, factor[there[np.maximum(last, 0)]], np.nan)
    priced = ~np.isnan(values["close"])
    filled = priced & np.isnan(factor) & ~np.isnan(carried)
    notes.add("{bar} without a factor: that of the bar before taken", filled.sum(), at(code, days[filled]))
    unknown = priced & np.isnan(carried)
    lost = "left without" if adjustment == "adjusted" else "prices made missing"
    notes.add(f"{{bar}} before the first known factor: {lost}", unknown.sum(), at(code, days[unknown]))
    return carried
