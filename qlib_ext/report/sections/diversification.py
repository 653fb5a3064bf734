"""How alike the stocks held are, and where the chosen portfolio lies beside the efficient frontier."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from qlib_ext.report import html
from qlib_ext.report.charts import Bars, Chart, Heatmap, Points
from qlib_ext.report.figures import BLUE, GREEN, INK, ORANGE, PURPLE, QUIET
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.tracking.artifacts import RunArtifacts

FACTS, FRONTIER = "construction/together.csv", "construction/frontier.csv"
TABLES = tuple(f"construction/{name}.parquet" for name in ("correlations", "components", "loadings"))
FREE, LIMITED = "frontier without limits", "frontier within limits"
COLOURS = {
    FREE: QUIET,
    LIMITED: BLUE,
    "chosen": ORANGE,
    "least risk": GREEN,
    "equal weight": PURPLE,
    "benchmark": INK,
}


class Diversification(Section):
    """Correlations in the order of clusters, principal components, and the efficient frontier of the newest decision."""

    title = "Diversification and frontier"
    place = 76
    answers = "How alike are its stocks, and was there a better portfolio?"
    requires = (FACTS, *TABLES, "construction/setup.json")
    optional = (FRONTIER,)

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """The frontier; of each day that was looked at, correlations and components, the newest first."""
        charts: dict[str, Chart] = {}
        if run.has(FRONTIER) and run.table(FRONTIER)["expected"].notna().any():
            charts["efficient_frontier"] = _frontier(run.table(FRONTIER))
        correlations, components, loadings = (run.table(path) for path in TABLES)
        days = run.json("construction/setup.json")["look_back_days"]
        for day in components.index.get_level_values("datetime").unique():
            charts[f"correlations_{day:%Y}"] = _correlations(
                correlations.loc[day], loadings.loc[day].index, day, days
            )
            charts[f"components_{day:%Y}"] = _components(components.loc[day], day)
            charts[f"loadings_{day:%Y}"] = _loadings(loadings.loc[day], day)
        return charts

    def render(self, run: RunArtifacts) -> str:
        """In words, then the newest day; the other years are folded."""
        facts, charts = run.table(FACTS), self.charts(run)
        years = [name.rpartition("_")[2] for name in charts if name.startswith("components_")]

        def of(year: str) -> str:
            return shown(f"correlations_{year}", charts[f"correlations_{year}"]) + html.beside(
                *(shown(f"{name}_{year}", charts[f"{name}_{year}"]) for name in ("components", "loadings"))
            )

        parts = [html.paragraph(_said(facts.iloc[0], str(facts.index[0])[:10])), of(years[0]), _table(facts)]
        parts += [html.details(f"The last rebalancing of {year}", of(year)) for year in years[1:]]
        parts.append(html.heading("Efficient frontier"))
        if run.has(FRONTIER):
            frontier = run.table(FRONTIER)
            parts.append(
                html.paragraph(_beside_it(frontier, run.json("construction/setup.json")["below_frontier"]))
            )
            if "efficient_frontier" in charts:
                parts.append(shown("efficient_frontier", charts["efficient_frontier"]))
            parts.append(_points(frontier))
        else:
            parts.append(
                html.paragraph(
                    "There is none: the weights were not found as one problem, such as where several portfolios are combined."
                )
            )
        return "".join(parts)


def _said(row: pd.Series, day: str) -> str:
    left_out = (
        f" {html.count(row['left_out'])} more are left out for want of returns." if row["left_out"] else ""
    )
    return (
        f"The {html.count(row['stocks'])} stocks of the rebalancing of {day} had a mean correlation of "
        f"{html.number(row['mean_correlation'], 2)} over the {html.count(row['days'])} trading days before: as diverse as "
        f"{html.number(row['effective_stocks'], 1)} that have nothing to do with each other. {html.count(row['above_noise'])} "
        "principal components stand out of a sample's noise, and the portfolio's variance is spread as over "
        f"{html.number(row['effective_bets'], 1)} independent bets of equal size.{left_out}"
    )


def _correlations(pairs: pd.DataFrame, order: pd.Index, day: pd.Timestamp, look_back: int) -> Chart:
    square = pairs["correlation"].unstack("column").loc[order, order]
    return Heatmap(
        values=square.rename_axis(index=None, columns=None),
        digits=2,
        height=520,
        alt=f"Correlations of the stocks held on {day:%Y-%m-%d}",
        caption=f"Correlations of daily returns over {look_back} trading days before the rebalancing of {day:%Y-%m-%d}, stocks "
        "that are alike beside each other (average linkage): blocks along the diagonal move together.",
    )


def _components(table: pd.DataFrame, day: pd.Timestamp) -> Chart:
    values = table.rename(
        columns={"share": "of the stocks' variance", "portfolio": "of the portfolio's variance"}
    )
    values.index = pd.Index([f"component {k}" for k in table.index])
    return Bars(
        values=values,
        percent=True,
        height=280,
        ylabel="share",
        alt=f"Principal components of the stocks held on {day:%Y-%m-%d}",
        caption="Share of each principal component in the variance of all stocks, each counting the same, and in that of the "
        f"portfolio of {day:%Y-%m-%d}. Components do not move together.",
    )


def _loadings(table: pd.DataFrame, day: pd.Timestamp) -> Chart:
    values = table.T
    values.index = pd.Index([name.replace("_", " ") for name in values.index])
    return Heatmap(
        values=values.rename_axis(columns=None),
        digits=2,
        height=280,
        alt=f"Loadings of the principal components on {day:%Y-%m-%d}",
        caption="How much of each stock is in the first components, in the order of the correlations. The first is most often the "
        "market, and has the same sign everywhere.",
    )


def _table(facts: pd.DataFrame) -> str:
    rows = [
        (
            str(day)[:10],
            html.count(row["stocks"]),
            html.number(row["mean_correlation"], 2),
            html.number(row["effective_stocks"], 1),
            html.count(row["above_noise"]),
            html.number(row["effective_bets"], 1),
        )
        for day, row in facts.iterrows()
    ]
    header = [
        "Rebalancing",
        "Stocks",
        "Mean correlation",
        "Effective stocks",
        "Components above noise",
        "Effective bets",
    ]
    return html.table(header, rows, numbers=range(1, 6))


def _frontier(points: pd.DataFrame) -> Chart:
    places = points[["volatility", "expected"]].set_axis(["x", "y"], axis=1)
    series = {
        str(kind): group.reset_index(drop=True) for kind, group in places.groupby(places.index, sort=False)
    }
    for kind in (FREE, LIMITED):
        if kind in series:
            series["least risk"] = series[kind].iloc[:1]
    return Points(
        series=series,
        joined=True,
        percent=True,
        colours=tuple(COLOURS[name] for name in series),
        xlabel="forecast volatility a year",
        ylabel="expected return a year",
        height=380,
        alt="Efficient frontier of the newest decision, with the chosen portfolio",
        caption="Least forecast volatility for each expected return, on the newest day on which weights were found: within the "
        "limits of that day, turnover from the account included, and without any but that no stock is sold short that may not be.",
    )


def _beside_it(points: pd.DataFrame, below: Mapping[str, float]) -> str:
    chosen = points.loc["chosen"]
    if pd.isna(chosen["expected"]):
        return (
            "The portfolio expects no return of any stock, so that risk alone counts and the frontier is one point: the least "
            f"volatility within the limits is {html.percent(points.loc[points.index == LIMITED, 'volatility'].min(), 1)} a year, "
            f"and the chosen portfolio has {html.percent(chosen['volatility'], 1)}."
        )
    said = (
        f"On the newest day the chosen portfolio expects {html.percent(chosen['expected'], 1, signed=True)} a year at a volatility "
        f"of {html.percent(chosen['volatility'], 1)}."
    )
    if LIMITED in below:
        said += f" At that risk the frontier within the limits expects {html.points(below[LIMITED], 1)} more"
        said += f", and that without limits {html.points(below[FREE], 1)} more." if FREE in below else "."
    return (
        f"{said} Expected returns are the portfolio's own forecasts, and no more certain than these; a portfolio that also looks "
        "at costs or at the benchmark does not mean to lie on this line."
    )


def _points(points: pd.DataFrame) -> str:
    first = points[~points.index.duplicated()].rename(
        index={LIMITED: "least risk within limits", FREE: "least risk without limits"}
    )
    last = points[points.index.isin([LIMITED, FREE])].groupby(level=0, sort=False).tail(1)
    last = last[last["expected"].notna()].rename(
        index={LIMITED: "highest return within limits", FREE: "highest return without limits"}
    )
    table = pd.concat([first, last])
    order = ["chosen", "benchmark", "equal weight"]
    names = [*order, *(name for name in table.index if name not in order)]
    rows = [
        (
            name[0].upper() + name[1:],
            html.percent(row["expected"], 1, signed=True),
            html.percent(row["volatility"], 1),
            html.percent(row["tracking_error"], 1),
            html.count(row["names"]),
        )
        for name in names
        if name in table.index
        for row in [table.loc[name]]
    ]
    return html.table(
        ["Portfolio", "Expected a year", "Volatility", "Tracking error", "Stocks"], rows, numbers=range(1, 5)
    )
