"""`qlib-ext compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qlib_ext.cli.answer import Answer, exits
from qlib_ext.cli.options import TrackingUri
from qlib_ext.terminal import cell, console, empty_table, say

if TYPE_CHECKING:
    from rich.table import Table

    from qlib_ext.report.comparison.compared import Comparison

MARKS = {
    "yes": "[green]\N{CHECK MARK}[/green]",
    "no": "[red]\N{MULTIPLICATION X}[/red]",
    "unclear": "[yellow]?[/yellow]",
}


@exits({2: "compared, but without runs that are damaged"})
def compare(
    wanted: Annotated[
        list[str],
        typer.Argument(
            metavar="EXPERIMENT|RUN...",
            help="Names of experiments (all their finished runs), names or ids of runs, or the first digits of ids.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the page and the tables.", show_default="reports/comparisons/NAME"),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Group to test the others against: its name or a part of it, or a run in it.",
            show_default="the group of the first run",
        ),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="Parameter or tag to group by, instead of all parameters that differ; `experiment` and `name` too. "
            "May be given several times.",
            show_default=False,
        ),
    ] = None,
    lang: Annotated[
        str, typer.Option(help="Language of headings, labels and verdict of the page: en, or zh for Chinese.")
    ] = "en",
    tracking_uri: TrackingUri = None,
    csv: Annotated[
        bool, typer.Option("--csv", help="Print the table of groups as CSV, and nothing else.")
    ] = False,
) -> Answer:
    """Compare runs: group them by what differs, average over seeds, and test the groups against a baseline.

    Prints the figures and writes a page (comparison.html) and tables (groups.csv, runs.csv, tests.csv,
    configuration.csv).
    """
    from qlib_ext.checks import counted  # here, so that `qlib-ext --help` stays quick
    from qlib_ext.cli.older import tell_of_older, tell_of_unchecked
    from qlib_ext.paths import writable
    from qlib_ext.report.comparison import files
    from qlib_ext.report.comparison import runs as reading
    from qlib_ext.report.comparison.compared import compare as compared
    from qlib_ext.report.comparison.words import claims
    from qlib_ext.report.language import language
    from qlib_ext.tracking.runs import connect, find_runs

    language(lang)  # an unknown one is told now
    folder = out or files.folder_of(wanted)
    writable(folder, name="`--out`", way_out="name another")
    client = connect(tracking_uri)
    with console(stderr=True).status("reading the runs"):
        runs = find_runs(client, wanted, finished=False)
        found, left_out = reading.read(client, runs)
    tell_of_older(client, runs)
    tell_of_unchecked({f"{run.name} ({run.run_id[:8]})": run.unchecked for run in found})
    with console(stderr=True).status("testing the differences"):
        comparison = compared(found, left_out, baseline=baseline, by=by or ())
    page = files.page_of(
        comparison, wanted, client.tracking_uri, by=by or (), out=out, tracking_uri=tracking_uri, lang=lang
    )
    if csv:
        say(files.csv(comparison.summary.reset_index()).removesuffix("\n"), lines=True)
    else:
        _show(comparison)
    written = files.write(folder, page, comparison, lang)
    if not csv:
        _show_paths(written)
    damaged = [each for each in left_out if each.damaged]
    if damaged:
        say(
            f"error: compared without {counted(len(damaged), 'run')}: {damaged[0].name}: {damaged[0].why}",
            err=True,
        )
    document = {
        "baseline": comparison.baseline.name,
        "groups": comparison.summary.reset_index(),
        "runs": comparison.runs,
        "tests": comparison.tests,
        "claims": [claim._asdict() for claim in claims(comparison)],
        "warnings": comparison.warnings,
        "left_out": [{"run": each.run_id, "name": each.name, "why": each.why} for each in left_out],
        "files": written,
    }
    return Answer(document, 2 if damaged else 0)


def _show(comparison: Comparison) -> None:
    from qlib_ext.report.comparison.words import SHORT, SHOWN, claims, group_rows, metrics

    terminal = console()
    if comparison.synthetic:
        terminal.print(f"[bold yellow]{cell(comparison.synthetic)}[/bold yellow]")
    wanted = metrics(comparison, SHORT)
    terminal.print(
        _table(
            "Groups",
            ["Group", "Runs", *(SHOWN[metric][0].replace("Information", "Info.") for metric in wanted)],
            group_rows(comparison, wanted),
        )
    )
    if comparison.others:
        terminal.print(_tests(comparison))
    for claim in claims(comparison):
        terminal.print(f"{MARKS[claim.answer]} [bold]{cell(claim.said)}[/bold] {cell(claim.because)}")
    for warning in comparison.warnings:
        terminal.print(f"[yellow]![/yellow] {cell(warning)}")
    for each in comparison.left_out:
        terminal.print(f"[dim]left out[/dim] {cell(each.name)} ({each.run_id[:8]}): {cell(each.why)}")


def _show_paths(written: list[Path]) -> None:
    terminal = console()
    for path in written:  # one line each, however long: a path is there to be copied
        terminal.print(cell(str(path.resolve())), soft_wrap=True, highlight=False)


def _tests(comparison: Comparison) -> Table:
    """Differences to the baseline of all measures; the page has more columns."""
    from qlib_ext.report.comparison.compared import TESTED
    from qlib_ext.report.comparison.words import rows_of_tests

    made = _table(
        f"Against {comparison.baseline.name}",
        ["Group", "Difference", "95% interval", "p, Holm", "In the set"],
        [],
        whole=True,
    )
    for measure, name in TESTED.items():
        rows = rows_of_tests(comparison, measure)
        if rows:
            made.add_section()
            made.add_row(f"[bold]{cell(name)}[/bold]")
        for group, amount, interval, _, _, corrected, _, kept in rows:
            made.add_row(*map(cell, (group, amount, interval, corrected, kept)))
    return made


def _table(title: str, header: list[str], rows: list[list[str]], *, whole: bool = False) -> Table:
    """A table whose first column names the rows; `whole` keeps the other cells on one line each."""
    made = empty_table(title)
    narrow = None if whole else 9  # `0.0412 ± 0.0031` on two lines, so that 80 columns hold the table
    made.add_column(cell(header[0]), overflow="fold")
    for name in header[1:]:
        made.add_column(cell(name), justify="right", no_wrap=whole, max_width=narrow, overflow="fold")
    for row in rows:
        made.add_row(*map(cell, row))
    return made
