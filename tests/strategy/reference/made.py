"""Made markets, drawn by hypothesis, and the package's own backtest of them."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import qlib
from hypothesis import strategies as st
from qlib.strategy.base import BaseStrategy

from qlib_ext.market.store import write_store
from qlib_ext.record.simulation import Simulated, make_exchange, simulate
from qlib_ext.strategy.topk_dropout import TopkDropout
from tests.strategy.reference.backtest import Plan
from tests.strategy.reference.market import MISSING, Bar, Market

INDEX = "SH000300"  # always there, always moving: the benchmark, and where the unit of `change` is read off
CODES = ["SH600000", "SH600001", "SZ000002", "SH600003", "SZ000004", "SH600005", "SH600006"]
MOVES = [0.0, 0.011, -0.013, 0.04, -0.06, 0.08, -0.0905]
UP, DOWN = 0.1, -0.1


def single(number: float) -> float:
    """As a store keeps it: in single precision."""
    return float(np.float32(number))


@st.composite
def bars(draw: st.DrawFn, days: int) -> list[Bar]:
    """A stock from its listing to its delisting.

    On most days it moves a little; on some it stands at a limit, has no bar at all, has one with the close of the day
    before and no volume, lacks a field, or is split.
    """
    listed = draw(st.sampled_from([0, 0, 0, 0, 1, 2, days // 2, days]))
    delisted = draw(st.sampled_from([days, days, days, days - 1, days // 2 + 1]))
    close = draw(st.sampled_from([10.0, 2.5, 97.3, 1450.0]))
    factor = draw(st.sampled_from([1.0, 1.0, 3.7, 0.25]))
    kinds = ["move"] * 9 + ["up", "down", "up", "down", "gone", "still", "split", "gap", "gone", "still"]
    row = [Bar()] * min(listed, days)
    for _ in range(listed, min(delisted, days)):
        kind = draw(st.sampled_from(kinds))
        move = {"up": UP, "down": DOWN}.get(kind)
        if move is None:
            move = 0.0 if kind in {"gone", "still"} else draw(st.sampled_from(MOVES))
        close *= 1 + move
        if kind == "split":
            factor *= draw(st.sampled_from([2.0, 1.3, 0.5]))
        bar = Bar(single(close * factor), single(move), single(factor), 0.0 if kind == "still" else 1e6)
        if kind == "gone":
            bar = Bar()
        if kind == "gap":
            lacks = draw(st.sampled_from(["change", "volume", "close"]))
            bar = Bar(**{**vars(bar), lacks: MISSING})
        row.append(bar)
    return (row + [Bar()] * days)[:days]


@st.composite
def markets(draw: st.DrawFn, codes: list[str] = CODES) -> Market:
    """One to seven stocks on three to twelve days, with few scores and many ties."""
    days = draw(st.integers(4, 12))
    names = codes[: draw(st.integers(1, len(codes)))]
    first = draw(st.sampled_from([dt.date(2019, 12, 30), dt.date(2020, 8, 19), dt.date(2023, 8, 23)]))
    dates = [day.date() for day in pd.bdate_range(first, periods=days)]
    score = st.sampled_from([*[float(n) for n in range(6)] * 3, None, MISSING])
    silent = draw(st.sampled_from([days, days, days, days // 2]))  # a day without any score
    scores: dict[str, list[float | None]] = {
        code: [None if day == silent else draw(score) for day in range(days)] for code in names
    }
    rows = {code: draw(bars(days)) for code in names}
    if draw(st.sampled_from([False] * 9 + [True])):  # a store without the factor of a day
        rows = {code: [Bar(b.close, b.change, MISSING, b.volume) for b in row] for code, row in rows.items()}
    return Market(dates, rows, scores)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any settings, the edges among them: one place, no replacement, all replaced."""
    topk = draw(st.sampled_from([1, 2, 2, 3, 3, 4, 9]))
    return Plan(
        topk=topk,
        n_drop=draw(st.sampled_from([0, 1, topk, min(2, topk)])),
        hold_thresh=draw(st.sampled_from([1, 1, 1, 2, 4])),
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
    qlib.init(provider_uri=str(root), region="cn", kernels=1)


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
) -> Simulated:
    """The backtest of a workflow on the market that is installed."""
    days = timestamps(market)
    exchange, _ = make_exchange([*market.bars, INDEX], days[1], days[-2], settings)
    return simulate(
        strategy(market, plan, kind), exchange, days[1], days[-2], account=plan.account, benchmark=INDEX
    )


def close_to(one: float, other: float, account: float) -> bool:
    """Equal to 1e-9 of themselves, or to 1e-14 of the account's first cash: what doubles leave of a difference."""
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-14 * account)
