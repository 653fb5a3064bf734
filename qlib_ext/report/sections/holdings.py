"""What the account held: how many stocks, how concentrated, in which industries."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from qlib_ext.report import html
from qlib_ext.report.charts import Bars, Chart, Lines
from qlib_ext.report.figures import COLOURS, MORE_COLOURS
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.tracking.artifacts import RunArtifacts

LARGEST = 10  # industries with a line of their own; the rest are one
REST = "all others"
FAINT = "#d5d9de"  # theirs


class Holdings(Section):
    """Number of stocks, concentration and cash over time, and the weights of industries where the store has them."""

    title = "Holdings"
    place = 80
    answers = "How many stocks, how concentrated, which industries?"
    requires = ("portfolio/holdings.parquet", "portfolio/setup.json")
    optional = ("portfolio/industries.parquet", "portfolio/industries.csv")

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """Number, concentration, and industries."""
        held = run.table("portfolio/holdings.parquet")
        charts: dict[str, Chart] = {
            "stocks_held": Lines(
                series={"stocks held": held["stocks"], "effective number": held["effective_stocks"]},
                ylabel="stocks",
                height=220,
                alt="Number of stocks held, and effective number",
                caption="Stocks in the account at the close. The effective number is 1 over the sum of squared weights: as "
                "many equal weights would be as concentrated.",
            ),
            "concentration": Lines(
                series={
                    "largest 5": held["top_5"],
                    "largest 10": held["top_10"],
                    "cash": held["cash"],
                },
                percent=True,
                ylabel="share",
                height=220,
                alt="Share of the largest holdings, and of cash",
                caption="Share of the largest stocks in the value of all stocks held, and of cash in the account.",
            ),
        }
        if run.has("portfolio/industries.parquet"):
            by_day, overall = run.table("portfolio/industries.parquet"), run.table("portfolio/industries.csv")
            weights = by_day["weight"].unstack("industry").dropna(how="all")
            if not weights.empty:
                charts["industry_weights"] = _over_time(weights, overall)
                charts["industry_tilts"] = _beside(overall)
        return charts

    def render(self, run: RunArtifacts) -> str:
        """A sentence, the charts, and the table of industries."""
        held, setup = run.table("portfolio/holdings.parquet"), run.json("portfolio/setup.json")
        if not held["stocks"].any():
            return html.paragraph("The account never held a stock.")
        said = html.paragraph(
            f"On a mean day the account held {html.number(held['stocks'].mean(), 1)} stocks, as concentrated as "
            f"{html.number(held['effective_stocks'].mean(), 1)} of equal weight; the largest 10 made up "
            f"{html.percent(held['top_10'].mean(), 1)} of their value, and {html.percent(held['cash'].mean(), 1)} of the "
            "account was cash."
        )
        charts = self.charts(run)
        first = html.beside(*(shown(name, charts[name]) for name in ("stocks_held", "concentration")))
        if "industry_weights" not in charts:
            why = setup["no_industries"] or "no stock was held on any day"
            return said + first + html.heading("Industries") + html.paragraph(_none(why))
        industries = "".join(shown(name, charts[name]) for name in ("industry_weights", "industry_tilts"))
        return (
            said
            + first
            + html.heading("Industries")
            + industries
            + _table(run.table("portfolio/industries.csv"))
        )


def _none(why: str) -> str:
    return f"There are no figures by industry: {why}."


def _over_time(weights: pd.DataFrame, overall: pd.DataFrame) -> Chart:
    largest = [*overall.index[:LARGEST]]
    shares = {name: weights[name] for name in largest}
    if len(overall) > LARGEST:
        shares[REST] = weights.drop(columns=largest).sum(axis=1)
    return Lines(
        series=shares,
        stacked=not (weights < 0).any(axis=None),  # what is held short has no place in a pile
        colours=(*(*COLOURS, *MORE_COLOURS)[: len(largest)], FAINT),
        percent=True,
        ylabel="share of the stocks held",
        height=340,
        alt="Weights of industries over time",
        caption="Share of each industry in the value of all stocks held at the close; the heaviest on average have a colour "
        "of their own.",
    )


def _beside(overall: pd.DataFrame) -> Chart:
    columns = {"portfolio": overall["weight"]}
    if "universe" in overall:
        columns["all scored stocks"] = overall["universe"]
    return Bars(
        values=pd.DataFrame(columns),
        horizontal=True,
        percent=True,
        ylabel="mean share",
        alt="Mean weight of each industry, beside its share of the scored stocks",
        caption="Mean over days of the share of each industry in the value of the stocks held and, beside it, in the number "
        "of stocks that had a score: where the first is longer, the scores favour the industry.",
    )


def _table(overall: pd.DataFrame) -> str:
    there = "universe" in overall
    rows = [
        (
            name,
            html.percent(row["weight"], 1),
            *(
                [html.percent(row["universe"], 1), html.points(row["weight"] - row["universe"], 1)]
                if there
                else []
            ),
            html.points(row["contribution"]),
        )
        for name, row in overall.iterrows()
    ]
    header = [
        "Industry",
        "Mean weight",
        *(["Of all scored stocks", "Difference"] if there else []),
        "Contribution",
    ]
    note = (
        "Contribution: what the stocks of the industry added to the portfolio's return before cost over the whole time, as "
        "explained under the contributors."
    )
    return html.table(header, rows, numbers=range(1, len(header))) + html.paragraph(note, "note")
