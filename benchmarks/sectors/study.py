"""Accounts of a study: for each sector and year one a method, all on the same exchange."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.sectors.forecasts import Forecasts, month_starts
from benchmarks.sectors.kept import FORMAT, Held, SectorYear, read
from benchmarks.sectors.methods import Method
from benchmarks.sectors.selection import TRADED, Chosen, Sectors, Window
from benchmarks.sectors.tables import figures
from qlib_ext.backtest.exchange import RecordingExchange
from qlib_ext.backtest.simulation import make_exchange, simulate
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.metrics.naive_portfolios import held_returns
from qlib_ext.portfolio.allocation import Decision
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.portfolio import Portfolio
from qlib_ext.records.backtest import completed
from qlib_ext.strategy.target_weights import TargetWeights

SHOWN = 1e-6  # a weight below is none


class Remembering(Portfolio):
    """A portfolio that keeps its decisions."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.decisions: list[Decision] = []

    def decide(self, known: KnownDay) -> Decision:
        """As a portfolio does."""
        self.decisions.append(super().decide(known))
        return self.decisions[-1]


class Study:
    """What is asked for, and what of it is kept already.

    Parameters
    ----------
    sectors
        The market.
    chosen
        The stocks of each year.
    methods
        All of them.
    runs
        Folder of what is kept.
    rules
        The exchange's.
    account
        Cash of each account.
    per_year
        Trading days of a year.

    Attributes
    ----------
    settings
        What decides the numbers beside stocks and methods; what is kept with others is run again.
    """

    def __init__(
        self,
        sectors: Sectors,
        chosen: Mapping[Window, Chosen],
        methods: Sequence[Method],
        runs: Path,
        *,
        rules: str,
        account: float,
        per_year: float,
    ) -> None:
        self.sectors, self.chosen, self.methods, self.runs = sectors, chosen, methods, runs
        self.rules, self.account, self.per_year = rules, account, per_year
        self.settings: dict[str, Any] = {
            "format": FORMAT,
            "store": sectors.store.fingerprint(),
            "universe": sectors.universe,
            "sectors": sectors.notes[0],
            "rules": rules,
            "account": account,
            "per_year": per_year,
        }

    @property
    def fingerprint(self) -> str:
        """Of the settings."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:12]

    def left(self, only: Sequence[str] | None = None) -> list[tuple[Window, str, list[Method]]]:
        """Year, sector and methods that are not kept yet, of some sectors or of all."""
        found = []
        for window, stocks in self.chosen.items():
            for sector in stocks.sectors:
                if only is None or sector in only:
                    held = self._kept(window, sector)
                    there = {} if held is None else held.held
                    some = [
                        method
                        for method in self.methods
                        if method.name not in there or there[method.name].config != method.fingerprint
                    ]
                    if some:
                        found.append((window, sector, some))
        return found

    def run(
        self, window: Window, sector: str, methods: Sequence[Method], forecasts: Forecasts | None
    ) -> SectorYear:
        """Hold a sector over a year by some methods, and keep what came of it beside what is kept already."""
        codes = self.chosen[window].sectors[sector]
        calendar = self.sectors.store.calendar
        begin, end = calendar[window.begin], calendar[window.end]
        returns = np.nan_to_num(
            held_returns(self.sectors.close[window.span][:, self.sectors.places(codes)])[1:]
        )
        exchange, _ = make_exchange([*codes], begin, end, completed({"rules": self.rules}))
        held, daily = {}, {}
        for method in methods:
            held[method.name], daily[method.name] = self._account(
                method, window, codes, exchange, returns, forecasts
            )
        found = SectorYear(
            settings=self.fingerprint,
            year=window.year,
            sector=sector,
            codes=[*codes],
            volatility=returns.std(axis=0, ddof=1).tolist(),
            mean=returns.mean(axis=0).tolist(),
            correlation=np.round(np.corrcoef(returns.T), 4).tolist(),
            held=held,
            daily=pd.DataFrame(daily).rename_axis(index="day"),
        )
        before = self._kept(window, sector)
        if before is not None:
            order = [method.name for method in self.methods]
            found.held = dict(sorted({**before.held, **held}.items(), key=lambda one: _place(order, one[0])))
            found.daily = pd.concat(
                [before.daily.drop(columns=[*daily], errors="ignore"), found.daily], axis=1
            )
            found.daily = found.daily[[*found.held]]
        found.write(self.runs)
        return found

    def said(self) -> list[str]:
        """What was done, for a reader."""
        windows = [*self.chosen]
        counts = [len(stocks.sectors) for stocks in self.chosen.values()]
        out: dict[str, int] = {}
        small: dict[str, int] = {}
        for stocks in self.chosen.values():
            for reason, count in stocks.out.items():
                out[reason] = out.get(reason, 0) + count
            for name in stocks.small:
                small[name] = small.get(name, 0) + 1
        reasons = ", ".join(f"{count} {reason}" for reason, count in out.items() if count)
        members = sum(stocks.members for stocks in self.chosen.values())
        small_ones = ", ".join(f"{name} ({count})" for name, count in small.items())
        largest = max(len(codes) for stocks in self.chosen.values() for codes in stocks.sectors.values())
        number = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
        first = (
            f"Universe `{self.sectors.universe}`, members of the last day of training that have bars. Each year from "
            f"{windows[0].year} to {windows[-1].year} is held after {self.settings.get('train', '?')} years of training; a year has "
            f"{number} sectors of at most {largest} stocks."
        )
        who = (
            f"A stock must have been listed throughout the training and traded on {TRADED:.0%} of its days. Of "
            f"{members} members, counted anew each year, these were left out: {reasons or 'none'}."
        )
        if small:
            who += f" Sectors with too few stocks, and in how many years: {small_ones}."
        account = (
            f"An account of {self.account:,.0f} for each sector, method and year begins in cash and buys on the first day of the year "
            f"through the simulated exchange, by the rules `{self.rules}` with their costs; what cannot be bought that day is left in "
            "cash, and a stock that stops trading stays at its last price. The purchase is paid for, the sale at the end is not: "
            "*turnover* is the traded value of the year over the account, *switch* what a change from last year's holdings would trade."
        )
        risk = "Covariance and means are those of the daily returns of training, without shrinkage."
        return [first, *self.sectors.notes, who, account, risk]

    def _account(
        self,
        method: Method,
        window: Window,
        codes: Sequence[str],
        exchange: RecordingExchange,
        returns: Floats,
        forecasts: Forecasts | None,
    ) -> tuple[Held, pd.Series]:
        begun = time.process_time()
        calendar = self.sectors.store.calendar
        portfolio = Remembering(**method.of(window.days))
        strategy = TargetWeights(
            signal=self._scores(method, window, codes, forecasts),
            portfolio=portfolio,
            calendar=method.calendar,
        )
        done = simulate(
            strategy,
            exchange,
            calendar[window.begin],
            calendar[window.end],
            account=self.account,
            benchmark=None,
        )
        last = done.held[max(done.held)]
        first = portfolio.decisions[0]
        weights = dict(zip(first.known.codes, first.weights.tolist(), strict=True))
        aimed = np.array([0.0 if first.kept else weights.get(code, 0.0) for code in codes])
        told = {text for decision in portfolio.decisions for text in decision.told}
        held = Held(
            config=method.fingerprint,
            weights={
                code: float(weight) for code, weight in zip(codes, aimed, strict=True) if abs(weight) > SHOWN
            },
            end={code: last.get_stock_weight(code) for code in last.get_stock_list()},
            sample=figures(returns @ aimed, self.per_year),
            turnover=float(done.daily["turnover"].sum()),
            cost=float(done.daily["cost"].sum()),
            seconds=round(time.process_time() - begun, 2),
            told=sorted(told),
        )
        return held, done.daily["return"] - done.daily["cost"]

    def _scores(
        self, method: Method, window: Window, codes: Sequence[str], forecasts: Forecasts | None
    ) -> pd.Series:
        """Scores of the days at whose close weights are made; who has one is a candidate."""
        calendar = self.sectors.store.calendar
        days = month_starts(calendar, window) if method.monthly else [window.last]
        values: Any = 1.0
        if method.forecast:
            if forecasts is None:
                raise ValueError(f"{method.name} needs forecasts")
            values = forecasts.by_year[window.year][days][:, self.sectors.places(codes)]
        table = pd.DataFrame(values, index=calendar[days], columns=[*codes])
        return table.stack().rename_axis(["datetime", "instrument"]).dropna()

    def _kept(self, window: Window, sector: str) -> SectorYear | None:
        """What is kept of a sector and year, if its settings and stocks are these."""
        stub = SectorYear("", window.year, sector, [], [], [], [], {}, pd.DataFrame())
        path = self.runs / f"{stub.name}.json"
        if not path.is_file():
            return None
        found = read(path)
        same = (
            found.settings == self.fingerprint and tuple(found.codes) == self.chosen[window].sectors[sector]
        )
        return found if same else None


def _place(order: Sequence[str], name: str) -> int:
    return order.index(name) if name in order else len(order)
