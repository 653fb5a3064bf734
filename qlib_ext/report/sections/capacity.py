"""How large an account the strategy could run before its orders are large beside the market."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from qlib_ext.report import html
from qlib_ext.report.charts import Bars, Chart
from qlib_ext.report.money import format_amount
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.tracking.artifacts import RunArtifacts

GROUPS, TABLE, CURVE = "trades/participation.csv", "trades/capacity.csv", "trades/capacity_curve.csv"


class Capacity(Section):
    """Orders beside what their stocks were traded for, and the account at which they would be too large."""

    title = "Capacity"
    place = 120
    answers = "How large may the account grow before it is the market?"
    requires = ("trades/summary.json", "backtest/setup.json")
    optional = (GROUPS, TABLE, CURVE)

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """Orders by their share of the traded amount, and the share above the limits by account."""
        if not run.has(TABLE):
            return {}
        groups = run.table(GROUPS)
        groups = groups[(groups.index != "not known") | (groups["orders"] > 0)]
        values = pd.DataFrame(
            {
                "of the orders": groups["orders"] / groups["orders"].sum(),
                "of their value": groups["share_of_value"],
            }
        )
        curve = _interesting(run.table(CURVE))
        curve.index = pd.Index([format_amount(account) for account in curve.index])
        curve.columns = pd.Index([f"above {_percent(limit)} of the traded amount" for limit in curve.columns])
        return {
            "capacity_participation": Bars(
                values=values.rename_axis(index=None),
                percent=True,
                xlabel="order as a share of what its stock was traded for that day",
                height=260,
                alt="Orders by their share of the traded amount",
                caption="Orders that filled, by their value over the money that their stock was traded for that day, with "
                "the account of the backtest.",
            ),
            "capacity_curve": Bars(
                values=curve,
                percent=True,
                xlabel="account",
                ylabel="share of the orders' value",
                height=280,
                alt="Share of the orders' value above the limits, by size of the account",
                caption="Share of the orders' value that would be more than so much of what its stock was traded for that "
                "day, if the account were of that size on every day.",
            ),
        }

    def render(self, run: RunArtifacts) -> str:
        """The paragraph that explains it, both charts, and the table of account sizes."""
        known = run.json("trades/summary.json")["traded_amount"]
        if not run.has(TABLE):
            return html.paragraph(
                f"How large the orders were beside the market's own trading is not known: {known['said']}."
            )
        account = run.json("backtest/setup.json")["account"]
        table = run.table(TABLE).reset_index()
        shares = [*dict.fromkeys(table["share"])]
        rows = []
        for limit, group in table.groupby("limit", sort=True):
            sizes = group.set_index("share")["account"]
            rows.append(
                (
                    f"{_percent(limit)} of the traded amount",
                    *(format_amount(sizes[share]) for share in shares),
                )
            )
        header = ["Limit", *(f"{_percent(share)} of the value above it" for share in shares)]
        drawn = "".join(shown(name, chart) for name, chart in self.charts(run).items())
        left_out = known["orders_without"]
        how = [f"The traded amount is {known['formula']} of the store's bars"]
        if known["sure"]:
            how.append(known["said"])
        if left_out:
            how.append(f"of {html.count(left_out)} orders it is not known, and they are left out")
        explained = (
            f"The backtest began with {format_amount(account)}. It fills every order at the price of the day, however large. A real "
            "order that is a good part of what its stock is traded for moves the price against itself, so returns do not "
            "carry over to an account of any size. Below, every order keeps its share of the account. The table gives the "
            "account at which so much of the orders' value is above a limit: in a larger one it is more. Up to 5% of a day's "
            "trading is often taken as easy to trade, above 10% as hard."
        )
        assumed = html.box(
            "The unit of the traded amount is assumed", html.paragraph(_sentence(known["said"]))
        )
        return "".join(
            [
                "" if known["sure"] else assumed,
                html.paragraph(explained),
                html.table(header, rows, numbers=range(1, len(header))),
                html.beside(drawn),
                html.paragraph(_sentence("; ".join(how)), "note"),
            ]
        )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _interesting(curve: pd.DataFrame) -> pd.DataFrame:
    """The accounts between the last at which nothing is above any limit and the first at which all is."""
    none = (curve.max(axis=1) < 0.0005).to_numpy()
    every = (curve.min(axis=1) > 0.9995).to_numpy()
    first = max(0, int(none.sum()) - 1)
    last = len(curve) - max(0, int(every.sum()) - 1)
    return curve.iloc[first:last].copy()


def _percent(share: float | str) -> str:
    return f"{100 * float(share):g}%"
