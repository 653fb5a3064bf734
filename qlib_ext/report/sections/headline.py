"""The figures that the run is judged by, each beside what it must be compared with."""

from __future__ import annotations

import dataclasses
import re

from qlib_ext.report import html
from qlib_ext.report.artifacts import RunArtifacts
from qlib_ext.report.sections.base import Section


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure: what it is, its value, and what stands beside it."""

    name: str
    value: str
    beside: str = ""


@dataclasses.dataclass(frozen=True)
class Group:
    """Figures that belong together, and how they are computed."""

    title: str
    rows: list[Row]
    note: str


class Headline(Section):
    """The headline table, with the most telling figures large above it.

    Parameters
    ----------
    momentum
        Whether the run has a momentum task.
    backtest
        Whether the run has a backtest.
    """

    title = "Headline"

    def __init__(self, momentum: bool = True, backtest: bool = True):
        self.momentum = momentum
        self.backtest = backtest
        self.requires = (
            "ranking/summary.csv",
            "data/summary.json",
            *(["momentum/summary.csv"] if momentum else []),
            *(["backtest/summary.csv", "backtest/setup.json"] if backtest else []),
        )

    def groups(self, run: RunArtifacts) -> list[Group]:
        """The table in its groups; the terminal shows the same."""
        groups = [_ranking(run), _precision(run)]
        if self.momentum:
            groups.append(_momentum(run))
        if self.backtest:
            groups.append(_backtest(run))
        return groups

    def render(self, run: RunArtifacts) -> str:
        """The figures looked for first, then a table for each group."""
        tables = "".join(
            "<div>"
            + html.heading(group.title)
            + html.table(
                ["Measure", "Value", "Beside it"],
                [(row.name, row.value, row.beside) for row in group.rows],
                numbers=[1],
            )
            + html.paragraph(group.note, "note")
            + "</div>"
            for group in self.groups(run)
        )
        return self._large(run) + f'<div class="groups">{tables}</div>'

    def _large(self, run: RunArtifacts) -> str:
        """The few figures that a reader looks for first."""
        m = run.metric
        shown = [
            ("RankIC", html.number(m("RankIC")), f"RankICIR {html.number(m('RankICIR'), 2)}"),
            ("IC", html.number(m("IC")), f"ICIR {html.number(m('ICIR'), 2)}"),
        ]
        first = min(_precision_at(run), default=None)
        if first is not None:
            beside = f"base rate {html.percent(m('base_rate'), 1)}"
            shown.append((f"Precision@{first}", html.percent(m(f"precision/{first}"), 1), beside))
        if self.momentum:
            beside = f"persistence {html.percent(m('momentum/persistence_accuracy'), 1)}"
            shown.append(("Momentum accuracy", html.percent(m("momentum/accuracy"), 1), beside))
        if self.backtest:
            excess = html.percent(m("backtest/annualised_excess_return"), 1, signed=True)
            ratio = f"information ratio {html.number(m('backtest/information_ratio'), 2)}"
            shown.append(("Excess return a year, after cost", excess, ratio))
            index = f"index {html.percent(m('backtest/benchmark_max_drawdown'), 1)}"
            shown.append(("Max drawdown, after cost", html.percent(m("backtest/max_drawdown"), 1), index))
        return html.large_figures(shown)


def _ranking(run: RunArtifacts) -> Group:
    summary = run.table("ranking/summary.csv")
    formulas = run.json("data/summary.json").get("labels", {})
    first, *others = [str(label) for label in summary.index]

    def row(name: str, column: str, digits: int = 4) -> Row:
        beside = ", ".join(f"{label} {html.number(summary.loc[label, column], digits)}" for label in others)
        return Row(name, html.number(summary.loc[first, column], digits), beside)

    known = "; ".join(f"{label} is {formulas[label]}" for label in (first, *others) if formulas.get(label))
    return Group(
        f"Ranking against {first}",
        [
            row("IC", "IC"),
            row("ICIR", "ICIR"),
            row("RankIC", "RankIC"),
            row("RankICIR", "RankICIR"),
            row("t of the IC", "t", 2),
        ],
        "IC is Pearson's, RankIC Spearman's correlation of score and raw return across the stocks of a day, mean over "
        f"{html.count(summary.loc[first, 'days'])} days; the ratios divide by the standard deviation over days; t is Newey "
        f"and West's. {known}{'.' if known else ''}",
    )


def _precision(run: RunArtifacts) -> Group:
    base = run.metric("base_rate")
    shares = {n: run.metric(f"precision/{n}") for n in _precision_at(run)}
    return Group(
        "Precision of the top of the list",
        [
            Row(
                f"Precision@{n}",
                html.percent(share),
                f"base rate {html.percent(base)}, {html.points(share - base)}",
            )
            for n, share in shares.items()
        ],
        "Share of the N highest scored stocks of a day whose raw return is positive, mean over days. The base rate is the "
        "same share of all scored stocks.",
    )


def _precision_at(run: RunArtifacts) -> list[int]:
    return sorted(int(name.split("/")[1]) for name in run.metrics if re.fullmatch(r"precision/\d+", name))


def _momentum(run: RunArtifacts) -> Group:
    summary = run.table("momentum/summary.csv")

    def share(rule: str) -> str:
        return html.percent(summary.loc[rule, "accuracy"])

    return Group(
        "Momentum classes",
        [
            Row(
                "Accuracy",
                share("model"),
                f"persistence {share('persistence')}, majority {share('majority')}",
            ),
            Row(
                "Macro F1",
                html.number(summary.loc["model", "macro_f1"]),
                f"persistence {html.number(summary.loc['persistence', 'macro_f1'])}",
            ),
        ],
        "Share of stocks and days whose most probable class is the true one. Part of the line is known already, so the "
        "accuracy is no pure forecast: persistence assumes that the last known sign stays, majority always names the most "
        "frequent class.",
    )


def _backtest(run: RunArtifacts) -> Group:
    m = run.metric
    days = run.json("backtest/setup.json")["days_per_year"]
    return Group(
        "Portfolio",
        [
            Row(
                "Excess return a year, after cost",
                html.percent(m("backtest/annualised_excess_return"), signed=True),
                f"before cost {html.percent(m('backtest/annualised_excess_return_without_cost'), signed=True)}",
            ),
            Row(
                "Return a year, after cost",
                html.percent(m("backtest/annualised_return"), signed=True),
                f"index {html.percent(m('backtest/annualised_benchmark_return'), signed=True)}",
            ),
            Row(
                "Information ratio, after cost",
                html.number(m("backtest/information_ratio"), 2),
                f"before cost {html.number(m('backtest/information_ratio_without_cost'), 2)}",
            ),
            Row(
                "Max drawdown, after cost",
                html.percent(m("backtest/max_drawdown")),
                f"index {html.percent(m('backtest/benchmark_max_drawdown'))}",
            ),
            Row(
                "Turnover a day",
                html.percent(m("backtest/turnover")),
                f"cost {html.percent(m('backtest/annual_cost'))} a year",
            ),
        ],
        f"Returns compound, with {days:g} trading days a year; the excess is the growth of the portfolio's value over the "
        "index's. The information ratio is the mean daily difference to the index over its standard deviation, annualised. "
        "Turnover is bought plus sold value over the account's value of the day before.",
    )
