"""Where the return beyond that of the universe came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.report import headline, html
from qlib_ext.report.charts import Bars, Chart, Lines
from qlib_ext.report.figures import BLUE, COLOURS, GREEN, MORE_COLOURS, ORANGE, QUIET
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.tracking.artifacts import RunArtifacts

CALLED = {"equal_weight": "the universe at equal weight", "value_weight": "the universe by value"}
PARTS = {
    "allocation": "Allocation to industries and cash",
    "selection": "Selection within industries",
    "interaction": "Interaction of both",
    "market": "Market, of which cash is short",
    "styles": "Styles",
    "industries": "Industries",
    "specific": "Selection left over",
    "trading": "Trades away from the close",
    "cost": "Cost",
}
SHORT = {
    "allocation": "Allocation",
    "selection": "Selection",
    "interaction": "Interaction",
    "market": "Market",
    "styles": "Styles",
    "industries": "Industries",
    "specific": "Left over",
    "trading": "Trading",
    "cost": "Cost",
}
VIEWS = {"industry": "By industry", "factor": "By factor"}
MOST = 12  # industries with a bar of their own; the rest are one
REST = "all others"


class Attribution(Section):
    """The difference to the universe by industry and by factor, as waterfalls, over time and as tables."""

    title = "Attribution"
    place = 85
    answers = "Was it industries, known factors or the choice of stocks?"
    requires = (
        "attribution/summary.csv",
        "attribution/cumulative.parquet",
        "attribution/yearly.csv",
        "attribution/industries.csv",
        "attribution/factors.csv",
        "attribution/setup.json",
    )

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """Of each benchmark a waterfall by view, contributions by industry, and those of factors over time."""
        found: dict[str, Chart] = {}
        cumulative, setup = run.table("attribution/cumulative.parquet"), run.json("attribution/setup.json")
        for name in setup["benchmarks"]:
            summary = run.table("attribution/summary.csv").loc[name]
            for view, called in VIEWS.items():
                found[f"attribution_{view}_{name}"] = _waterfall(
                    summary, view, f"{called}, against {CALLED[name]}"
                )
            if not setup["no_industries"]:
                found[f"attribution_industries_{name}"] = _industries(
                    run.table("attribution/industries.csv").loc[[name]], CALLED[name]
                )
            found[f"attribution_over_time_{name}"] = _over_time(cumulative, name, [*setup["unknown"]])
        return found

    def render(self, run: RunArtifacts) -> str:
        """Of each benchmark a sentence, the charts and the tables; then what the exposures are."""
        setup = run.json("attribution/setup.json")
        charts = self.charts(run)
        parts = []
        for name in setup["benchmarks"]:
            summary = run.table("attribution/summary.csv").loc[name]
            parts += [
                html.heading(f"Against {CALLED[name]}"),
                html.paragraph(_said(summary, CALLED[name])),
                html.beside(
                    *(shown(key, charts[key]) for key in (f"attribution_{view}_{name}" for view in VIEWS))
                ),
                _summary(summary),
                *(
                    shown(key, charts[key])
                    for key in (f"attribution_over_time_{name}", f"attribution_industries_{name}")
                    if key in charts
                ),
                html.details("Factors", _factors(run.table("attribution/factors.csv").loc[[name]], setup)),
                html.details(
                    "Industries", _industry_table(run.table("attribution/industries.csv").loc[[name]])
                ),
                html.details("Years", _years(run.table("attribution/yearly.csv").loc[[name]])),
            ]
        return "".join(parts) + html.paragraph(HOW, "note") + _told(setup)


HOW = (
    "Each day's difference is taken apart by the weights and exposures of the close before: by industry after Brinson and Fachler "
    "(allocation is over- and underweights times what the industry earned beyond the benchmark; selection and interaction are "
    "what its stocks earned beyond those of the benchmark), and by factor (active exposure times the factor's return, which is "
    "fitted across the stocks of the day; what no factor explains is the selection left over). Both views are of the same "
    "difference and are not to be added. So that parts add up to the difference of compounded returns, days are linked after "
    "Cariño. The means a year are of days, and so add up to a difference that is not compounded."
)


def _waterfall(summary: pd.DataFrame, view: str, alt: str) -> Chart:
    whole = summary[summary["view"] == "whole"].set_index("part")["contribution"]
    parts = summary[summary["view"] == view].set_index("part")["contribution"]
    ends = whole["benchmark"] + np.concatenate([[0.0], parts.to_numpy().cumsum()])
    rows = ["Benchmark", *(PARTS[name] for name in parts.index), "Portfolio, after cost"]
    table = pd.DataFrame(np.nan, index=rows, columns=["return", "added", "taken"])
    table.loc[rows[0], "return"], table.loc[rows[-1], "return"] = whole["benchmark"], whole["portfolio"]
    table.loc[rows[1:-1], "added"] = parts.where(parts >= 0).to_numpy()
    table.loc[rows[1:-1], "taken"] = parts.where(parts < 0).to_numpy()
    start = pd.DataFrame(0.0, index=rows, columns=table.columns)
    start.loc[rows[1:-1]] = ends[:-1, None]
    return Bars(
        values=table,
        start=start,
        horizontal=True,
        percent=True,
        colours=(QUIET, BLUE, ORANGE),
        ylabel="return over the whole time",
        height=260,
        alt=f"From the benchmark's return to the portfolio's: {alt}",
        caption=f"{alt}: from the benchmark's compounded return to the portfolio's, in the order of the bars.",
    )


def _industries(table: pd.DataFrame, against: str) -> Chart:
    wide = table.set_index("industry")
    order = wide["contribution"].abs().sort_values(ascending=False, kind="stable").index
    kept = wide.loc[order[:MOST]].sort_values("contribution", ascending=False, kind="stable")
    columns = ["allocation", "selection", "interaction"]
    values = kept[columns]
    if len(order) > MOST:
        values = pd.concat([values, wide.loc[order[MOST:], columns].sum().to_frame(REST).T])
    return Bars(
        values=values,
        horizontal=True,
        stacked=True,
        percent=True,
        colours=(BLUE, GREEN, ORANGE),
        ylabel="added over the whole time",
        alt=f"Contribution of industries against {against}",
        caption=f"What each industry added beyond {against}: by its weight (allocation), by the choice of stocks in it "
        "(selection), and by both together (interaction).",
    )


def _over_time(cumulative: pd.DataFrame, name: str, styles: list[str]) -> Chart:
    lines = {PARTS["specific"]: "specific", PARTS["industries"]: "industries", "Cost": "cost"}
    lines |= {style: f"style/{style}" for style in styles if f"{name}/style/{style}" in cumulative}
    lines |= {PARTS["market"]: "market", PARTS["trading"]: "trading"}
    series = {called: cumulative[f"{name}/{part}"] for called, part in lines.items()}
    series = {called: path for called, path in series.items() if path.abs().max() > 1e-6}
    return Lines(
        series=series or {PARTS["specific"]: cumulative[f"{name}/specific"]},
        percent=True,
        ylabel="added so far",
        colours=(*COLOURS, *MORE_COLOURS, *COLOURS)[: max(len(series), 1)],
        height=340,
        alt=f"Contributions of factors over time against {CALLED[name]}",
        caption=f"Contributions of styles, industries, the selection left over and cost to the difference to {CALLED[name]}, linked "
        "and added up; together they end at the difference of the compounded returns.",
    )


def _said(summary: pd.DataFrame, against: str) -> str:
    whole = summary[summary["view"] == "whole"].set_index("part")["contribution"]
    by = summary[summary["view"] == "factor"].set_index("part")
    specific = by.loc["specific"]
    sign = headline.Estimate(specific["a_year"], specific["low"], specific["high"]).sign
    sure = {
        1: "more than chance would bring",
        -1: "a loss that chance alone would hardly bring",
        0: "within what chance brings",
    }
    known = by.loc[["market", "styles", "industries"], "contribution"].sum()
    return (
        f"The portfolio made {html.percent(whole['portfolio'], 1, signed=True)} after cost, {against} "
        f"{html.percent(whole['benchmark'], 1, signed=True)}. Of the difference of {html.points(whole['difference'], 1)}, known "
        f"factors made {html.points(known, 1)}, the selection of stocks beyond them "
        f"{html.points(specific['contribution'], 1)}, cost {html.points(by.loc['cost', 'contribution'], 1)}. That selection, "
        f"{html.percent(specific['a_year'], 1, signed=True)} a year, is {sure[sign]}."
    )


def _summary(summary: pd.DataFrame) -> str:
    rows = [
        (
            PARTS[row["part"]],
            VIEWS[row["view"]],
            html.points(row["contribution"]),
            html.percent(row["a_year"], signed=True),
            headline.between(*(html.percent(row[end], signed=True) for end in ("low", "high"))),
        )
        for view in VIEWS
        for _, row in summary[summary["view"] == view].iterrows()
    ]
    return html.table(
        ["Part", "View", "Contribution", "Mean a year", "95% interval"], rows, numbers=range(2, 5)
    )


def _factors(table: pd.DataFrame, setup: Mapping[str, Any]) -> str:
    unknown = setup["unknown"]
    rows = [
        (
            row["factor"],
            html.number(row["exposure"], 3, signed=True),
            html.percent(row["return_a_year"], signed=True),
            html.number(row["t"], 1, signed=True),
            html.points(row["contribution"]),
            html.percent(unknown[row["factor"]], 1) if row["factor"] in unknown else html.NONE,
        )
        for _, row in table.iterrows()
    ]
    header = [
        "Factor",
        "Mean active exposure",
        "Return a year",
        "t",
        "Contribution",
        "Not known of the portfolio",
    ]
    note = (
        "An exposure of 1 is a standard deviation of the universe; of the market and of industries it is a weight. Returns are "
        "those of one unit, with the other exposures held at zero."
    )
    return html.table(header, rows, numbers=range(1, 6)) + html.paragraph(note, "note")


def _industry_table(table: pd.DataFrame) -> str:
    rows = [
        (
            row["industry"],
            html.percent(row["weight"], 1),
            html.percent(row["benchmark_weight"], 1),
            *(html.points(row[part]) for part in ("allocation", "selection", "interaction", "contribution")),
        )
        for _, row in table.iterrows()
    ]
    header = [
        "Industry",
        "Mean weight",
        "Benchmark",
        "Allocation",
        "Selection",
        "Interaction",
        "Contribution",
    ]
    return html.table(header, rows, numbers=range(1, 7))


def _years(table: pd.DataFrame) -> str:
    """A table a view: both beside each other are too wide for a narrow window."""
    both = ("trading", "cost")
    return "".join(
        _year_table(table, (*parts, *both))
        for parts in (
            ("allocation", "selection", "interaction"),
            ("market", "styles", "industries", "specific"),
        )
    )


def _year_table(table: pd.DataFrame, parts: Sequence[str]) -> str:
    rows = [
        (
            f"{row['year']:.0f}",
            html.percent(row["portfolio"], 1, signed=True),
            html.percent(row["benchmark"], 1, signed=True),
            *(html.points(row[part], 1) for part in parts),
        )
        for _, row in table.iterrows()
    ]
    header = ["Year", "Portfolio", "Benchmark", *(SHORT[part] for part in parts)]
    return html.table(header, rows, numbers=range(1, len(header)))


def _told(setup: Mapping[str, Any]) -> str:
    """What the exposures are, what there is none of, and what else a reader should know."""
    said = [f"{note[0].upper()}{note[1:]}." for note in setup["notes"]]
    unknown = [f"{name} of {html.percent(share, 1)}" for name, share in setup["unknown"].items() if share > 0]
    if unknown:
        said.append(f"Not known of the portfolio, by weight: {', '.join(unknown)}.")
    if setup["no_industries"]:
        said.append(f"There are no industries: {setup['no_industries']}. All stocks are one group.")
    if setup["no_value_weight"]:
        said.append(f"Nothing is held against the universe by value: {setup['no_value_weight']}.")
    fitted = f"Factor returns are fitted across the universe by {setup['fitted_by']}"
    if setup["explained"] is not None:
        fitted += (
            f", and explain {html.percent(setup['explained'], 1)} of the spread of returns on a mean day"
        )
    said.append(f"{fitted}. A stock of which an exposure is not known has that of the market.")
    return html.details("The exposures", html.facts(setup["exposures"].items())) + html.items(said)
