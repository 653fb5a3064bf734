"""Which way prices are adjusted, where the user leaves it open: by what the source has, and by what its numbers say."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from qlib_ext.checks import UserError
from qlib_ext.market.importing.adjustment import Actions, choose_adjustment
from qlib_ext.market.importing.evidence import (
    ADJUSTED,
    FEWEST_DAYS,
    HALF,
    RAW,
    ChangeEvidence,
    FactorEvidence,
    Steps,
    is_whole,
)
from qlib_ext.market.importing.notes import Notes

Stocks = Callable[[], Iterable[Mapping[str, np.ndarray]]]
SAME = 2e-3  # relative: an adjusted close in whole cents beside a factor

BY_SUBTRACTION = (
    "that is front adjustment by subtraction: amounts were taken off earlier prices, and returns of what is left are not "
    "those of the stock. Take raw prices and a factor, or prices adjusted backwards (from the first day on) or by ratios"
)


class Decision(NamedTuple):
    """How prices are adjusted.

    Attributes
    ----------
    way : str
        An adjustment of `ImportSettings`, not `auto`.
    splits : bool
        Whether the splits of columns still have to be applied.
    """

    way: str
    splits: bool = True


def decide(asked: str, fields: Collection[str], has_actions: bool, stocks: Stocks, notes: Notes) -> Decision:
    """Decide how prices are adjusted.

    Parameters
    ----------
    asked
        The adjustment of `ImportSettings`.
    fields
        That every file of the source has.
    has_actions
        Whether there is a table of splits and dividends.
    stocks
        Makes fields `[n]` of some stocks, by day.
    notes
        Is told what was found, where it is not what the source seems to be.

    Raises
    ------
    UserError
        If what is asked for is not there, or nothing tells what to take.
    """
    if asked == "auto" and {"factor", "adj_close"} <= set(fields) and not has_actions:
        fields = _without_the_same(set(fields), stocks)
    columns = "split" in fields or "dividend" in fields
    way = choose_adjustment(asked, fields, has_actions or (columns and asked == "actions"))
    if way in ("factor", "adj_close") or (way == "adjusted" and "factor" in fields):
        return Decision(_beside_a_factor(way, asked, stocks, notes))
    if columns and not has_actions and (asked == "actions" or (asked == "auto" and way == "adjusted")):
        return _beside_actions(asked, stocks, notes)
    if asked == "auto" and way == "adjusted":
        return Decision(_by_itself("change" in fields, stocks, notes))
    return Decision(way)


def _without_the_same(fields: set[str], stocks: Stocks) -> set[str]:
    """Without the adjusted close, where it says what the factor says, or what the close is already."""
    agree = equal = seen = 0
    for values in stocks():
        close, factor, adjusted = values["close"], values["factor"], values["adj_close"]
        seen += 1
        agree += _is_constant(adjusted / (close * factor))
        equal += _is_constant(adjusted / close)
    if 2 * max(agree, equal) > seen:
        return fields - {"adj_close"}
    raise UserError(
        "the source has a factor and an adjusted close, and close times factor is not the adjusted close: choose with "
        "`--adjustment factor` or `--adjustment adj_close` (raw prices), or `--adjustment adjusted` (prices that are "
        "adjusted already)"
    )


def _is_constant(ratio: np.ndarray) -> bool:
    known = ratio[np.isfinite(ratio) & (ratio > 0)]
    return bool(known.size and known.max() / known.min() - 1 < SAME)


def _beside_a_factor(way: str, asked: str, stocks: Stocks, notes: Notes) -> str:
    """Whether prices with a factor, or an adjusted close, are to be adjusted by it."""
    evidence = FactorEvidence()
    days = whole = unlike = 0
    for values in stocks():
        close = values["close"]
        factor = values["adj_close"] / close if way == "adj_close" else values["factor"]
        evidence.see(values, factor)
        known = close[close > 0]
        days, whole = days + len(known), whole + int(is_whole(known).sum())
        unlike += int((np.abs(factor - 1) > 1e-6).sum())
    if way == "adj_close" and evidence.outside > HALF * evidence.days and evidence.days >= FEWEST_DAYS:
        raise UserError(
            f"the close lies outside of low and high on {evidence.outside:,} of {evidence.days:,} days, and the adjusted "
            "close inside: open, high and low are adjusted already. Take the adjusted close with them: `--column "
            "close=ADJUSTED --column adj_close=` with its name for ADJUSTED"
        )
    says, found, clash = evidence.verdict
    if way == "adj_close" and not unlike and days >= FEWEST_DAYS and whole < HALF * days:
        says, found = ADJUSTED, "the adjusted close is the close on every day, and hardly ever in whole cents"
    other = "`--adjustment adjusted`" if way != "adjusted" else "`--adjustment factor`"
    if asked == "auto" and clash:
        raise UserError(
            f"the prices look raw and adjusted at once: {found}. Say `--adjustment {way}` if they are raw, or "
            f"{other} if they are adjusted already"
        )
    if asked == "auto" and says == ADJUSTED:
        notes.add(
            f"the prices are adjusted already: {found}. Taken as they are (`--adjustment {way}` takes them as raw)"
        )
        return "adjusted"
    if asked == "auto" and says is None and evidence.steps.count:
        notes.add(
            "nothing shows whether the prices are raw or adjusted already: taken as raw (`--adjustment adjusted` if they "
            "are adjusted)"
        )
    if asked != "auto" and says == (RAW if way == "adjusted" else ADJUSTED):
        seem, taken = ("raw", "adjusted") if way == "adjusted" else ("adjusted already", "raw")
        notes.add(f"the prices seem to be {seem}, and were taken as {taken}: {found}; {other} takes them so")
    return way


def _beside_actions(asked: str, stocks: Stocks, notes: Notes) -> Decision:
    """Whether splits and dividends that stand in columns beside the prices are in them already."""
    splits, dividends = Steps(), Steps()
    for values in stocks():
        there = values["close"] > 0
        close = values["close"][there]
        if len(close) > 1:
            split, dividend = (part[there][1:] for part in splits_and_dividends(values))
            splits.see(close, np.log(split))
            dividends.see(close, -np.log1p(-np.minimum(dividend / close[:-1], 0.9)))
    done = splits.says == ADJUSTED
    if done and asked == "actions":
        notes.add(
            f"the prices do not move with the splits on {splits.count:,} days: splits are in them already, and not "
            "applied again"
        )
    if asked == "actions":
        return Decision("actions", not done)
    if splits.says == RAW or (dividends.says == RAW and (done or not splits.count)):
        of = "dividends" if done or not splits.count else "splits"
        notes.add(
            f"the prices are raw, since they fall with the {of} beside them: adjusted by the source's "
            f"{'dividends alone, splits are in them already' if done else 'splits and dividends'}"
        )
        return Decision("actions", not done)
    if done or (dividends.says == ADJUSTED and not splits.count):
        notes.add(
            "the prices are adjusted already, since they do not fall on the days of the splits and dividends beside them "
            "(`--adjustment actions` applies the dividends)"
        )
    else:
        notes.add(
            "prices taken as adjusted already: nothing shows whether the splits and dividends beside them are in them "
            "(`--adjustment actions` applies them)"
        )
    return Decision("adjusted")


def _by_itself(change: bool, stocks: Stocks, notes: Notes) -> str:
    """Whether prices with nothing to adjust by are raw, which only a change can tell."""
    if change:
        evidence = ChangeEvidence()
        for values in stocks():
            evidence.see(values)
        if evidence.subtracted:
            raise UserError(
                f"in {evidence.shifted:,} of {evidence.stocks:,} stocks the source's change is that of the closes plus an "
                f"amount: {BY_SUBTRACTION}; or, to take them all the same, say `--adjustment adjusted`"
            )
        if evidence.raw:
            notes.add(
                f"the prices are raw: the source's change lies above the rise of the closes on {evidence.above:,} of "
                f"{evidence.days:,} days, as on ex-days, and fits it on the others. Adjusted by the change "
                "(`--adjustment none` leaves them raw, `--adjustment adjusted` takes them as adjusted)"
            )
            return "change"
    notes.add(
        "prices taken as adjusted already, since nothing in the source adjusts them (if they are raw, see "
        "`--adjustment`)"
    )
    return "adjusted"


def splits_and_dividends(values: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Shares for one share, and cash for one share, of each day: 1 and 0 where there is nothing."""
    nothing = np.zeros(len(values["close"]))
    split = np.nan_to_num(values.get("split", nothing))
    return np.where(split > 0, split, 1.0), np.nan_to_num(values.get("dividend", nothing))


def actions_of_columns(days: np.ndarray, values: Mapping[str, np.ndarray], splits: bool) -> Actions:
    """Splits and dividends that stand beside the prices of a stock, the splits only where they are wanted."""
    split, dividend = splits_and_dividends(values)
    if not splits:
        split = np.ones_like(split)
    there = (split != 1) | (dividend > 0)
    return Actions(days[there], split[there], dividend[there])
