"""A market as a portfolio sees it: planes of days and stocks, of which each day shows what was known by then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError, nearest, one_of
from qlib_ext.features.side_data.industries import industries
from qlib_ext.features.side_data.market_value import SideMarketValue
from qlib_ext.market.store import QlibStore
from qlib_ext.market.traded_value import TradedValue
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.metrics.naive_portfolios import held_returns
from qlib_ext.portfolio.known_day import Bools, Ints, KnownDay

BENCHMARKS = ("equal", "value")


@dataclass(frozen=True)
class MarketHistory:
    """Bars and scores of S stocks on D days.

    Attributes
    ----------
    days
        D trading days, ascending.
    codes
        S instrument codes, sorted.
    scores
        `[D, S]` as they were formed at each close; NaN where there is none. Who has a score is a member of the universe.
    returns
        `[D, S]`, as `KnownDay.returns`.
    market
        `[D]` returns of the index; None for the mean of the stocks, which each day takes over those that have a score then.
    planes
        Name -> `[D, S]`, as `KnownDay.planes`.
    industry
        `[D, S]` place in `industry_names`, -1 where none is known; None where the store has none.
    industry_names
        The industries, sorted.
    horizon
        As `KnownDay.horizon`.
    notes
        What could not be had of the store, and why, as sentences.
    scored
        The days on which there were scores, be it of stocks without bars; None for those with one in `scores`.
    """

    days: pd.DatetimeIndex
    codes: tuple[str, ...]
    scores: Floats
    returns: Floats
    market: Floats | None
    planes: Mapping[str, Floats] = field(default_factory=dict)
    industry: Ints | None = None
    industry_names: tuple[str, ...] = ()
    horizon: tuple[int, int] = (1, 1)
    notes: tuple[str, ...] = ()
    scored: pd.DatetimeIndex | None = None

    @classmethod
    def load(
        cls,
        store: QlibStore,
        scores: pd.Series,
        *,
        days_back: int,
        index: str | None = None,
        others: Sequence[str] = (),
        horizon: tuple[int, int] = (1, 1),
    ) -> MarketHistory:
        """The market of some scores.

        Parameters
        ----------
        store
            Where the bars lie.
        scores
            Indexed by (`datetime`, `instrument`).
        days_back
            Days of bars before the first day with a score.
        index
            Code of the index, whose returns are those of the market; None for the mean of each day's stocks.
        others
            Codes beside those that have a score: what an account holds.
        horizon
            As `KnownDay.horizon`.

        Raises
        ------
        UserError
            If the index is not in the store, or none of the stocks is.
        """
        check_index(store, index)
        there = {*store.instruments()}
        table = scores.dropna().unstack("instrument").sort_index()
        codes = tuple(sorted({*table.columns, *others} & there))
        if not codes:
            raise UserError(
                f"none of the {table.shape[1]} stocks with a score has bars in the store {store.root}"
            )
        first = max(0, int(store.calendar.searchsorted(table.index[0])) - days_back)
        span = slice(first, int(store.calendar.searchsorted(table.index[-1], side="right")))
        days = store.calendar[span]
        close, volume = store.read(["close", "volume"], codes)[:, span].astype(np.float64)
        planes, notes = {"close": close, "volume": volume}, []
        try:
            planes["traded_value"] = TradedValue(store, codes).daily()[span].astype(np.float64)
        except UserError as error:
            notes.append(f"traded values are not known: {error}")
        reason = SideMarketValue().lacks(store)
        if reason is None:
            planes["market_value"] = SideMarketValue().load(store, codes)[span].astype(np.float64)
        else:
            notes.append(f"market values are not known: {reason}")
        found, why = industries(store, days, codes)
        if found is None:
            notes.append(f"industries are not known: {why}")
        returns = held_returns(close)
        market = None
        if index is not None:
            closes = store.read(["close"], [index.upper()])[0, span].astype(np.float64)
            market = np.nan_to_num(held_returns(closes)[:, 0])
        return cls(
            days=days,
            codes=codes,
            scores=table.reindex(index=days, columns=[*codes]).to_numpy(dtype=np.float64),
            returns=returns,
            market=market,
            planes=planes,
            industry=None if found is None else found.code,
            industry_names=() if found is None else found.names,
            horizon=horizon,
            notes=tuple(notes),
            scored=pd.DatetimeIndex(table.index),
        )

    def scores_on(self, day: pd.Timestamp) -> dict[str, float]:
        """Code -> score of a day, of the stocks that have one; empty for a day that is none of `days`."""
        if day not in self.days:
            return {}
        row = self.scores[self.days.get_loc(day)]
        return {self.codes[k]: float(row[k]) for k in np.flatnonzero(np.isfinite(row))}

    def has_scores(self, day: pd.Timestamp) -> bool:
        """Whether a signal was formed on a day."""
        return bool(self.scores_on(day)) if self.scored is None else day in self.scored

    def codes_on(self, day: pd.Timestamp) -> list[str]:
        """Codes of the stocks with a score on a day."""
        return [*self.scores_on(day)]

    def known(
        self,
        day: pd.Timestamp,
        *,
        length: int,
        benchmark: str = "equal",
        held: Mapping[str, float] | None = None,
        account: float = 1.0,
        buyable: Mapping[str, bool] | None = None,
        sellable: Mapping[str, bool] | None = None,
    ) -> KnownDay:
        """What is known at the close of a day, of the stocks that have a score then and of those that are held.

        Parameters
        ----------
        day
            One of `days`.
        length
            T, days to look back over, the day included; fewer where there are no more.
        benchmark
            `equal`: every stock with a score at the same weight; `value`: by market value, and those without one have none.
        held
            Code -> weight in the account.
        account
            Its value.
        buyable, sellable
            Code -> whether it can be traded on the day after; by default all can.

        Raises
        ------
        UserError
            If the day is none of `days`, or market values are asked for and not known.
        """
        if day not in self.days:
            raise UserError(
                f"{day:%Y-%m-%d} is no day of this market, which has {self.days[0]:%Y-%m-%d} to {self.days[-1]:%Y-%m-%d}"
            )
        one_of("benchmark", benchmark, BENCHMARKS)
        last = self.days.get_loc(day) + 1
        span = slice(max(0, last - length), last)
        held = held or {}
        own = np.array([held.get(code, 0.0) for code in self.codes])
        scored = np.isfinite(self.scores[last - 1])
        some = np.flatnonzero(scored | (own != 0))
        # Of all stocks of the history, later members would tell an earlier day who is going to rise.
        members = np.flatnonzero(scored) if scored.any() else some
        codes = tuple(self.codes[k] for k in some)
        known = KnownDay(
            day=day,
            codes=codes,
            scores=self.scores[span, some],
            returns=self.returns[span, some],
            held=own[some],
            buyable=_flags(buyable, codes),
            sellable=_flags(sellable, codes),
            benchmark=np.full(len(some), np.nan),
            market=_mean(self.returns[span][:, members]) if self.market is None else self.market[span],
            planes={name: plane[span, some] for name, plane in self.planes.items()},
            industry=None if self.industry is None else self.industry[last - 1, some],
            industry_names=self.industry_names,
            account=account,
            horizon=self.horizon,
            days=self.days[span],
        )
        return replace(known, benchmark=_benchmark(known, scored[some], benchmark))


def check_index(store: QlibStore, index: str | None) -> None:
    """Raise a UserError unless the index, where there is one, is in the store."""
    there = store.instruments()
    if index is not None and index.upper() not in there:
        raise UserError(
            f"`index` must be an instrument of the store {store.root}, found {index}{nearest(index.upper(), there)}"
        )


def _mean(returns: Floats) -> Floats:
    """`[T]` of the stocks that have a return on a day; 0 where none has."""
    there = np.isfinite(returns)
    return np.where(there, returns, 0.0).sum(axis=1) / np.maximum(1, there.sum(axis=1))


def _flags(given: Mapping[str, bool] | None, codes: Sequence[str]) -> Bools:
    return np.array([given is None or given.get(code, False) for code in codes], dtype=bool)


def _benchmark(known: KnownDay, members: Bools, kind: str) -> Floats:
    """Weights `[N]` of the members, with sum 1; NaN where there is no member."""
    weights = members.astype(np.float64)
    if kind == "value":
        weights = np.where(members, np.nan_to_num(known.plane("market_value")[-1]), 0.0)
    total = weights.sum()
    return weights / total if total > 0 else np.full(len(weights), np.nan)
