"""Made markets, drawn by hypothesis, and the package's own backtest of them."""

from __future__ import annotations

import datetime as dt
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import qlib
from hypothesis import strategies as st
from qlib.strategy.base import BaseStrategy

from qlib_ext.backtest.simulation import BacktestResult, make_exchange, simulate
from qlib_ext.market.store import write_store
from qlib_ext.strategy.topk_dropout import TopkDropout
from tests.backtest.reference.backtest import Plan
from tests.backtest.reference.market import MISSING, Bar, Market
from tests.backtest.reference.rules import half_up, single

INDEX = "SH000300"  # always there, always moving: the benchmark, and where the unit of `change` is read off
# By turns of the main board, of ChiNext and of the STAR market.
CODES = ["SH600000", "SZ300001", "SH688002", "SZ000003", "SH688004", "SZ300005", "SH600006"]
# Before rules change: ChiNext's limits on 2020-08-24, transfer fees on 2022-04-29, main board on 2023-04-10, stamp duty
# on 2023-08-28, ST stocks of the main board on 2026-07-06.
STARTS = [
    *map(
        dt.date.fromisoformat,
        ("2019-12-30", "2020-08-19", "2022-04-26", "2023-04-05", "2023-08-23", "2026-07-01"),
    )
]
MOVES = [0.0, 0.011, -0.013, 0.04, -0.06, 0.08, -0.0905]
KINDS = [*["move"] * 8, *["limit"] * 5, "gone", "gone", "still", "still", "split", "gap"]


