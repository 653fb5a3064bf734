"""What was traded, what was not and why, and how long stocks were held."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from qlib_ext.report import html
from qlib_ext.report.charts import Bars, Chart, Histogram
from qlib_ext.report.figures import BLUE, ORANGE, QUIET
from qlib_ext.report.money import format_amount
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.tracking.artifacts import RunArtifacts

FILLED = "filled"
LARGEST = 10
UNFILLED = 30  # of the orders that did not fill, on the page
EXPLAINED = {
    "price limit up": "the stock closed at its upper price limit, where nobody sells; a strategy may be set not to sell "
    "there either",
    "price limit down": "the stock closed at its lower price limit, where nobody buys; a strategy may be set not to buy "
    "there either",
    "suspended, no price": "the stock has no price that day",
    "suspended, no volume": "the store has a price and no trade that day: the stock was suspended",
    "volume limit": "the order was more than the share of the day's volume that the settings allow",
    "no cash": "the account could not pay for all of it, or not for a single lot",
    "lot size": "what was to be spent on the stock was less than one lot costs",
    "holding threshold": "the strategy had not held the stock for as long as it must",
    "not held": "more was to be sold than the account held",
    "bought today": "what is bought on a day may be sold from the next one on (T+1)",
}


class Trades(Section):
    """Numbers of orders, why some did not fill, the largest trades, and holding times."""

    title = "Trades"
    place = 110
    answers = "What was ordered, and what did not fill, why?"
    requires = (
        "trades/summary.json",
        "trades/reasons.csv",
        "trades/monthly.csv",
        "trades/holdings.csv",
        "backtest/orders.parquet",
        "backtest/daily.parquet",
    )

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """Why orders did not fill, orders by month, and holding times; each where there is one to show."""
        if not run.json("trades/summary.json")["orders"]:
            return {}
        found: dict[str, Chart] = {}
        reasons = run.table("trades/reasons.csv").reset_index()
        reasons = reasons[reasons["outcome"] != FILLED]
        if len(reasons):
            values = reasons.pivot(index="outcome", columns="direction", values="orders").fillna(0)
            values = values.loc[values.sum(axis=1).sort_values(ascending=False).index]
            directions = {"buy": ("purchases", BLUE), "sell": ("sales", ORANGE)}
            named = [directions[str(direction)] for direction in values.columns]
            found["trades_reasons"] = Bars(
                values=pd.DataFrame(
                    values.to_numpy(), index=[*values.index], columns=[name for name, _ in named]
                ),
                horizontal=True,
                stacked=True,
                colours=tuple(colour for _, colour in named),
                ylabel="orders",
                height=90 + 34 * len(values),
                alt="Orders that did not fill in full by reason",
                caption="Orders that did not fill in full, by reason.",
            )
        monthly = run.table("trades/monthly.csv")
        shown_states = monthly.loc[:, monthly.sum() > 0]
        states = {"filled": BLUE, "partly": QUIET, "not filled": ORANGE}
        found["trades_monthly"] = Bars(
            values=shown_states.rename(columns={"partly": "filled in part"}),
            stacked=True,
            colours=tuple(states[str(name)] for name in shown_states.columns),
            ylabel="orders",
            height=260,
            alt="Orders by month and whether they filled",
            caption="Orders by month.",
        )
        holdings = run.table("trades/holdings.csv")
        finished = holdings.loc[holdings["finished"], "days_held"]
        if len(finished):
            found["trades_holding_days"] = Histogram(
                samples={"holdings": finished.to_numpy(dtype=float)},
                bins=min(60, int(finished.max())),
                marks={"mean": float(finished.mean()), "median": float(finished.median())},
                xlabel="trading days held",
                ylabel="holdings",
                height=260,
                alt="How many trading days stocks were held",
                caption="Trading days at whose close a stock was held, for every holding that was sold before the end.",
            )
        return found

    def render(self, run: RunArtifacts) -> str:
        """Figures, charts, reasons, the largest trades and the orders that did not fill."""
        summary = run.json("trades/summary.json")
        if not summary["orders"]:
            return html.paragraph(
                f"In {html.count(summary['days'])} trading days the strategy wanted to trade nothing: there is no order "
                "to show. With scores on these days, look at the settings of the strategy."
            )
        drawn = "".join(shown(name, chart) for name, chart in self.charts(run).items())
        orders = run.table("backtest/orders.parquet").reset_index()
        unfilled = orders[orders["status"] != FILLED]
        parts = [_large(summary), html.beside(drawn), _reasons(run), _largest(orders, run)]
        if len(unfilled):
            parts.append(_not_filled(unfilled))
        else:
            parts.append(html.paragraph("Every order filled in full."))
        parts.append(
            html.paragraph(
                "Every order is in the run's artifacts backtest/orders.csv and backtest/orders.parquet, every holding by day "
                "in backtest/positions.csv and .parquet, and from purchase to sale in trades/holdings.csv. Prices and "
                "shares there are adjusted for splits and dividends; columns lots and lots_filled count real lots where "
                "the store has factors.",
                "note",
            )
        )
        return "".join(parts)


def _large(summary: Mapping[str, Any]) -> str:
    orders = summary["orders"]
    short = summary["not_filled"] + summary["partly"]
    held = summary["holding_days"]
    shown_figures = [
        ("Orders", html.count(orders), f"{orders / summary['days']:.1f} a day"),
        ("Filled in full", html.percent(summary["filled"] / orders, 1), f"{html.count(short)} did not"),
        (
            "Filled value over wanted",
            html.percent(_or_nan(summary["fill_rate"]), 1),
            f"{format_amount(summary['value'])} traded",
        ),
        (
            "Mean holding time",
            html.NONE if held is None else f"{held:.1f} days",
            "no holding was sold" if held is None else f"median {summary['median_holding_days']:.0f}",
        ),
    ]
    return html.large_figures(shown_figures)


def _reasons(run: RunArtifacts) -> str:
    table = run.table("trades/reasons.csv").reset_index()
    rows = [
        (
            f"{'Purchases' if row.direction == 'buy' else 'Sales'}, {row.outcome}",
            html.count(row.orders),
            html.count(row.held_back),
            html.count(row.partly),
            format_amount(row.wanted_value),
            format_amount(row.value),
        )
        for row in table.itertuples()
    ]
    header = ["What became of them", "Orders", "Held back", "In part", "Wanted value", "Filled value"]
    met = [f"{reason}: {EXPLAINED[reason]}" for reason in EXPLAINED if reason in {*table["outcome"]}]
    told = (
        html.paragraph("Why orders did not fill:", "note") + html.items(f"{line}." for line in met)
        if met
        else ""
    )
    return (
        html.heading("Orders by what became of them")
        + html.table(header, rows, numbers=[1, 2, 3, 4, 5])
        + html.paragraph(
            "Values are in the currency of the store. Rounded down to whole lots counts as filled. Held back: the strategy "
            "knew that the order could not fill and did not send it, or kept to its own holding threshold.",
            "note",
        )
        + told
    )


def _largest(orders: pd.DataFrame, run: RunArtifacts) -> str:
    largest = orders[orders["value"] > 0].nlargest(LARGEST, "value", keep="first")
    if not len(largest):
        return ""
    # the account before the first day is what is left of its end when the day's own result is taken out
    daily = run.table("backtest/daily.parquet")
    before = daily["account"] / (1 + daily["return"] - daily["cost"])
    rows = [
        (
            f"{row.datetime:%Y-%m-%d}",
            row.instrument,
            row.direction,
            format_amount(row.value),
            html.percent(row.value / before[row.datetime], 1),
            format_amount(row.cost),
            html.number(row.price / row.factor if row.factor > 0 else row.price, 2),
        )
        for row in largest.itertuples()
    ]
    header = ["Day", "Stock", "Direction", "Value", "Share of the account", "Cost", "Price"]
    return (
        html.heading("The largest trades")
        + html.table(header, rows, numbers=[3, 4, 5, 6])
        + html.paragraph(
            "The price is unadjusted where the store has factors. The share is of the account of the day before.",
            "note",
        )
    )


def _not_filled(unfilled: pd.DataFrame) -> str:
    first = unfilled.head(UNFILLED)
    rows = [
        (
            f"{row.datetime:%Y-%m-%d}",
            row.instrument,
            row.direction,
            format_amount(row.wanted_value),
            format_amount(row.value) if row.value > 0 else html.NONE,
            row.reason,
            "sent" if row.sent else "held back",
        )
        for row in first.itertuples()
    ]
    header = ["Day", "Stock", "Direction", "Wanted value", "Filled value", "Reason", ""]
    which = (
        "All orders that did not fill in full"
        if len(first) == len(unfilled)
        else f"The first {len(first)} of {html.count(len(unfilled))} orders that did not fill in full"
    )
    return html.details(which, html.table(header, rows, numbers=[3, 4]))


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
