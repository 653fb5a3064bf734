"""The portfolio beside what anybody could have held without a score."""

from __future__ import annotations

from collections.abc import Mapping

from qlib_ext.report import headline, html
from qlib_ext.report.charts import Chart, Lines, all_positive
from qlib_ext.report.figures import BLUE, GREEN, INK, ORANGE, PURPLE, QUIET
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.tracking.artifacts import RunArtifacts

LINES = {
    "equal_weight": "Universe, equal weight",
    "value_weight": "Universe, by value",
    "index_with_dividends": "Index, with dividends",
}
ROWS = {"index": "Index", **LINES, "random": "Lists drawn by chance, median"}


class Benchmarks(Section):
    """The account beside its universe at equal weight and by value, and beside lists drawn by chance."""

    title = "Against portfolios without skill"
    place = 25
    answers = "Would anybody have done as well without the scores?"
    requires = (
        "benchmarks/daily.parquet",
        "benchmarks/summary.csv",
        "benchmarks/estimates.parquet",
        "benchmarks/setup.json",
        "backtest/series.parquet",
    )

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """The account after cost and its benchmarks; lists by chance as a band."""
        account, table = run.table("backtest/series.parquet"), run.table("benchmarks/daily.parquet")
        chance = "Lists drawn by chance"
        lines = {"Portfolio, after cost": account["wealth/portfolio_with_cost"]}
        if "wealth/benchmark" in account:
            lines["Index"] = account["wealth/benchmark"]
        for name, called in LINES.items():
            if f"wealth/{name}" in table:
                lines[called] = table[f"wealth/{name}"]
        lines[chance] = table["random/median"]
        colours = {"Portfolio, after cost": BLUE, "Index": QUIET, chance: PURPLE} | dict(
            zip(LINES.values(), (ORANGE, GREEN, INK), strict=True)
        )
        return {
            "benchmarks": Lines(
                series=lines,
                bands={chance: (table["random/low"], table["random/high"])},
                ylabel="value of 1 invested",
                colours=tuple(colours[name] for name in lines),
                log_choice=all_positive(lines),
                levels={"start": 1.0},
                height=320,
                alt="Value of 1 invested in the portfolio and in portfolios without skill",
                caption="What 1 became. The universe's members are held at weights that are restored every day, dividends "
                "included, without cost. The band holds 95% of the lists drawn by chance, which exchange as many stocks a "
                "day as the portfolio did and pay its costs.",
            )
        }

    def render(self, run: RunArtifacts) -> str:
        """Where the portfolio stands among lists by chance, the chart, the table, and what members without bars could do."""
        setup = run.json("benchmarks/setup.json")
        known = headline.read_estimates(run, "benchmarks/estimates.parquet", "backtest/estimates.parquet")
        rows = []
        for name, row in run.table("benchmarks/summary.csv").iterrows():
            prefix = "backtest" if name == "index" else f"benchmarks/{name}"
            excess = known.get(f"{prefix}/annualised_excess_return")
            ratio = known.get(f"{prefix}/information_ratio")
            ends = () if excess is None else (excess.low, excess.high)
            rows.append(
                (
                    ROWS[str(name)],
                    html.percent(row["annualised_return"], signed=True),
                    html.percent(row["excess_with_cost"], signed=True),
                    headline.between(*(html.percent(end, signed=True) for end in ends))
                    if ends
                    else html.NONE,
                    html.percent(row["excess_without_cost"], signed=True),
                    html.NONE if ratio is None else html.number(ratio.value, 2),
                )
            )
        header = [
            "",
            "Return a year",
            "Portfolio over it, after cost",
            "95% interval",
            "Before cost",
            "Information ratio",
        ]
        return "".join(
            [
                html.paragraph(
                    f"Of {setup['draws']} lists drawn by chance, {html.percent(setup['random_below'], 1)} ended below the "
                    "portfolio. Chance alone, without any skill, puts it anywhere between 0% and 100%; above 97.5% it is "
                    "rarely chance."
                ),
                *(shown(name, chart) for name, chart in self.charts(run).items()),
                html.table(header, rows, numbers=range(1, 6)),
                html.paragraph(_dividends(setup), "note") if setup.get("dividends") else "",
                html.paragraph(_survivorship(setup), "note"),
                html.paragraph(f"The universe is {setup['no_value_weight']}.", "note")
                if setup["no_value_weight"]
                else "",
            ]
        )


def _dividends(setup: Mapping[str, float]) -> str:
    """What an index of prices leaves out."""
    return (
        f"The dividends of the index are estimated from the factors of {setup['universe']}, "
        f"{'at equal weight' if setup['no_value_weight'] else 'by market value'}: "
        f"{html.percent(setup['dividends'], 1)} a year. An index of prices leaves them out; one that has them already must be "
        "named as what it is, and this row be passed over."
    )


def _survivorship(setup: Mapping[str, float]) -> str:
    """What the members without bars could change."""
    if not setup["missing_members"]:
        return f"The store has bars of every member of {setup['universe']} on these days."
    return (
        f"Of the members of {setup['universe']} the store has no bars of {html.percent(setup['missing_members'], 1)} on a mean "
        "day. Had they all earned what the members at the lowest tenth of each year did, or the highest, the universe's "
        f"return, and that of a portfolio that held its share of them, would change by between "
        f"{html.percent(setup['missing_low'], 1, signed=True)} and {html.percent(setup['missing_high'], 1, signed=True)} a "
        "year."
    )
