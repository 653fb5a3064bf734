"""The comparison as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from qlib_ext.checks import counted
from qlib_ext.metrics.overfitting import Overfitting
from qlib_ext.report import html, interactive
from qlib_ext.report.charts import Chart
from qlib_ext.report.comparison.charts import charts
from qlib_ext.report.comparison.compared import LEVEL, SET_LEVEL, TESTED, Comparison
from qlib_ext.report.comparison.runs import RETURN
from qlib_ext.report.comparison.settings import shown
from qlib_ext.report.comparison.words import (
    ATTRIBUTION,
    CONSTRUCTION,
    PLUS_MINUS,
    PORTFOLIO,
    SHOWN,
    SIGNAL,
    TURNOVER,
    claims,
    group_rows,
    metrics,
    rows_of_tests,
    value,
)
from qlib_ext.report.language import ENGLISH, Language
from qlib_ext.report.page import Part, page

MOST_GROUPS = 5  # that a table has a column each for
METHOD = (
    "Daily series are averaged over the runs of a group first; the difference of two groups is taken on the days that "
    "both have. Intervals and p are from the stationary bootstrap of days (2,000 draws, blocks of the cube root of the "
    f"number of days on average); p is two-sided, and Holm's correction keeps the chance of any wrong finding at {LEVEL:.0%}. "
    f"In the set: whether the group stays in the model confidence set at {SET_LEVEL:.0%} (Hansen, Lunde and Nason), which "
    "holds the best group in nine of ten samples. SPA is Hansen's test that no group is better than the baseline. All of "
    "them resample days, not seeds: they say whether these trained models differ on such days, not whether another "
    "training would do so again. The interval with seeds drawn says that, roughly: it draws the runs of both groups with the "
    "days. A difference is called sure only where it excludes zero too, with three runs of either group or more."
)


def render(comparison: Comparison, title: str, facts: Mapping[str, str], language: Language = ENGLISH) -> str:
    """The whole page: it opens without a network, on a screen of any width and on paper.

    Parameters
    ----------
    comparison
        What is shown.
    title
        Text of the heading.
    facts
        Where the page comes from: name -> text.
    language
        Of headings, labels and verdict.
    """
    drawn = charts(comparison)
    runs = sum(len(group.runs) for group in comparison.groups)
    subtitle = f"{counted(runs, 'run')} in {counted(len(comparison.groups), 'group')}"
    if comparison.others:
        subtitle += f", against {comparison.baseline.name}"
    parts = [Part("Summary", _summary(comparison, drawn)), Part("Groups", _groups(comparison, drawn))]
    if comparison.others:
        parts.append(Part("Differences to the baseline", _differences(comparison, drawn)))
    for heading, names in (
        ("Returns", ("cumulative_excess",)),
        ("Information coefficient", ("cumulative_rank_ic", "cumulative_ic")),
    ):
        here = [_shown(name, drawn) for name in names if name in drawn]
        if here:
            parts.append(Part(heading, html.beside(*here)))
    if comparison.overfitting is not None:
        parts.append(Part("Choice of the best", _choice(comparison.overfitting, drawn), open=False))
    parts += [
        Part("Configuration", _configuration(comparison)),
        Part("Runs", _runs(comparison), open=False),
        Part("Provenance", html.facts(facts.items()), open=False),
    ]
    return page(language.text(title), subtitle, parts, language)


def _shown(name: str, drawn: Mapping[str, Chart]) -> str:
    return interactive.fragment(name, drawn[name]) if name in drawn else ""


def _summary(comparison: Comparison, drawn: Mapping[str, Chart]) -> str:
    found = claims(comparison)
    parts = [html.box("No real market", html.paragraph(comparison.synthetic))] if comparison.synthetic else []
    parts += [html.claims(found)] if found else []
    if comparison.warnings:
        parts.append(html.box("Look at this first", html.items(comparison.warnings)))
    if not comparison.others:
        parts.append(html.paragraph("There is one group only, so that nothing is tested against anything."))
    parts.append(_shown("cumulative_return", drawn))
    return "".join(parts)


def _groups(comparison: Comparison, drawn: Mapping[str, Chart]) -> str:
    parts = []
    for title, wanted in _measured(comparison):
        header = ["Group", "Runs", *(SHOWN[metric][0] for metric in wanted)]
        parts.append(html.heading(title))
        parts.append(html.table(header, group_rows(comparison, wanted), numbers=range(1, len(header))))
    return "".join(
        [
            *parts,
            html.paragraph(
                f"Mean over the runs of a group {PLUS_MINUS} standard deviation over them (divisor n {html.MINUS} 1; of "
                "percentages in percentage points), which are as many seeds where nothing else is said. Figures of a single "
                "run are those of its own report. Returns compound. The deflated Sharpe ratio is that of daily excess returns "
                "over the index.",
                "note",
            ),
            html.beside(_shown("group_ic", drawn), _shown("group_excess_return", drawn)),
            _shown("group_attribution", drawn),
        ]
    )


def _measured(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """The metrics in several tables, since one would be too wide."""
    wanted = {
        "Signal": SIGNAL,
        "Portfolio, after cost": PORTFOLIO,
        "Beyond the universe at equal weight, a year: by industry, and by factor": ATTRIBUTION,
        "Portfolio construction": CONSTRUCTION,
        "Turnover of a mean rebalancing, by cause": TURNOVER,
    }
    found = {title: metrics(comparison, each) for title, each in wanted.items()}
    return [(title, each) for title, each in found.items() if each]


def _differences(comparison: Comparison, drawn: Mapping[str, Chart]) -> str:
    parts = []
    for measure, name in TESTED.items():
        if measure not in {*comparison.tests["measure"]}:
            continue
        unit = " in basis points" if measure == RETURN else ""
        header = [
            "Group",
            "Difference",
            "95% interval",
            "with seeds drawn",
            "p",
            "p, Holm",
            "Days",
            "In the set (p)",
        ]
        parts.append(html.heading(f"{name[0].upper() + name[1:]}{unit}"))
        parts.append(html.table(header, rows_of_tests(comparison, measure), numbers=range(1, 8)))
    parts.append(html.beside(_shown("difference_ic", drawn), _shown("difference_return", drawn)))
    return (
        "".join(parts) + html.paragraph(METHOD, "note")
        if len(parts) > 1
        else html.paragraph("No two groups have a figure in common.")
    )


def _choice(found: Overfitting, drawn: Mapping[str, Chart]) -> str:
    facts = [
        ("Runs to choose from", html.count(found.configurations)),
        ("Blocks of days, of which half choose", f"{found.blocks} ({html.count(len(found.logits))} ways)"),
        ("Probability of backtest overfitting", html.percent(found.probability, 1)),
        ("Probability of a loss on the other half", html.percent(found.loss, 1)),
        ("Slope of its ratio there on that by which it was chosen", html.number(found.slope, 2, signed=True)),
    ]
    return (
        html.facts(facts)
        + _shown("overfitting", drawn)
        + html.paragraph(
            "Combinatorially symmetric cross-validation of daily excess returns after cost (Bailey, Borwein, López de Prado and Zhu), "
            "on the days that all runs have. Both halves are of these days, so that the slope tends below zero where no run is "
            "better than another. Runs that differ by their seed alone are counted as runs.",
            "note",
        )
    )


def _configuration(comparison: Comparison) -> str:
    table = comparison.configuration
    parts = []
    if len(table):
        parts.append(_set_to(table))
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


def _set_to(table: pd.DataFrame) -> str:
    """A column a group; of many groups a row a value, with the groups that have it."""
    if len(table.columns) <= MOST_GROUPS:
        rows = [[key, *row] for key, row in zip(table.index, table.to_numpy(), strict=True)]
        return html.table(["Parameter", *table.columns], rows)
    having = [
        (key, value, "; ".join(map(str, row.index[row == value])))
        for key, row in table.iterrows()
        for value in row.unique()
    ]
    return html.table(["Parameter", "Value", "Groups"], having)


def _runs(comparison: Comparison) -> str:
    def cells(row: pd.Series, columns: Sequence[str]) -> list[str]:
        return [str(row[column]) for column in columns]

    runs = [row for _, row in comparison.runs.iterrows()]
    facts = [[*cells(row, ("name", "group", "started", "experiment")), str(row["run"])[:8]] for row in runs]
    parts = [html.table(["Run", "Group", "Started", "Experiment", "Id"], facts)]
    for title, wanted in _measured(comparison):
        found = [metric for metric in wanted if metric in comparison.runs]
        rows = [
            [*cells(row, ("name", "group", "seed")), *(value(metric, float(row[metric])) for metric in found)]
            for row in runs
        ]
        header = ["Run", "Group", "Seed", *(SHOWN[metric][0] for metric in found)]
        parts.append(html.heading(title) + html.table(header, rows, numbers=range(3, len(header))))
    if comparison.left_out:
        parts.append(html.heading(f"Left out: {counted(len(comparison.left_out), 'run')}"))
        parts.append(
            html.table(
                ["Run", "Id", "Why"], [(each.name, each.run_id[:8], each.why) for each in comparison.left_out]
            )
        )
    return "".join(parts)
