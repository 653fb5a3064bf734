"""The orders of `qlib-ext recommend`, a day at a time on a store that grows, and those of the backtest of these days."""

from __future__ import annotations

import functools
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import qlib
from qlib.backtest.decision import Order, OrderDir, TradeDecisionWO
from qlib.strategy.base import BaseStrategy
from typer.testing import CliRunner

from qlib_ext.backtest.simulation import BacktestResult, make_exchange, simulate
from qlib_ext.cli.main import app
from qlib_ext.config.build import build
from qlib_ext.market.store import QlibStore, write_store
from qlib_ext.recommend.orders import last_prices

OVERLAP = (
    10  # days of a file that the store has too: a stock that was suspended on all of them shows no scale
)
SAME = 1e-6  # relative: shares are written with six decimals
# Bars of a store are adjusted, and stay in their units.
AS_IT_IS = ("--adjustment", "adjusted", "--volume", "adjusted", "--change", "fraction")


def cut(whole: QlibStore, root: Path, last: pd.Timestamp) -> QlibStore:
    """Write what a store had on a day."""
    kept = whole.calendar <= last
    codes = whole.instruments()
    fields = sorted({name for code in codes for name in whole.fields(code)})
    bars = dict(zip(fields, whole.read(fields, codes)[:, kept], strict=True))
    members = {name: known_members(whole, name, last) for name in whole.universes() if name != "all"}
    store = write_store(root, whole.calendar[kept], codes, bars, members)
    if (whole.root / "side").is_dir():
        shutil.copytree(whole.root / "side", root / "side")
    return store


def known_members(whole: QlibStore, universe: str, day: pd.Timestamp) -> pd.DataFrame:
    """The spells of a universe as a list of that day has them."""
    spells = whole.membership(universe)
    return spells[spells["start"] <= day].assign(end=lambda known: known["end"].clip(upper=day))


def command(*arguments: object) -> str:
    """Run `qlib-ext` in this process; what it said, or an error."""
    done = CliRunner().invoke(app, [*map(str, arguments)])
    if done.exit_code:
        raise RuntimeError(
            f"qlib-ext {' '.join(map(str, arguments))}: {done.output}{done.exception}"
        ) from done.exception
    return done.output


@dataclass
class GrowingStore:
    """A store to which days are added as a person adds them: bars by `data update`, new members by `data universe`.

    Attributes
    ----------
    whole
        The market with all days.
    root
        The store that grows.
    universe
        Whose new members are brought in.
    rescale
        Code -> number by which the source's prices and factors are multiplied: a vendor who has rescaled his history.
    """

    whole: QlibStore
    root: Path
    universe: str
    rescale: Mapping[str, float] = field(default_factory=dict)

    @functools.cached_property
    def bars(self) -> tuple[list[str], list[str], np.ndarray]:
        """Codes, fields, and the values of all days `[fields, D, S]`."""
        codes = self.whole.instruments()
        fields = sorted({name for code in codes for name in self.whole.fields(code)})
        return codes, fields, self.whole.read(fields, codes)

    def add(self, day: pd.Timestamp) -> None:
        """Add a day, by a file that has some days before it too."""
        calendar = self.whole.calendar
        codes, fields, values = self.bars
        last = calendar.get_loc(day)
        rows = [
            pd.DataFrame(values[:, place].T, columns=fields).assign(code=codes, date=calendar[place])
            for place in range(max(0, last - OVERLAP), last + 1)
        ]
        table = pd.concat(rows).dropna(subset=["close"])
        scale = table["code"].map(self.rescale).fillna(1.0).to_numpy(dtype=np.float32)
        for name in {*fields} & {"open", "high", "low", "close", "vwap", "factor"}:
            table[name] *= scale
        if "volume" in fields:
            table["volume"] /= scale
        source = self.root.with_name("new.parquet")
        table.to_parquet(source, index=False)
        command("data", "update", self.root, source, *AS_IT_IS)
        known = known_members(self.whole, self.universe, day)
        now = {*known.loc[known["end"] >= day, "instrument"]}
        carried = QlibStore(self.root).membership(self.universe)
        if now != {*carried.loc[carried["end"] >= day, "instrument"]}:
            listed = self.root.with_name("members.csv")
            known.set_axis(["code", "from", "to"], axis=1).to_csv(listed, index=False)
            command("data", "universe", self.root, self.universe, "--constituents", listed, "--replace")


