"""Exposures of the stocks of a day to styles and industries, on the days that a factor model is fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from qlib_ext.features.exposures.style_exposures import HISTORY_DAYS, standardised, styles
from qlib_ext.features.side_data.market_value import TrailingTradedValue
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.known_day import Ints, KnownDay

MARKET = "market"
NO_INDUSTRY = "no industry"


@dataclass(frozen=True)
class Exposures:
    """What N stocks are exposed to on D days, the last of which is today.

    Attributes
    ----------
    names
        K factors: the market, styles, industries.
    styles
        `[P, D, N]`, each of mean 0 over the market by value; 0 where one is not known.
    industry
        `[N]` place of each stock's industry among the G of the factors, as of today; -1 where it is none of them.
    values
        `[D, N]` market values, what stands for them, or 1 on a day without either; 0 where only the stock has none.
    """

    names: tuple[str, ...]
    styles: Floats
    industry: Ints
    values: Floats

    def loadings(self) -> Floats:
        """`[N, K]` of today."""
        places = np.arange(len(self.names) - 1 - len(self.styles))
        belongs = (self.industry[:, None] == places).astype(np.float64)
        return np.hstack([np.ones((len(self.industry), 1)), self.styles[:, -1].T, belongs])


def style_planes(known: KnownDay, traded: Floats, days: int) -> tuple[dict[str, Floats], Floats]:
    """Styles of the last days, as far as what is known makes them, and what stands for market values.

    Parameters
    ----------
    known
        The day.
    traded
        `[T, N]` returns from a day of trading to the next.
    days
        D.

    Returns
    -------
    planes, values
        Name -> `[D, N]`, NaN where one is not known, and `[D, N]`.
    """
    back = days + HISTORY_DAYS
    size = _size(known, days)
    money = known.planes.get("traded_value")
    listed = np.cumsum(np.isfinite(known.returns), axis=0) > 0
    close = np.cumprod(1 + np.nan_to_num(known.returns[-back:]), axis=0)
    # Without a close on days without trading, these and what makes up for them are no part of a beta or a volatility.
    close[~(listed & np.isfinite(traded))[-back:]] = np.nan
    found = styles(
        close,
        known.market[-back:],
        None if size is None else _at_the_end(size, len(close)),
        None if money is None else money[-back:],
    )
    planes = {name: plane[-days:] for name, plane in found.items()}
    if size is None:
        return planes, np.ones((min(days, len(known.returns)), len(known.codes)))
    values = np.where(size > 0, size, 0.0)
    return planes, np.where(values.sum(axis=1, keepdims=True) > 0, values, 1.0)


def _size(known: KnownDay, days: int) -> Floats | None:
    """Market values `[D, N]`, or the median of recent traded values; None where neither is known."""
    value = known.planes.get("market_value")
    if value is not None and np.isfinite(value[-days:]).any():
        return value[-days:]
    money = known.planes.get("traded_value")
    if money is None or not np.isfinite(money).any():
        return None
    rule = TrailingTradedValue()
    recent = pd.DataFrame(np.where(money > 0, money, np.nan)[-(days + rule.window_days - 1) :])
    return recent.rolling(rule.window_days, min_periods=rule.min_days).median().to_numpy()[-days:]


def _at_the_end(plane: Floats, length: int) -> Floats:
    """A plane of the last days on all of them, NaN before."""
    before = np.full((length - len(plane), plane.shape[1]), np.nan)
    return np.vstack([before, plane])


def exposures(
    known: KnownDay,
    planes: dict[str, Floats],
    values: Floats,
    names: Sequence[str],
    industries: Sequence[str],
) -> Exposures:
    """Exposures to some styles and industries.

    Parameters
    ----------
    known, planes, values
        The day, and what `style_planes` made of it.
    names
        Styles; one that is not among the planes is 0 for all.
    industries
        Their names; a stock of none of them has the market alone.
    """
    members = np.isfinite(known.returns[-len(values) :])
    zeros = np.zeros(values.shape)
    found = [standardised(planes[name], members, values) if name in planes else zeros for name in names]
    place = {name: number for number, name in enumerate(industries)}
    return Exposures(
        names=(MARKET, *names, *industries),
        styles=np.stack(found) if found else np.empty((0, *values.shape)),
        industry=np.array([place.get(name, -1) for name in industry_of(known)], dtype=np.int64),
        values=values,
    )


def industry_of(known: KnownDay) -> list[str]:
    """`[N]` names of the industries; `no industry` where none is known."""
    if known.industry is None:
        return [NO_INDUSTRY] * len(known.codes)
    return [known.industry_names[number] if number >= 0 else NO_INDUSTRY for number in known.industry]