@st.composite
def bars(draw: st.DrawFn, days: int) -> list[Bar]:
    """A stock from its listing to its delisting, at prices of whole hundredths.

    On most days it moves a little; on some it stands at a limit or a hundredth beside it, has no bar at all, has one
    with the close of the day before and no volume, lacks a field, or is split.
    """
    listed = draw(st.sampled_from([0, 0, 0, 0, 1, 2, days // 2, days]))
    delisted = draw(st.sampled_from([days, days, days, days - 1, days // 2 + 1]))
    ticks = draw(st.sampled_from([1000, 250, 9730, 145000]))
    factor = single(draw(st.sampled_from([1.0, 1.0, 3.7, 0.25])))
    row = [Bar()] * min(listed, days)
    for _ in range(listed, min(delisted, days)):
        kind = draw(st.sampled_from(KINDS))
        if kind == "split":
            times = draw(st.sampled_from([2.0, 1.3, 0.5]))
            ticks, factor = max(1, half_up(ticks / times)), single(factor * times)
        before = ticks
        if kind == "limit":
            size = draw(st.sampled_from([0.05, 0.1, 0.1, 0.2])) * draw(st.sampled_from([1, -1]))
            ticks = half_up(ticks * (1 + size)) + draw(st.sampled_from([0, 0, 0, -1, 1]))
        elif kind not in {"gone", "still"}:
            ticks = half_up(ticks * (1 + draw(st.sampled_from(MOVES))))
        ticks = max(1, ticks)
        volume = 0.0 if kind == "still" else 1e6
        bar = Bar(single(ticks / 100 * factor), single(ticks / before - 1), factor, volume)
        if kind == "gone":
            bar = Bar()
        if kind == "gap":
            bar = replace(bar, **{draw(st.sampled_from(["change", "volume", "close"])): MISSING})
        row.append(bar)
    return (row + [Bar()] * days)[:days]


@st.composite
def markets(draw: st.DrawFn) -> Market:
    """One to seven stocks on four to fourteen days, with few scores and many ties."""
    days = draw(st.integers(4, 14))
    names = sorted(draw(st.lists(st.sampled_from(CODES), min_size=1, max_size=len(CODES), unique=True)))
    dates = [day.date() for day in pd.bdate_range(draw(st.sampled_from(STARTS)), periods=days)]
    score = st.sampled_from([*[float(n) for n in range(6)] * 3, None, MISSING])
    silent = draw(st.sampled_from([days, days, days, days // 2]))  # a day without any score
    scores: dict[str, list[float | None]] = {
        code: [None if day == silent else draw(score) for day in range(days)] for code in names
    }
    rows = {code: draw(bars(days)) for code in names}
    if draw(st.sampled_from([False] * 9 + [True])):  # a store without factors
        rows = {code: [replace(bar, factor=MISSING) for bar in row] for code, row in rows.items()}
    special = {code: (days // 3, days - 3) for code in names if draw(st.sampled_from([False, False, True]))}
    return Market(dates, rows, scores, special)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any settings, the edges among them: one place, no replacement, all replaced."""
    topk = draw(st.sampled_from([1, 2, 2, 3, 3, 4, 9]))
    return Plan(
        topk=topk,
        n_drop=draw(st.sampled_from([0, 1, topk, min(2, topk)])),
        hold_thresh=draw(st.sampled_from([1, 1, 2, 3, 4])),
        only_tradable=draw(st.booleans()),
        forbid_all_trade_at_limit=draw(st.booleans()),
        risk_degree=draw(st.sampled_from([0.95, 1.0, 0.5])),
        account=draw(st.sampled_from([3e3, 3e4, 1e6, 1e8])),
    )


def timestamps(market: Market) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(market.days)


def install(market: Market, root: Path, unit: float = 1.0) -> None:
    """Write the market as a store, a rise of 1 as `unit` in its field `change`, and let Qlib read it."""
    rows = {**market.bars, INDEX: _index(len(market.days))}
    fields = {
        name: np.array([[getattr(bar, name) for bar in row] for row in rows.values()]).T
        for name in ("close", "change", "factor", "volume")
    }
    fields["change"] *= unit
    calendar = timestamps(market)
    spells = pd.DataFrame({"instrument": [*rows], "start": calendar[0], "end": calendar[-1]})
    write_store(root, calendar, [*rows], fields, {"csi300": spells})
    special = [(code, calendar[one], calendar[two], "ST") for code, (one, two) in market.special.items()]
    if special:
        (root / "side").mkdir()
        table = pd.DataFrame(special, columns=["instrument", "start", "end", "status"])
        table.to_csv(root / "side" / "status.csv", index=False)
    qlib.init(provider_uri=str(root), region="cn", kernels=1)


@contextmanager
def installed(market: Market, folder: Path) -> Iterator[None]:
    """The market as a store below a folder, which Qlib reads and which is gone afterwards."""
    root = Path(tempfile.mkdtemp(dir=folder))
    try:
        install(market, root)
        yield
    finally:
        shutil.rmtree(root)


def _index(days: int) -> list[Bar]:
    close, row = 1000.0, []
    for day in range(days):
        move = 0.01 if day % 2 else -0.01
        close *= 1 + move
        row.append(Bar(single(close), single(move), 1.0, 1e9))
    return row


def signal(market: Market) -> pd.Series:
    rows = {
        (timestamps(market)[day], code): score
        for code, row in market.scores.items()
        for day, score in enumerate(row)
        if score is not None
    }
    index = pd.MultiIndex.from_tuples(rows, names=["datetime", "instrument"]) if rows else None
    if index is None:
        index = pd.MultiIndex.from_arrays([pd.DatetimeIndex([]), []], names=["datetime", "instrument"])
    return pd.Series([*rows.values()], index=index, dtype="float64", name="score")


def strategy(market: Market, plan: Plan, kind: type[BaseStrategy] = TopkDropout) -> BaseStrategy:
    return kind(
        signal=signal(market),
        topk=plan.topk,
        n_drop=plan.n_drop,
        hold_thresh=plan.hold_thresh,
        only_tradable=plan.only_tradable,
        forbid_all_trade_at_limit=plan.forbid_all_trade_at_limit,
        risk_degree=plan.risk_degree,
    )


def run(
    market: Market, plan: Plan, settings: Mapping[str, Any], kind: type[BaseStrategy] = TopkDropout
) -> BacktestResult:
    """The backtest of a workflow on the market that is installed."""
    days = timestamps(market)
    others = [] if "rules" in settings else [INDEX]  # which is of no board
    exchange, _ = make_exchange([*market.bars, *others], days[1], days[-2], settings)
    return simulate(
        strategy(market, plan, kind), exchange, days[1], days[-2], account=plan.account, benchmark=INDEX
    )


def close_to(one: float, other: float, account: float) -> bool:
    """Equal to 1e-9 of themselves, or to 1e-11 of the account's first cash.

    The second is for what is left of the cash where all of it is spent: a difference of two large numbers, of which the
    exchange keeps back a trillionth, so that it is never negative.
    """
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-11 * account)
