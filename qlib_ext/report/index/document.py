"""The index as one self-contained HTML file."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from qlib_ext.checks import counted
from qlib_ext.market.finding import QualityReport
from qlib_ext.report import html
from qlib_ext.report.comparison.words import PORTFOLIO, SIGNAL
from qlib_ext.report.comparison.words import value as written
from qlib_ext.report.index.data import DataState
from qlib_ext.report.index.lists import NewestList
from qlib_ext.report.index.runs import IndexedRun, columns, value
from qlib_ext.report.page import Part, page
from qlib_ext.report.sections.quality import audited

SHOWN_METRICS = (
    "RankIC",
    "IC",
    "backtest/annualised_excess_return",
    "benchmarks/equal_weight/annualised_excess_return",
    "backtest/information_ratio",
    "backtest/max_drawdown",
    "backtest/turnover",
)
SHOWN_STOCKS = 20
SHOWN_FINDINGS = 40
SYNTHETIC = "synthetic"


def render(
    title: str,
    runs: Sequence[IndexedRun],
    data: Sequence[DataState],
    facts: Mapping[str, str],
    *,
    place: Path,
    listed: NewestList | None = None,
    audit: QualityReport | None = None,
    more_data: int = 0,
) -> str:
    """The whole page: it opens without a network; sorting, filtering and grouping are its own script.

    Parameters
    ----------
    title
        Text of the heading.
    runs, data
        From `runs.read` and `data.states`; `more_data` states are left out.
    facts
        Where the page comes from: name -> text.
    place
        The folder in which it will lie, to which links are relative.
    listed
        The newest list.
    audit
        Of a store, looked at now.
    """
    finished = sum(run.status == "FINISHED" for run in runs)
    subtitle = f"{counted(len(runs), 'run')}, {finished:,} of them finished"
    parts = [Part("Runs", _runs(runs, data, place), answers="What was tried, and what came of it?")]
    if listed is not None:
        parts.append(Part("Newest list", _listed(listed, place), answers="Which stocks rank first now?"))
    parts.append(
        Part("Data", _data(data, audit, more_data), answers="What was it made on, and what is wrong with it?")
    )
    parts.append(Part("Provenance", html.facts(facts.items()), open=False))
    return page(title, subtitle, parts, scripts=("index.js",) if runs else ())


def _runs(runs: Sequence[IndexedRun], data: Sequence[DataState], place: Path) -> str:
    if not runs:
        return html.paragraph("There is no run: `qrun WORKFLOW` makes one.")
    names, more = columns(runs)
    metrics = [name for name in SHOWN_METRICS if any(name in run.metrics for run in runs)]
    seeds = len({run.seed for run in runs}) > 1
    experiments = len({run.experiment for run in runs}) > 1 and any(
        run.name != run.experiment for run in runs
    )
    figures = SIGNAL | PORTFOLIO
    header = [
        "Run",
        *(figures[name][0] for name in metrics),
        *(["Experiment"] if experiments else []),
        *names.values(),
        *(["Seed"] if seeds else []),
        "Started",
    ]
    rows = [
        [
            _name(run, place),
            *(written(name, run.metrics.get(name, math.nan)) for name in metrics),
            *([run.experiment] if experiments else []),
            *(value(run, key) for key in names),
            *([run.seed] if seeds else []),
            run.started,
        ]
        for run in runs
    ]
    parts = []
    if any(state.synthetic for state in data):
        parts.append(
            html.box(
                "No real market",
                html.paragraph(
                    "Some runs are on a market that a program drew (Data, below, says which): their figures say nothing of a real one."
                ),
            )
        )
    parts.append(
        f'<div class="sortable">{html.table(header, rows, numbers=range(1, 1 + len(metrics)))}</div>'
    )
    without = sum(run.report is None for run in runs)
    said = "The name of a run leads to its report. "
    if without:
        said += f"{counted(without, 'run')} without a link {'has' if without == 1 else 'have'} none on this machine: `qlib-ext report RUN` makes it. "
    if more:
        said += f"{counted(more, 'further setting')} that {'differs has' if more == 1 else 'differ have'} no column: `qlib-ext compare` shows all. "
    said += (
        "A figure of one run says little: many tried on the same days, the best of them is good by luck too; runs are tested "
        "against each other by `qlib-ext compare`, and counted by `qlib-ext ledger`."
    )
    parts.append(html.paragraph(said, "note"))
    return "".join(parts)


def _name(run: IndexedRun, place: Path) -> object:
    return run.name if run.report is None else html.Link(run.name, relative(run.report, place))


def relative(file: Path, place: Path) -> str:
    """The way from a folder to a file, as an address has it."""
    return Path(os.path.relpath(file.resolve(), place.resolve())).as_posix()


def _listed(listed: NewestList, place: Path) -> str:
    parts = [html.box("Look into this first", html.items(listed.warnings))] if listed.warnings else []
    orders = "" if listed.orders is None else f", with {counted(listed.orders, 'order')} of the next day"
    parts.append(
        html.paragraph(
            f"{listed.universe} at the close of {listed.day}, by {listed.run_name} ({listed.run[:8]}), "
            f"{counted(len(listed.rows), 'stock')}{orders}."
        )
    )
    rows = [
        [
            row["instrument"],
            f"{row['rank']:g}",
            _figure(row.get("score"), 5),
            _figure(row.get("close"), 2),
            _about(row),
        ]
        for row in listed.rows[:SHOWN_STOCKS]
    ]
    parts.append(html.table(["Code", "Rank", "Score", "Close", "About"], rows, numbers=[1, 2, 3]))
    if listed.page is not None:
        parts.append(html.linked(html.Link("The whole list", relative(listed.page, place))))
    return "".join(parts)


def _about(row: Mapping[str, object]) -> str:
    told = [str(row[name]) for name in ("name", "industry") if isinstance(row.get(name), str)]
    return ", ".join(told) or html.NONE


def _figure(given: object, digits: int) -> str:
    return html.number(given, digits) if isinstance(given, (int, float)) else html.NONE


def _data(data: Sequence[DataState], audit: QualityReport | None, more: int) -> str:
    parts = []
    if audit is not None:
        parts += [
            html.heading(f"The store {audit.store['root']}, looked at now"),
            audited(audit, SHOWN_FINDINGS),
        ]
    if data:
        rows = [
            [
                state.fingerprint[:8],
                f"{state.name}{f' ({SYNTHETIC})' if state.synthetic else ''}" or html.NONE,
                f"{state.first} to {state.last}" if state.first else html.NONE,
                state.universe or html.NONE,
                html.count(state.runs),
                state.newest.started,
                *(
                    [html.NONE] * 2
                    if state.audit is None
                    else [html.count(state.audit.counts[name]) for name in ("error", "warning")]
                ),
            ]
            for state in data
        ]
        header = ["Data", "Store", "Days", "Universe", "Runs", "Newest", "Errors", "Warnings"]
        parts += [
            html.heading("As the newest run on each found it"),
            html.table(header, rows, numbers=[4, 6, 7]),
        ]
        found = [state for state in data if state.audit is not None and state.audit.has_errors]
        if found:
            worst = [
                f"{state.fingerprint[:8]}: {state.audit.findings[0].message}"
                for state in found
                if state.audit
            ]
            parts.insert(0, html.box("The data have errors", html.items(worst)))
    if not parts:
        parts.append(html.paragraph("No run says on which data it was made."))
    said = "An en dash: that run did not look, as a workflow without QualityRecord does not. `qlib-ext data check DIR` looks now."
    if more:
        said += f" {counted(more, 'older state')} of the data {'is' if more == 1 else 'are'} left out."
    return "".join(parts) + html.paragraph(said, "note")
