"""Trades, capacity and other numbers of stocks, on what the records make of made-up orders."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qlib_ext.records import trades as made_of
from qlib_ext.records.sweeps import COLUMNS
from qlib_ext.records.trades import TradesRecord
from qlib_ext.report import figures, interactive
from qlib_ext.report.money import format_amount
from qlib_ext.report.sections.base import Section
from qlib_ext.report.sections.capacity import Capacity
from qlib_ext.report.sections.sweeps import Sweeps
from qlib_ext.report.sections.trades import UNFILLED, Trades
from qlib_ext.report.sections.training import Training
from qlib_ext.tracking.artifacts import RunArtifacts

CODES = ["SH600000", "SZ000001", "<script>alert(1)</script>"]
REASONS = ["price limit up", "price limit down", "suspended, no volume", "no cash", "lot size"]


def orders(run: Any, count: int) -> pd.DataFrame:
    draw = np.random.default_rng(4)
    days = run.days[np.sort(draw.integers(0, len(run.days), count))]
    failed = draw.random(count) < 0.3
    status = np.where(failed, np.where(draw.random(count) < 0.2, "partly", "not filled"), "filled")
    wanted = draw.lognormal(13, 1, count)
    value = wanted * np.select([status == "filled", status == "partly"], [1.0, 0.4], 0.0)
    reason = np.where(failed, draw.choice(REASONS, count), None)
    table = pd.DataFrame(
        {
            "datetime": days,
            "instrument": draw.choice(CODES, count),
            "direction": draw.choice(["buy", "sell"], count),
            "sent": ~failed | (draw.random(count) < 0.5) | (value > 0),
            "status": status,
            "reason": reason,
            "filled": value / 10,
            "factor": 1.0,
            "price": 10.0,
            "wanted_value": wanted,
            "value": value,
            "cost": 0.001 * value,
        }
    )
    return table.set_index(["datetime", "instrument"])


class Made:
    """A made-up run with orders, as the records leave them."""

    def __init__(self, run: Any, count: int = 900, known: bool = True, sure: bool = True):
        self.run, self.orders = run, orders(run, count)
        daily = pd.read_parquet(run.root / "backtest" / "daily.parquet")
        there = np.random.default_rng(1).random((len(run.days), len(CODES))) < 0.8
        wide = pd.DataFrame(np.where(there, 1e6, np.nan), index=run.days, columns=CODES)
        positions = (
            wide.rename_axis(index="datetime", columns="instrument").stack().rename("value").to_frame()
        )
        positions = positions if count else positions.iloc[:0]
        holdings = made_of.holding_periods(positions, run.days)
        told: dict[str, Any] = {"known": known and count > 0, "said": "no order filled"}
        run.put("backtest/orders.parquet", self.orders)
        run.put("trades/reasons.csv", made_of.by_reason(self.orders))
        run.put("trades/monthly.csv", made_of.by_month(self.orders))
        run.put("trades/holdings.csv", holdings)
        if told["known"]:
            money = pd.Series(1e8, index=self.orders.index)
            sized = made_of.beside_market(self.orders, money, daily["account"].shift(fill_value=1e8))
            record = TradesRecord(None)
            self.capacity = record._capacity(sized)
            run.put("trades/participation.csv", made_of.in_groups(sized))
            run.put("trades/capacity.csv", self.capacity)
            run.put("trades/capacity_curve.csv", record._curve(sized))
            told |= {"sure": sure, "formula": "amount", "said": "amounts count 1", "orders_without": 0}
        summary = made_of.totals(self.orders, holdings, len(run.days)) | {"traded_amount": told}
        clean = {
            key: None if isinstance(value, float) and np.isnan(value) else value
            for key, value in summary.items()
        }
        run.put("trades/summary.json", json.dumps(clean))
        self.summary = clean

    def view(self) -> RunArtifacts:
        return self.run.view()


def plain(page: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", " ", page))


def drawable(section: Section, run: RunArtifacts) -> None:
    """Both renderers draw every chart of a section."""
    for name, chart in section.charts(run).items():
        interactive.fragment(name, chart)
        figures.to_png(figures.drawn(chart))


@pytest.fixture
def made(make: Callable[..., Any]) -> Made:
    return Made(make(days=250, epochs=3))


class TestTrades:
    def test_figures_are_the_artifacts(self, made: Made) -> None:
        page, summary = plain(Trades().render(made.view())), made.summary
        assert f"{summary['orders']:,}" in page
        assert f"{100 * summary['filled'] / summary['orders']:.1f}%" in page
        assert f"{summary['holding_days']:.1f} days" in page
        chart = Trades().charts(made.view())["trades_reasons"]
        failed = made.orders[made.orders["status"] != "filled"]
        assert chart.values.to_numpy().sum() == len(failed)
        counts = failed.groupby("reason").size()
        assert chart.values.sum(axis=1).to_dict() == counts.to_dict()
        monthly = Trades().charts(made.view())["trades_monthly"].values
        assert monthly.to_numpy().sum() == len(made.orders)

    def test_the_largest_trades_and_the_first_unfilled(self, made: Made) -> None:
        page = plain(Trades().render(made.view()))
        assert format_amount(made.orders["value"].max()) in page
        failed = (made.orders["status"] != "filled").sum()
        assert f"The first {UNFILLED} of {failed} orders that did not fill in full" in page
        assert "backtest/orders.csv" in page
        assert "price limit up: the stock closed at its upper price limit" in page
        assert "holding threshold:" not in page  # no order failed by it

    def test_names_stay_text(self, made: Made) -> None:
        assert "<script>alert" not in Trades().render(made.view())

    def test_without_an_order_it_says_so(self, make: Callable[..., Any]) -> None:
        run = Made(make(days=5, epochs=1), count=0).view()
        assert "the strategy wanted to trade nothing" in Trades().render(run)
        assert Trades().charts(run) == {}

    def test_when_all_fill_there_is_no_reason(self, make: Callable[..., Any]) -> None:
        base = make(days=5, epochs=1)
        made = Made(base, count=20)
        filled = made.orders[made.orders["status"] == "filled"]
        base.put("backtest/orders.parquet", filled)
        base.put("trades/reasons.csv", made_of.by_reason(filled))
        page = Trades().render(made.view())
        assert "Every order filled in full." in page
        assert "trades_reasons" not in Trades().charts(made.view())

    @pytest.mark.parametrize("days", [3, 1000])
    def test_short_and_long_runs_are_drawn(self, make: Callable[..., Any], days: int) -> None:
        run = Made(make(days=days, epochs=1), count=3 * days).view()
        drawable(Trades(), run)
        drawable(Capacity(), run)


class TestCapacity:
    def test_the_table_is_the_artifact(self, made: Made) -> None:
        page = plain(Capacity().render(made.view()))
        for account in made.capacity["account"]:
            assert format_amount(account) in page
        assert "assumed" not in page

    def test_an_assumed_unit_stands_in_a_box(self, make: Callable[..., Any]) -> None:
        page = Capacity().render(Made(make(days=30, epochs=1), sure=False).view())
        assert "The unit of the traded amount is assumed" in page

    def test_what_is_not_known_is_said(self, make: Callable[..., Any]) -> None:
        run = Made(make(days=30, epochs=1), known=False).view()
        assert "is not known" in Capacity().render(run)
        assert Capacity().charts(run) == {}

    def test_the_curve_leaves_out_accounts_that_say_nothing(self, made: Made) -> None:
        curve = Capacity().charts(made.view())["capacity_curve"].values
        assert (curve.to_numpy() > 0).any()
        assert ((curve < 0.0005).all(axis=1)).sum() <= 1
        assert ((curve > 0.9995).all(axis=1)).sum() <= 1


class TestSweeps:
    @pytest.fixture
    def swept(self, make: Callable[..., Any]) -> Any:
        run = make(days=60, epochs=1)
        draw = np.random.default_rng(3)
        table = pd.DataFrame(
            draw.random((3, len(COLUMNS))), columns=[*COLUMNS], index=pd.Index([10, 30, 50], name="topk")
        )
        table["annualised_excess_return"] = [-0.021, 0.034, 0.012]
        run.put(
            "sweeps/topk.csv",
            table.assign(n_drop=[1, 3, 5], own=[False, False, True], stocks=1.0, unfilled=0.1),
        )
        net = pd.DataFrame(
            draw.normal(0, 0.01, (60, 4)), index=run.days, columns=["10", "30", "50", "benchmark"]
        )
        wealth = (1 + net).cumprod()
        run.put("sweeps/topk_wealth.parquet", wealth[["10", "30", "50"]].div(wealth["benchmark"], axis=0))
        told = {"topk": [10, 30, 50], "left_out": [100], "n_drop_share": 0.1, "stocks_a_day": 58}
        run.put("sweeps/setup.json", json.dumps(told))
        return run.view(), net

    def test_rows_and_lines(self, swept: Any) -> None:
        run, net = swept
        page = plain(Sweeps().render(run))
        assert "50 (this run)" in page
        assert "100 were left out: on a usual day 58 stocks are scored" in page
        assert "runs from −2.1% to +3.4% and is above zero for 2 of 3" in page
        lines = Sweeps().charts(run)["sweep_excess"].series
        relative = (1 + net["10"]).prod() / (1 + net["benchmark"]).prod() - 1
        assert lines["10"].iloc[-1] == pytest.approx(relative)
        drawable(Sweeps(), run)


class TestTraining:
    def test_learning_rate_time_and_phases(self, make: Callable[..., Any]) -> None:
        run = make(days=5, epochs=6)
        history = run.view().table("training/history.parquet")
        history["phase"], history["learning_rate"] = [0, 0, 0, 1, 1, 1], [0.1, 0.1, 0.01, 0.1, 0.1, 0.1]
        run.put("training/history.parquet", history)
        charts = {chart.ylabel: chart for chart in Training().charts(run.view()).values()}
        np.testing.assert_array_equal(
            charts["Learning rate"].series["learning rate"], history["learning_rate"]
        )
        np.testing.assert_array_equal(charts["Seconds an epoch"].series["train"], history["seconds/train"])
        assert charts["Learning rate"].marks["phase 1 begins"] == 3
        drawable(Training(), run.view())

    def test_the_kept_epoch_stands_beside_first_and_last(self, make: Callable[..., Any]) -> None:
        run = make(days=5, epochs=30).view()
        history = run.table("training/history.parquet")
        best = history.loc[history["best"], "epoch"].iloc[-1]
        page = plain(Training().render(run))
        assert f"Kept ({best})" in page
        assert f"{history['valid/loss/score'].iloc[best]:.4f}" in page


class TestMoney:
    @pytest.mark.parametrize(
        ("amount", "said"),
        [
            (146_096_912.3, "146 million"),
            (1.4609e9, "1.46 billion"),
            (77_920_000, "77.9 million"),
            (1e12, "1 trillion"),
            (30e6, "30 million"),
            (12_500, "12,500"),
            (999_600, "1 million"),
            (5, "5.00"),
            (0, "0"),
            (float("nan"), "–"),
            (float("inf"), "unlimited"),
        ],
    )
    def test_in_words(self, amount: float, said: str) -> None:
        assert format_amount(amount) == said
