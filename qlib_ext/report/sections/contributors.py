"""Which stocks made the return, and which cost it."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from qlib_ext.report import html
from qlib_ext.report.charts import Bars, Chart
from qlib_ext.report.figures import BLUE
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.tracking.artifacts import RunArtifacts

EACH = 10  # best, and worst


class Contributors(Section):
    """The stocks that added most to the return, and those that took most from it."""

    title = "Contributors"
    place = 90
    answers = "Which stocks made the return?"
    requires = ("portfolio/contributions.csv", "portfolio/setup.json")

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """Bars of the best and the worst; none where nothing was held."""
        table = run.table("portfolio/contributions.csv")
        chosen = _chosen(table)
        if chosen.empty:
            return {}
        return {
            "contributors": Bars(
                values=chosen[["contribution"]],
                horizontal=True,
                percent=True,
                colours=(BLUE,),
                ylabel="added to the return before cost",
                alt="Contribution of the best and of the worst stocks",
                caption="What each of these stocks added to the portfolio's return over the whole time, in percentage points, "
                "before cost.",
            )
        }

    def render(self, run: RunArtifacts) -> str:
        """How many gained, the chart, the tables, and how the parts add up."""
        table, setup = run.table("portfolio/contributions.csv"), run.json("portfolio/setup.json")
        if table.empty:
            return html.paragraph("The account never held a stock.")
        added = table["contribution"]
        best = added.iloc[:EACH][added.iloc[:EACH] > 0].sum()
        said = html.paragraph(
            f"{len(table)} stocks were held at some time; {(added > 0).sum()} of them added to the return and "
            f"{(added < 0).sum()} took from it. The return before cost was "
            f"{html.percent(setup['return_before_cost'], signed=True)}; the {min(EACH, len(table))} best stocks made "
            f"{html.points(best)} of it."
        )
        charts = "".join(shown(name, chart) for name, chart in self.charts(run).items())
        return said + charts + _table(_chosen(table)) + html.paragraph(_how(setup["trading"]), "note")


def _chosen(table: pd.DataFrame) -> pd.DataFrame:
    """The best and the worst, each stock once; `table` has the highest first."""
    if len(table) <= 2 * EACH:
        return table
    return pd.concat([table.iloc[:EACH], table.iloc[-EACH:]])


def _table(chosen: pd.DataFrame) -> str:
    industry = "industry" in chosen
    rows = [
        (
            code,
            *([row["industry"]] if industry else []),
            html.points(row["contribution"]),
            html.percent(row["return_held"], signed=True),
            html.percent(row["average_weight"]),
            html.count(row["days_held"]),
            row["first_held"],
            row["last_held"],
        )
        for code, row in chosen.iterrows()
    ]
    names = ["Contribution", "Return while held", "Mean weight", "Days held", "First", "Last"]
    header = ["Stock", *(["Industry"] if industry else []), *names]
    start = 2 if industry else 1
    return html.table(header, rows, numbers=range(start, start + 4))


def _how(trading: float) -> str:
    rest = (
        "Trades fill at the close at which the day is valued, so nothing else adds to it: all contributions together are the "
        "return before cost."
        if abs(trading) < 1e-6
        else f"What was won or lost between the price of a trade and that day's close is nobody's: {html.points(trading)} in "
        "all. With it the contributions add up to the return before cost."
    )
    return (
        "A stock's part in a day is its weight at the close before times its return of the day. So that the parts add up to a "
        "compounded return, each is multiplied by what the portfolio had made of 1 until then, and summed over days. "
        f"{rest} A point (pp) is 1% of the account at the start."
    )
