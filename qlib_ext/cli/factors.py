"""`qlib-ext factors`."""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qlib_ext.checks import UserError, counted
from qlib_ext.cli.answer import Answer
from qlib_ext.cli.options import words
from qlib_ext.terminal import cell, console, empty_table, say, visible

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from qlib_ext.factors.scorecard import Scorecard
    from qlib_ext.factors.subject import Subject

FOLDER = Path("reports/factors")


def factors(
    what: Annotated[
        Path,
        typer.Argument(
            metavar="WORKFLOW|FILE",
            help="A workflow, for the features of its dataset; or a file of expressions (.yaml, .txt) or of ready values "
            "(.csv, .parquet).",
        ),
    ],
    segment: Annotated[
        list[str] | None,
        typer.Option(
            help="Segments of the workflow to judge on; may be given several times.",
            show_default="train,valid",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="What a factor is to foretell: a label of the workflow, or an expression.",
            show_default="the return that can be traded",
        ),
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Of a FILE: the store, in Qlib's format.")] = None,
    universe: Annotated[str | None, typer.Option(help="Of a FILE: the universe to judge on.")] = None,
    start: Annotated[str | None, typer.Option(help="Of a FILE: the first day to judge on.")] = None,
    end: Annotated[str | None, typer.Option(help="Of a FILE: the last day; no later bar is read.")] = None,
    every_lag: Annotated[
        bool, typer.Option("--every-lag", help="Judge each day of a window, not the newest alone.")
    ] = False,
    top: Annotated[int, typer.Option(help="Factors to print; page and CSV have all.", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Of the noise.", min=0)] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the page and the tables.", show_default=f"{FOLDER}/NAME"),
    ] = None,
    csv: Annotated[
        bool, typer.Option("--csv", help="Print the table of factors as CSV, and nothing else.")
    ] = False,
) -> Answer:
    """Judge each feature alone: IC and its decay, turnover, steadiness, exposures, noise, and how alike they are.

    Writes a page (factors.html) and tables (factors.csv, years.csv, decay.csv, correlations.csv). No test day is read
    unless it is asked for.
    """
    from qlib_ext.paths import file_name, writable
    from qlib_ext.terminal import quiet_imports, shown_progress

    with quiet_imports():
        import qlib_ext.workflow.task  # noqa: F401  # of a workflow, below
        from qlib_ext.factors.ledger import entered
        from qlib_ext.factors.page import render
        from qlib_ext.factors.reading import is_workflow
        from qlib_ext.factors.scorecard import scorecard
        from qlib_ext.factors.words import alarms, remarks, summary

    logging.getLogger("qlib_ext").addHandler(logging.NullHandler())  # what matters is shown below
    of_workflow = is_workflow(what)
    folder = out or FOLDER / (file_name(what.stem).strip("-.") or "factors")
    writable(folder, name="`--out`", way_out="name another")
    of_file: dict[str, Any] = {"store": store, "universe": universe, "start": start, "end": end}
    for name, given in of_file.items():
        if of_workflow and given is not None:
            raise UserError(f"`--{name}` belongs to a FILE: a workflow says its own, found {str(given)!r}")
    if not of_workflow and segment:
        raise UserError("`--segment` belongs to a WORKFLOW: a FILE has `--start` and `--end`")
    with shown_progress() as progress, contextlib.redirect_stdout(io.StringIO()):
        subject = _of_workflow(what, segment, label) if of_workflow else _of_file(what, label, **of_file)
        found = scorecard(subject, every_lag=every_lag, seed=seed, progress=progress)
        if found.test_was_read:
            found.notes.append(entered(found, subject))
    page = render(found)
    if csv:
        say(_csv(found.table).removesuffix("\n"), lines=True)
    else:
        _show(found, top)
    written = _write(folder, page, found)
    if not csv:
        terminal = console()
        for path in written:  # one line each, however long: a path is there to be copied
            terminal.print(cell(str(path.resolve())), soft_wrap=True, highlight=False)
    return Answer(
        {
            "facts": found.facts,
            "test_was_read": found.test_was_read,
            "look_ahead": [*alarms(found)],
            "summary": [*summary(found)],
            "notes": [*remarks(found)],
            "factors": found.table.reset_index(),
            "files": written,
        }
    )


def _of_workflow(path: Path, segment: list[str] | None, label: str | None) -> Subject:
    from qlib_ext.factors.subject import of_workflow
    from qlib_ext.lookahead.provider import start
    from qlib_ext.workflow.read import read_workflow
    from qlib_ext.workflow.settings import check_settings
    from qlib_ext.workflow.task import check_task

    config = read_workflow(path)
    check_settings(config)
    start(config["qlib_init"])
    check_task(config["task"], writes=False)
    return of_workflow(path.name, config["task"], words(segment), label)


def _of_file(
    path: Path, label: str | None, *, store: Path | None, universe: str | None, **days: Any
) -> Subject:
    from qlib_ext.factors.reading import read_factors
    from qlib_ext.factors.subject import of_file
    from qlib_ext.market.store import QlibStore

    if store is None or universe is None:
        raise UserError("a FILE needs `--store DIR` and `--universe NAME`, which a workflow says itself")
    opened = QlibStore(store)
    source = read_factors(path, set(opened.instruments()))
    return of_file(path.name, opened, universe, source, label=label, **days)


def _write(folder: Path, page: str, found: Scorecard) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        "factors.csv": found.table,
        "years.csv": found.years,
        "decay.csv": found.decay,
        "correlations.csv": found.correlation,
    }
    for name, table in tables.items():
        (folder / name).write_text(_csv(table), encoding="utf-8")
    (folder / "factors.html").write_text(page, encoding="utf-8")
    return [folder / "factors.html", *(folder / name for name in tables)]


