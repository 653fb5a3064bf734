"""The run in one view: what its figures say, what to be wary of, and the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qlib_ext.report import headline, html, verdict
from qlib_ext.report.charts import Chart, Lines, all_positive
from qlib_ext.report.figures import BLUE, QUIET
from qlib_ext.report.headline import Estimate
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.tracking.artifacts import RunArtifacts

VALUES = ("backtest/series.parquet", "backtest/setup.json")


class Summary(Section):
    """A verdict in plain words, warnings, the account's curve, the most telling figures, and the headline table.

    What the run has no artifacts of (a momentum task, a backtest) is not spoken of.
    """

    title = "Summary"
    place = 10
    open = True
    answers = "Does the score rank? Does the portfolio beat its benchmarks after cost?"
    requires = headline.REQUIRES
    optional = tuple(dict.fromkeys((*headline.OPTIONAL, *verdict.OPTIONAL, *VALUES)))

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """The account after cost, beside the index where there is one; none without a backtest."""
        if not headline.has(run, VALUES):
            return {}
        table, index = run.table(VALUES[0]), run.json(VALUES[1])["benchmark"]
        lines = {
            "Portfolio, after cost": "wealth/portfolio_with_cost",
            f"Index {index}": "wealth/benchmark",
        }
        values = {name: table[column] for name, column in lines.items() if column in table}
        return {
            "account": Lines(
                series=values,
                ylabel="value of 1 invested",
                colours=(BLUE, QUIET),
                log_choice=all_positive(values),
                levels={"start": 1.0},
                height=270,
                alt=f"Value of 1 over time: {', '.join(values)}",
                caption="What 1 became at the close of each day, after cost; 1.5 is a return of 50%.",
            )
        }

    def render(self, run: RunArtifacts) -> str:
        """Whether the market is synthetic, verdict, warnings, curve, large figures, tables, and how it was judged."""
        known = headline.estimates(run)
        groups = headline.groups(run, known)
        remarks = verdict.remarks(run, known)
        warnings = [remark.text for remark in remarks if remark.kind == "warning"]
        synthetic = verdict.synthetic(run)
        notes = [remark.text for remark in remarks if remark.kind == "note"]
        return "".join(
            [
                html.box("No real market", html.paragraph(synthetic)) if synthetic else "",
                html.claims(verdict.claims(run, known)),
                html.box("Look at this first", html.items(warnings)) if warnings else "",
                *(shown(name, chart) for name, chart in self.charts(run).items()),
                _large(run, known),
                *map(_table, groups),
                html.heading("Good to know") + html.items(notes) if notes else "",
                html.details("How these figures are computed and judged", _explained(groups)),
            ]
        )


def _table(group: headline.Group) -> str:
    rows = [(row.name, row.value, row.interval or html.NONE, row.beside) for row in group.rows]
    return html.heading(group.title) + html.table(
        ["Measure", "Value", "95% interval", "Beside it"], rows, numbers=[1, 2]
    )


def _explained(groups: Sequence[headline.Group]) -> str:
    told = [*((group.title, group.note) for group in groups), ("The verdict", verdict.RULES)]
    return "".join(html.heading(title) + html.paragraph(note, "note") for title, note in told)


def _large(run: RunArtifacts, known: Mapping[str, Estimate]) -> str:
    """The few figures that a reader looks for first."""
    m = run.metric
    shown = [
        ("RankIC", html.number(m("RankIC")), f"RankICIR {html.number(m('RankICIR'), 2)}"),
        ("IC", html.number(m("IC")), f"ICIR {html.number(m('ICIR'), 2)}"),
    ]
    first = min(headline.tops(run), default=None)
    if first is not None:
        beside = f"base rate {html.percent(m('base_rate'), 1)}"
        shown.append((f"Precision@{first}", html.percent(m(f"precision/{first}"), 1), beside))
    if "momentum/accuracy" in known:
        beside = f"persistence {html.percent(m('momentum/persistence_accuracy'), 1)}"
        shown.append(("Momentum accuracy", html.percent(m("momentum/accuracy"), 1), beside))
    if "backtest/annualised_excess_return" in known:
        excess = html.percent(m("backtest/annualised_excess_return"), 1, signed=True)
        ratio = f"information ratio {html.number(m('backtest/information_ratio'), 2)}"
        shown.append(("Excess return a year, after cost", excess, ratio))
        index = f"index {html.percent(m('backtest/benchmark_max_drawdown'), 1)}"
        shown.append(("Max drawdown, after cost", html.percent(m("backtest/max_drawdown"), 1), index))
    elif "backtest/annualised_return" in known:
        earned = html.percent(m("backtest/annualised_return"), 1, signed=True)
        ratio = f"Sharpe ratio {html.number(m('backtest/sharpe_ratio'), 2)}"
        shown.append(("Return a year, after cost", earned, ratio))
        shown.append(("Max drawdown, after cost", html.percent(m("backtest/max_drawdown"), 1), "no index"))
    return html.large_figures(shown)
