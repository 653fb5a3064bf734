"""What an attribution takes of a store: weights, returns and exposures, each as it was known at the close before."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from qlib_ext.checks import counted
from qlib_ext.features.exposures.style_exposures import HISTORY_DAYS, Exposures, load_exposures, standardised
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.features.side_data.market_value import SideMarketValue
from qlib_ext.market.store import QlibStore
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.metrics.naive_portfolios import held_returns
from qlib_ext.records.portfolio_tables import UNKNOWN, day_before

EVERY = "all stocks"  # the one group where the store has no industries
FEWEST = 5  # stocks of an industry; with fewer, most of a selection is called its industry's


@dataclass(frozen=True)
class Attributed:
    """D days and S stocks.

    Attributes
    ----------
    weights
        Of the portfolio at the close before each day `[D, S]`.
    benchmarks
        `equal_weight` and, where the store has market values, `value_weight` of the universe `[D, S]`, with sum 1.
    returns
        Of each day `[D, S]`, NaN before a stock's first bar.
    styles
        Name -> standardised exposure `[D, S]`, 0 where it is not known.
    group, groups
        Place of each stock's industry in the names `[D, S]`; those of which nothing is known are in the last.
    values
        Market values of the members `[D, S]`, by which factor returns are fitted, or ones; 0 for all others.
    told
        Exposure -> what it is, or why there is none.
    unknown
        Exposure -> share of the portfolio, by weight, that has none.
    no_industries, no_value_weight
        Why there are none; empty where there are.
    notes
        What a reader should know, as sentences.
    """

    weights: Floats
    benchmarks: dict[str, Floats]
    returns: Floats
    styles: dict[str, Floats]
    group: np.ndarray
    groups: tuple[str, ...]
    values: Floats
    told: dict[str, str]
    unknown: dict[str, float]
    no_industries: str
    no_value_weight: str
    notes: list[str] = field(default_factory=list)


def gather(store: QlibStore, universe: str, index: str | None, weights: pd.DataFrame) -> Attributed:
    """Weights, returns and exposures of a portfolio and its universe.

    Parameters
    ----------
    store, universe
        What was traded.
    index
        That betas are to; None for the mean of the universe.
    weights
        In the account at the close, a row a day and a column a stock held.
    """
    at = store.calendar.get_indexer(weights.index)
    begin, end = max(0, int(at[0]) - HISTORY_DAYS), int(at[-1]) + 1
    spells = store.membership(universe)
    within = (spells["end"] >= store.calendar[begin]) & (spells["start"] <= store.calendar[end - 1])
    codes = sorted(({*store.instruments()} & {*spells["instrument"][within]}) | {*weights.columns})
    close = store.read(["close"], codes)[:, :end]
    members = store.member_mask(universe, codes)[:end]
    returns = held_returns(close[0])[at]
    market = MarketPanel(
        ("close",), store.calendar[begin:end], tuple(codes), close[:, begin:], members[begin:], ()
    )
    known = load_exposures(store, market, universe, index)
    before = np.maximum(at - 1, 0)  # nothing is held on the store's first day, as no return ends with it
    there = members[before] & np.isfinite(returns)
    held = day_before(weights.reindex(columns=codes, fill_value=0.0))
    notes = []
    without = (held != 0) & ~np.isfinite(returns)
    if without.any():
        notes.append(
            f"{counted(int(without.any(axis=0).sum()), 'stock')} held had no close in the store on the day or before: what "
            "they earned is in `trading`"
        )
    returns = np.where(without, 0.0, returns)
    rows = before - begin
    values = (
        None
        if known.market_value is None
        else np.where(there, np.nan_to_num(known.market_value[rows].astype(np.float64)), 0.0)
    )
    benchmarks = {"equal_weight": _shares(there.astype(np.float64))}
    if values is not None:
        benchmarks["value_weight"] = _shares(values)
        lacking = there & (values <= 0)
        if lacking.any():
            share = lacking.sum() / max(there.sum(), 1)
            notes.append(
                f"{share:.1%} of the members have no market value: they are not in the universe by value, and factor returns "
                "are fitted without them"
            )
    code, names, few = _industries(known, rows, there)
    return Attributed(
        weights=held,
        benchmarks=benchmarks,
        returns=returns,
        styles={name: standardised(plane[rows], there, values) for name, plane in known.planes.items()},
        group=code,
        groups=names,
        values=there.astype(np.float64) if values is None else values,
        told=known.told,
        unknown=_unknown(known, rows, held),
        no_industries=known.told["industry"] if known.industry is None else "",
        no_value_weight="" if values is not None else str(SideMarketValue().lacks(store)),
        notes=notes + few,
    )


def _shares(values: Floats) -> Floats:
    total = values.sum(axis=1, keepdims=True)
    return values / np.where(total > 0, total, 1.0)


def _industries(
    known: Exposures, rows: np.ndarray, there: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    """Groups `[D, S]` with their names; and a note where there are too many."""
    if known.industry is None:
        return np.zeros(there.shape, np.int64), (EVERY,), []
    names = (*known.industry_names, UNKNOWN)
    code = known.industry[rows]
    code = np.where(code < 0, len(names) - 1, code)
    sizes = np.bincount(code[there], minlength=len(names)) / len(there)
    typical = float(np.median(sizes[sizes > 0])) if sizes.any() else 0.0
    few = (
        f"an industry has {typical:.1f} members of the universe on a middling day: with so few, what is a choice of stocks is "
        "called one of industries; bring in a coarser classification"
    )
    return code, names, [few] if typical < FEWEST else []


def _unknown(known: Exposures, rows: np.ndarray, held: Floats) -> dict[str, float]:
    """Share of the portfolio whose exposure is taken for that of the market, or whose industry is not known."""
    total = np.abs(held).sum()
    missing = {name: ~np.isfinite(plane[rows]) for name, plane in known.planes.items()}
    if known.industry is not None:
        missing["industry"] = known.industry[rows] < 0
    return {
        name: float((np.abs(held) * where).sum() / total) if total else 0.0 for name, where in missing.items()
    }