def _csv(table: pd.DataFrame) -> str:
    """A table as CSV, whose names move no cursor and begin no line."""
    plain = table.reset_index()
    return (
        plain.rename(columns=visible)
        .map(lambda each: visible(each) if isinstance(each, str) else each)
        .to_csv(index=False)
    )


# -- the terminal ------------------------------------------------------------------------------------------


def _show(found: Scorecard, top: int) -> None:
    terminal = console()
    facts = found.facts
    say(
        f"{facts['Judged']} on {facts['Store']}, {facts['Universe']}: {facts['Days judged']}; label {facts['Label']}"
    )
    for line in _before(found):
        say(line)
    best = found.best.head(top)
    if len(best):
        terminal.print(_telling(best))
        terminal.print(_made_of(best))
        if len(found.best) > len(best):
            say(f"and {counted(len(found.best) - len(best), 'more factor')}, in the page and in factors.csv")
    for line in _after(found):
        say(line)


def _before(found: Scorecard) -> Iterator[str]:
    from qlib_ext.factors.words import alarms

    if found.test_was_read:
        yield f"TEST: {found.notes[0]}"
    yield from (f"LOOK-AHEAD {alarm}" for alarm in alarms(found))


def _after(found: Scorecard) -> Iterator[str]:
    from qlib_ext.factors.words import remarks, summary

    yield ""
    yield from summary(found)
    for name in ("size", "industry"):
        if found.table[name].isna().all():
            yield f"note: {name} is not known: {found.told[name]}"
    yield from (f"note: {remark}" for remark in remarks(found))


def _telling(best: pd.DataFrame) -> Table:
    made = _table("What they foretell", "RankIC", "95% interval", "t", "q", "IC", "ICIR", "Years", "Worst")
    for name, row in best.iterrows():
        made.add_row(
            cell(name),
            _number(row["rank_ic"], 4),
            f"{_number(row['rank_ic_low'], 3)} to {_number(row['rank_ic_high'], 3)}",
            _number(row["t"], 1),
            _small(row["q"]),
            _number(row["ic"], 3),
            _number(row["rank_icir"], 2),
            f"{row['years_same_sign']:.0%}",
            _number(row["worst_year_rank_ic"], 3),
        )
    return made


def _made_of(best: pd.DataFrame) -> Table:
    heads = "Half", "Turn", "Cover", "Size", "Beta", "Vol", "Rev", "Ind", "Left", "Noise", "Cl"
    made = _table("What they are made of", *heads)
    for name, row in best.iterrows():
        days = row["half_life_days"]
        made.add_row(
            cell(name),
            ">20d" if math.isinf(days) else "" if math.isnan(days) else f"{days:.0f}d",
            _share(row["turnover"]),
            _share(row["coverage"]),
            *(_number(row[each], 2) for each in ("size", "beta", "volatility", "reversal")),
            _share(row["industry"]),
            _number(row["neutral_rank_ic"], 3),
            _number(row["noise_correlation"], 2),
            str(row["cluster"]),
        )
    return made


def _table(title: str, *heads: str) -> Table:
    made = empty_table(title)
    made.add_column("Factor", overflow="fold", min_width=7)
    for head in heads:
        made.add_column(head, justify="right", no_wrap=True)
    return made


def _number(value: float, digits: int) -> str:
    if math.isnan(value):
        return ""
    shown = f"{value:.{digits}f}"
    return shown.lstrip("-") if float(shown) == 0 else shown


def _share(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.0%}"


def _small(value: float) -> str:
    return "" if math.isnan(value) else "<.001" if value < 0.001 else f"{value:.3f}".lstrip("0")