@dataclass
class Desk:
    """Somebody who asks for a list each day and keeps the holdings in a file.

    Attributes
    ----------
    store
        That grows.
    run
        As `--run` takes it.
    folder
        Of the files.
    tracking_uri
        Of MLflow.
    remembers
        Whether the strategy is given `--memory`.
    evening
        Whether the list is asked for after the close of the day before as well, with its estimate of the orders.
    listed, estimated
        Day of the trade -> orders on it, and those of the evening before.
    """

    store: GrowingStore
    run: str
    folder: Path
    tracking_uri: str
    remembers: bool = False
    evening: bool = False
    listed: dict[pd.Timestamp, pd.DataFrame] = field(default_factory=dict)
    estimated: dict[pd.Timestamp, pd.DataFrame] = field(default_factory=dict)

    def orders(self, before: pd.Timestamp, day: pd.Timestamp, position: Any) -> list[tuple[str, str, float]]:
        """Code, side and adjusted shares of the orders of a day, from the account at the close of the day before."""
        codes = position.get_stock_list()
        known = last_prices(QlibStore(self.store.root), codes, before)["factor"] if codes else {}
        shares = {code: float(position.get_stock_amount(code) * known[code]) for code in codes}
        rows = [f"{code},{n!r},{position.get_stock_count(code, 'day'):.0f}" for code, n in shares.items()]
        held = self.folder / "holdings.csv"
        held.write_text(
            "\n".join(["code,shares,days_held", *rows, f"CASH,{float(position.get_cash())!r},\n"])
        )
        if self.evening:
            self.estimated[day] = self._ask(held)
        self.store.add(day)
        self.listed[day] = listed = self._ask(held, "--on-the-day")
        sent = listed[listed["side"].isin(["SELL", "BUY"])]
        factor = (
            last_prices(QlibStore(self.store.root), [*sent["instrument"]], day)["factor"] if len(sent) else {}
        )
        found = []
        for row in sent.itertuples():
            code, side, number = str(row.instrument), str(row.side), float(row.shares)
            whole = side == "SELL" and math.isclose(number, shares[code], rel_tol=SAME, abs_tol=2 * SAME)
            found.append((code, side, position.get_stock_amount(code) if whole else number / factor[code]))
        return found

    def _ask(self, held: Path, *more: str) -> pd.DataFrame:
        out = self.folder / "list.csv"
        memory = ("--memory", self.folder / "memory.json") if self.remembers else ()
        asked = ("--run", self.run, "--store", self.store.root, "--tracking-uri", self.tracking_uri)
        command("recommend", *asked, "--current", held, "--out", out, *memory, *more)
        return pd.read_csv(out.with_suffix(".orders.csv"))


class ByList(BaseStrategy):
    """Sends what a desk is told by its lists."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.desk = desk

    def generate_trade_decision(self, execute_result: Any = None) -> TradeDecisionWO:
        """The orders of the step."""
        step = self.trade_calendar.get_trade_step()
        start, end = self.trade_calendar.get_step_time(step)
        before = self.trade_calendar.get_step_time(step, shift=1)[0]
        found = self.desk.orders(before.normalize(), start.normalize(), self.trade_position)
        way = {"BUY": OrderDir.BUY, "SELL": OrderDir.SELL}
        return TradeDecisionWO([Order(code, n, way[side], start, end) for code, side, n in found], self)


@dataclass(frozen=True)
class Traded:
    """What came of some days: the backtest's result, and every order as it was sent: day, code, side and adjusted shares."""

    result: BacktestResult
    sent: pd.DataFrame


