"""What is known at the close of a day, of the stocks that a portfolio may hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from qlib_ext.checks import UserError
from qlib_ext.metrics.cross_section import Floats

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class KnownDay:
    """What a portfolio is made from: nothing in it follows from a later day.

    Attributes
    ----------
    day
        Day t, at whose close all of this is known; the weights are traded on the day after.
    codes
        N instrument codes, sorted: the candidates, and what is held.
    scores
        `[T, N]` scores as they were formed on each of the last T days; the last row is today's. NaN where there is none.
    returns
        `[T, N]` returns of the days, of the adjusted close over the close before; the last row is today's. A suspended
        stock stands still, and makes up for it on the day that it trades again; NaN before it was listed.
    held
        `[N]` weights in the account at today's closes; the rest of the account is cash.
    buyable, sellable
        `[N]`: whether the exchange lets a stock be bought, and sold, on the day of the trade.
    benchmark
        `[N]` weights of the portfolio that deviations are measured from, with sum 1; all NaN where there is none.
    market
        `[T]` returns of the index, or, where the account has none, of today's members at equal weight.
    planes
        Name of a field of the store -> `[T, N]`: `close`, `volume`, `traded_value` in currency, `market_value`; NaN where
        nothing is known.
    industry
        `[N]` place in `industry_names`; -1 where none is known. None where the store has no industries.
    industry_names
        The industries, sorted.
    account
        Value of the account at today's closes, in currency.
    horizon
        `(first, days)`: a score of day s foretells the return from the close of s + `first` over `days` days.
    days
        The T days; None where nobody asked.
    """

    day: pd.Timestamp
    codes: tuple[str, ...]
    scores: Floats
    returns: Floats
    held: Floats
    buyable: Bools
    sellable: Bools
    benchmark: Floats
    market: Floats
    planes: Mapping[str, Floats] = field(default_factory=dict)
    industry: Ints | None = None
    industry_names: tuple[str, ...] = ()
    account: float = 1.0
    horizon: tuple[int, int] = (1, 1)
    days: pd.DatetimeIndex | None = None

    @property
    def score(self) -> Floats:
        """`[N]`: today's scores."""
        return self.scores[-1]

    def take(self, some: Bools | Ints) -> KnownDay:
        """The day with some of its stocks, by a mask or by places."""
        return replace(
            self,
            codes=tuple(np.array(self.codes)[some].tolist()),
            scores=self.scores[:, some],
            returns=self.returns[:, some],
            held=self.held[some],
            buyable=self.buyable[some],
            sellable=self.sellable[some],
            benchmark=self.benchmark[some],
            planes={name: plane[:, some] for name, plane in self.planes.items()},
            industry=None if self.industry is None else self.industry[some],
        )

    def plane(self, name: str) -> Floats:
        """`[T, N]`: a field of the store.

        Raises
        ------
        UserError
            If nothing of it is known.
        """
        found = self.planes.get(name)
        if found is None or np.isnan(found).all():
            raise UserError(
                f"the portfolio needs `{name}` of the store, found none up to {self.day:%Y-%m-%d}: bring it in as side data "
                "(`qlib-ext data side-data DIR NAME FILE`), or leave out what asks for it"
            )
        return found

    def require_industries(self, asks: str) -> Ints:
        """`[N]`: the industries, or an error that says who asks for them."""
        if self.industry is None:
            raise UserError(
                f"{asks} needs industries, and the store has none: bring a table in with `qlib-ext data side-data DIR industry "
                "FILE`"
            )
        return self.industry

    def forecastable(self, last: int | None = None) -> tuple[Floats, Floats]:
        """Past scores and the returns that they foretold, of the days whose returns are known by now.

        Parameters
        ----------
        last
            Days to look back over, today's included; None for all.

        Returns
        -------
        scores, returns : `[T', N]`
            Row s: the scores of a day, and the return over the days of the horizon, as the mean of a day.
        """
        first, days = self.horizon
        scores, returns = (
            (self.scores, self.returns) if last is None else (self.scores[-last:], self.returns[-last:])
        )
        length = len(returns) - first - days
        if length < 1:
            return scores[:0], returns[:0]
        window = np.lib.stride_tricks.sliding_window_view(np.log1p(returns), days, axis=0)[first + 1 :]
        return scores[:length], np.expm1(window.mean(axis=-1))
