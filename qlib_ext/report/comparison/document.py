"""The comparison as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping

from qlib_ext.report import html, interactive
from qlib_ext.report.charts import Chart
from qlib_ext.report.comparison.charts import charts
from qlib_ext.report.comparison.compared import LEVEL, SET_LEVEL, TESTED, Comparison
from qlib_ext.report.comparison.runs import RETURN
from qlib_ext.report.comparison.settings import shown
from qlib_ext.report.comparison.words import (
    PLUS_MINUS,
    SHOWN,
    claims,
    group_rows,
    metrics,
    rows_of_tests,
    value,
)
from qlib_ext.report.page import Part, page

METHOD = (
    "Daily series are averaged over the runs of a group first; the difference of two groups is taken on the days that "
    "both have. Intervals and p are from the stationary bootstrap of days (2,000 draws, blocks of the cube root of the "
    f"number of days on average); p is two-sided, and Holm's correction keeps the chance of any wrong finding at {LEVEL:.0%}. "
    f"In the set: whether the group stays in the model confidence set at {SET_LEVEL:.0%} (Hansen, Lunde and Nason), which "
    "holds the best group in nine of ten samples. SPA is Hansen's test that no group is better than the baseline. All of "
    "them resample days, not seeds: they say whether these trained models differ on such days, not whether another "
    "training would do so again. For that look at the deviation over seeds."
)


def render(comparison: Comparison, title: str, facts: Mapping[str, str]) -> str:
    """The whole page: it opens without a network, on a screen of any width and on paper.

    Parameters
    ----------
    comparison
        What is shown.
    title
        Text of the heading.
    facts
        Where the page comes from: name -> text.
    """
    drawn = charts(comparison)
    runs = sum(len(group.runs) for group in comparison.groups)
    subtitle = f"{_counted(runs, 'run')} in {_counted(len(comparison.groups), 'group')}"
    if comparison.others:
        subtitle += f", against {comparison.baseline.name}"
    parts = [Part("Summary", _summary(comparison)), Part("Groups", _groups(comparison, drawn))]
    if comparison.others:
        parts.append(Part("Differences to the baseline", _differences(comparison, drawn)))
    for heading, names in (
        ("Returns", ("cumulative_return", "cumulative_excess")),
        ("Information coefficient", ("cumulative_rank_ic", "cumulative_ic")),
    ):
        here = [_shown(name, drawn) for name in names if name in drawn]
        if here:
            parts.append(Part(heading, "".join(here)))
    parts += [
        Part("Configuration", _configuration(comparison)),
        Part("Runs", _runs(comparison)),
        Part("Provenance", html.facts(facts.items())),
    ]
    return page(title, subtitle, parts)


def _shown(name: str, drawn: Mapping[str, Chart]) -> str:
    return interactive.fragment(name, drawn[name]) if name in drawn else ""


def _summary(comparison: Comparison) -> str:
    found = claims(comparison)
    parts = [html.box("No real market", html.items([comparison.synthetic]))] if comparison.synthetic else []
    parts += [html.claims(found)] if found else []
    if comparison.warnings:
        parts.append(html.box("Look at this first", html.items(comparison.warnings)))
    if not comparison.others:
        parts.append(html.paragraph("There is one group only, so that nothing is tested against anything."))
    return "".join(parts)


def _groups(comparison: Comparison, drawn: Mapping[str, Chart]) -> str:
    wanted = metrics(comparison)
    header = ["Group", "Runs", *(SHOWN[metric][0] for metric in wanted)]
    return "".join(
        [
            html.table(header, group_rows(comparison, wanted), numbers=range(1, len(header))),
            html.paragraph(
                f"Mean over the runs of a group {PLUS_MINUS} standard deviation over them (divisor n {html.MINUS} 1; of "
                "percentages in percentage points), which are as many seeds where nothing else is said. Figures of a single "
                "run are those of its own report. Portfolio figures are after cost; returns compound. The deflated Sharpe "
                "ratio is that of daily excess returns over the index.",
                "note",
            ),
            _shown("group_ic", drawn),
            _shown("group_excess_return", drawn),
        ]
    )


def _differences(comparison: Comparison, drawn: Mapping[str, Chart]) -> str:
    parts = []
    for measure, name in TESTED.items():
        if measure not in {*comparison.tests["measure"]}:
            continue
        unit = " in basis points" if measure == RETURN else ""
        header = ["Group", "Difference", "95% interval", "p", "p, Holm", "Days", "In the set (p)"]
        parts.append(html.heading(f"{name[0].upper() + name[1:]}{unit}"))
        parts.append(html.table(header, rows_of_tests(comparison, measure), numbers=range(1, 7)))
    parts += [_shown("difference_ic", drawn), _shown("difference_return", drawn)]
    return (
        "".join(parts) + html.paragraph(METHOD, "note")
        if parts
        else html.paragraph("No two groups have a figure in common.")
    )


def _configuration(comparison: Comparison) -> str:
    table = comparison.configuration
    parts = []
    if len(table):
        rows = [[key, *row] for key, row in zip(table.index, table.to_numpy(), strict=True)]
        parts.append(html.table(["Parameter", *table.columns], rows))
        parts.append(
            html.paragraph(
                "Parameters that differ, as MLflow names them, the seed apart; an en dash where a run has none. Where data "
                "are cached, the device and which further records were made are left out: they do not move the figures "
                "compared here.",
                "note",
            )
        )
    else:
        parts.append(html.paragraph("No parameter differs but the seed."))
    shared = [(key, shown(key, text)) for key, text in comparison.shared.items()]
    if shared:
        parts.append(html.details(f"{len(shared)} parameters that all runs share", html.facts(shared)))
    return "".join(parts)


def _runs(comparison: Comparison) -> str:
    wanted = [metric for metric in metrics(comparison) if metric in comparison.runs]
    header = ["Run", "Group", "Seed", "Started", "Experiment", "Id", *(SHOWN[metric][0] for metric in wanted)]
    rows = [
        [
            str(row["name"]),
            str(row["group"]),
            str(row["seed"]),
            str(row["started"]),
            str(row["experiment"]),
            str(row["run"])[:8],
            *(value(metric, float(row[metric])) for metric in wanted),
        ]
        for _, row in comparison.runs.iterrows()
    ]
    parts = [html.table(header, rows, numbers=range(6, len(header)))]
    if comparison.left_out:
        parts.append(html.heading(f"Left out: {_counted(len(comparison.left_out), 'run')}"))
        parts.append(
            html.table(
                ["Run", "Id", "Why"], [(each.name, each.run_id[:8], each.why) for each in comparison.left_out]
            )
        )
    return "".join(parts)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