def traded(
    make: Callable[[], BaseStrategy],
    whole: QlibStore,
    codes: list[str],
    days: tuple[pd.Timestamp, pd.Timestamp],
    settings: Mapping[str, Any],
    account: float,
) -> Traded:
    """Trade some days of the whole market on the simulated exchange."""
    qlib.init(provider_uri=str(whole.root), region="cn", kernels=1, logging_level=40, clear_mem_cache=True)
    exchange, _ = make_exchange(codes, *days, settings)
    strategy = make()
    rows: list[tuple[pd.Timestamp, str, str, float]] = []
    decide = strategy.generate_trade_decision

    def noted(executed: Any = None) -> TradeDecisionWO:
        decision = decide(executed)
        rows.extend(
            (
                one.start_time.normalize(),
                one.stock_id,
                "BUY" if one.direction == OrderDir.BUY else "SELL",
                one.amount,
            )
            for one in decision.get_decision()
        )
        return decision

    strategy.generate_trade_decision = noted
    result = simulate(strategy, exchange, *days, account=account, benchmark=None)
    return Traded(result, pd.DataFrame(rows, columns=["day", "code", "side", "amount"]))


def backtest(
    strategy: Mapping[str, Any],
    scores: pd.Series,
    whole: QlibStore,
    days: tuple[pd.Timestamp, pd.Timestamp],
    settings: Mapping[str, Any],
    account: float,
) -> Traded:
    """The backtest of some days, of a strategy and the scores of the days before and in them."""
    codes = sorted(scores.index.unique("instrument"))
    return traded(
        lambda: build(strategy, BaseStrategy, name="strategy", signal=scores),
        whole,
        codes,
        days,
        settings,
        account,
    )


def differences(tested: Traded, daily: Traded, desk: Desk) -> list[str]:
    """What the orders of the days differ in from the backtest's, one by one, as sentences; empty where nothing does.

    The orders as they were sent, in their order: code, side and shares. What the exchange made of each: shares and the reason
    why they are fewer. What was held back, and why, as the lists say it. The account at each close.
    """
    found = []
    for day in tested.result.daily.index:
        ours, theirs = (one.sent[one.sent["day"] == day] for one in (daily, tested))
        if [*ours["code"], *ours["side"]] != [*theirs["code"], *theirs["side"]]:
            sides = [
                ", ".join(f"{row.side} {row.code}" for row in one.itertuples()) for one in (theirs, ours)
            ]
            found.append(f"{day:%Y-%m-%d}: the backtest sends {sides[0]}; the list says {sides[1]}")
            continue
        for one, other in zip(theirs.itertuples(), ours.itertuples(), strict=True):
            if not math.isclose(one.amount, other.amount, rel_tol=SAME):
                found.append(f"{day:%Y-%m-%d} {one.side} {one.code}: {one.amount} shares, and {other.amount}")
        books = [one.result.orders for one in (tested, daily)]
        book, own = (
            each[each.index.get_level_values("datetime") == day].droplevel("datetime") for each in books
        )
        sent = book[book["sent"]]
        for code in sent.index:
            one, other = sent.loc[code], own.loc[code]
            reasons = one["reason"], other["reason"]
            if reasons[0] != reasons[1] or not math.isclose(one["filled"], other["filled"], rel_tol=SAME):
                found.append(
                    f"{day:%Y-%m-%d} {code}: filled {one['filled']} ({reasons[0]}), and {other['filled']} ({reasons[1]})"
                )
        why = desk.listed[day].set_index("instrument")["reason"]
        for code, reason in book.loc[~book["sent"], "reason"].items():
            said = why.get(code, "nothing")
            if str(reason) not in said:
                found.append(f"{day:%Y-%m-%d} {code}: not sent ({reason}), and the list says {said}")
        values = [one.result.daily.loc[day, "account"] for one in (tested, daily)]
        if not math.isclose(*values, rel_tol=SAME):
            found.append(f"{day:%Y-%m-%d}: the account is worth {values[0]:,.2f}, and {values[1]:,.2f}")
    return found


def of_the_evening(desk: Desk) -> tuple[int, int]:
    """How many orders the lists of the evening before had, by code and side, of those of the day; and all of them."""
    there = both = 0
    for day, listed in desk.listed.items():
        pairs = [
            {(row.side, row.instrument) for row in table[table["side"].isin(["SELL", "BUY"])].itertuples()}
            for table in (listed, desk.estimated[day])
        ]
        there, both = there + len(pairs[0]), both + len(pairs[0] & pairs[1])
    return both, there
