"""Markets with other bars: with a little noise in all of them, or with others after a day."""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from qlib_ext.factors.subject import until
from qlib_ext.factors.values import FeatureValues, factor_names
from qlib_ext.features.base import FeatureSet
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.market.rules.exchange_rules import ExchangeRules
from qlib_ext.market.store import QlibStore

PRICES = ("open", "high", "low", "close", "vwap")
AMOUNTS = ("volume", "amount")
NOISE = {**dict.fromkeys(PRICES, 0.001), **dict.fromkeys(AMOUNTS, 0.05)}  # standard deviations, as shares
LOOKED_AT = 20  # days before the change that are compared
AHEAD = 60  # days after it that are changed
CLOSE_TO = 1e-3  # of the size of a value; bars change by a third, and what reads them by far more than this


def with_noise(market: MarketPanel, seed: int) -> MarketPanel:
    """The market with each price times 1 + e, e of 10 basis points, and each volume and amount of 5%."""
    values = market.values.copy()
    for k, name in enumerate(market.fields):
        if name in NOISE:
            drawn = np.random.default_rng([seed, k]).standard_normal(values[k].shape, dtype=np.float32)
            values[k] *= 1 + np.float32(NOISE[name]) * drawn
    return dataclasses.replace(market, values=values)


def reading_ahead(
    features: FeatureSet,
    store: QlibStore,
    market: MarketPanel,
    days: np.ndarray,
    *,
    every_lag: bool,
    seed: int,
    rules: ExchangeRules | None = None,
) -> dict[str, str]:
    """The factors that follow from later days, and how that is known.

    Parameters
    ----------
    features
        The set.
    store
        What it joins beside bars.
    market
        The bars.
    days
        Positions of the days that are judged; the change lies in their middle.
    every_lag
        As for `FeatureValues`.
    seed
        Of the changed bars.
    rules
        As for `FeatureValues`.

    Notes
    -----
    What a set says of itself (its formulas) is taken as said. And it is tried: the bars of 60 days after a day are
    changed, and a factor that is then another on one of the 20 days before reads them. Side data are left as they are.
    """
    names = factor_names(features, every_lag=every_lag)
    found: dict[str, str] = {}
    for sentence in features.look_ahead():
        named = set(re.findall(r"`([^`]+)`", sentence))
        found |= {name: sentence for name in names if name in named or re.sub(r"_LAG\d+$", "", name) in named}
    cut = int(days[len(days) // 2])
    part = until(
        market, min(len(market.calendar), cut + 1 + AHEAD), max(0, cut - features.history_days - LOOKED_AT)
    )
    shift = max(0, cut - features.history_days - LOOKED_AT)
    changed = _changed_after(part, cut - shift, seed)
    before, after = (
        FeatureValues(features, store, each, every_lag=every_lag, rules=rules) for each in (part, changed)
    )
    differs = np.zeros(len(names), dtype=bool)
    for day in range(max(0, cut - shift - LOOKED_AT + 1), cut - shift + 1):
        columns = np.flatnonzero(part.present[day])
        one, other = before.of_day(day, columns), after.of_day(day, columns)
        near = np.abs(one - other) <= CLOSE_TO * np.maximum(np.abs(one), np.abs(other)) + 1e-12
        differs |= ~(near | (np.isnan(one) & np.isnan(other))).all(axis=1)
    when = f"{market.calendar[cut]:%Y-%m-%d}"
    for name, reads in zip(names, differs, strict=True):
        if reads and name not in found:
            found[name] = f"`{name}` is another where the bars after {when} are"
    return found


def _changed_after(market: MarketPanel, day: int, seed: int) -> MarketPanel:
    """The market with other prices and volumes after a day."""
    values = market.values.copy()
    for k, name in enumerate(market.fields):
        if name in NOISE:
            drawn = np.random.default_rng([seed, k]).standard_normal(values[k, day + 1 :].shape)
            values[k, day + 1 :] *= np.exp(drawn / 3).astype(np.float32)
    return dataclasses.replace(market, values=values)
