"""`qlib-ext data side-data`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qlib_ext.checks import counted
from qlib_ext.cli.answer import Answer
from qlib_ext.cli.options import pairs, words
from qlib_ext.terminal import say

if TYPE_CHECKING:
    import pandas as pd

    from qlib_ext.market.side_data.table import SideTable


def side_data(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The store, in Qlib's format.")],
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="market_value, industry, concepts, macro, or another name.")
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV or Parquet.")],
    shape: Annotated[
        str | None, typer.Option(help="spells, values, market or series, where the columns do not tell.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="FIELD=COLUMN where it is not recognised, such as market_value=total_mv; COLUMN= to leave it out. "
            "Repeat."
        ),
    ] = None,
    lag: Annotated[
        list[str] | None,
        typer.Option(
            help="SERIES=LAG for figures without a release date: quarterly (end+60d), monthly (month+45d), rate "
            "(end+1b), or one of this form; a LAG alone is for all others. Repeat, or divide by commas."
        ),
    ] = None,
    frequency: Annotated[
        list[str] | None,
        typer.Option(
            help="SERIES=day|month|quarter|year, where periods are written as days; one alone is for all others."
        ),
    ] = None,
    until: Annotated[
        str, typer.Option(help="What the end of a spell is: last-day or first-day-out.")
    ] = "last-day",
    exchange: Annotated[
        str | None,
        typer.Option(
            help="Name in exchange_calendars, such as XSHG: times of day after its close count for the next day. By "
            "default that of the store."
        ),
    ] = None,
    several: Annotated[
        str,
        typer.Option(help="Which of the rows that were known for the same close counts: newest or mean."),
    ] = "newest",
    after_close: Annotated[
        bool, typer.Option("--after-close", help="Days without a time are known on the next day.")
    ] = False,
    encoding: Annotated[str, typer.Option(help="Of a CSV file, such as gbk.")] = "utf-8",
    replace: Annotated[bool, typer.Option("--replace", help="Replace a table of this name.")] = False,
) -> Answer:
    """Bring market values, industries, macro series or any other numbers into a store, with the day each was known."""
    from qlib_ext.market.side_data import import_table  # here, so that `qlib-ext --help` stays quick

    done = import_table.import_table(
        directory,
        name,
        file,
        shape=shape,
        columns=pairs("--column", column, "FIELD=COLUMN"),
        lags=pairs("--lag", words(lag), "SERIES=LAG", alone=True),
        frequencies=pairs("--frequency", words(frequency), "SERIES=FREQUENCY", alone=True),
        until=until,
        exchange=exchange,
        several=several,
        after_close=after_close,
        encoding=encoding,
        replace=replace,
    )
    say(f"{done.path}: {_told(done.table)}")
    for note in done.notes:
        say(f"  note: {note}")
    document = {
        "file": done.path,
        "shape": done.table.shape,
        "rows": len(done.table.frame),
        "notes": done.notes,
    }
    return Answer(document, then=f"qlib-ext data check {directory}")


def _told(table: SideTable) -> str:
    """What the table holds, for the terminal."""
    rows = table.frame
    if table.shape == "series":
        known, series = rows["release_date"], sorted(rows["series"].astype(str).unique())
        return (
            f"{counted(len(rows), 'figure')}, {len(series):,} series ({', '.join(series)}), released from "
            f"{known.min():%Y-%m-%d} to {known.max():%Y-%m-%d}"
        )
    if table.shape == "market":
        return f"{_span(rows['datetime'])}: {', '.join(table.columns)}"
    stocks = counted(rows["instrument"].nunique(), "stock")
    if table.shape == "spells":
        names = counted(rows[table.column].nunique(), "name")
        return (
            f"{counted(len(rows), 'spell')}, {stocks}, {names}, the first from {rows['start'].min():%Y-%m-%d}"
        )
    if len(table.columns) > 1:
        return f"{counted(len(rows), 'row')}, {stocks}, {_span(rows['datetime'])}: {', '.join(table.columns)}"
    return f"{counted(len(rows), 'value')}, {stocks}, {_span(rows['datetime'])}"


def _span(days: pd.Series) -> str:
    return f"{counted(days.nunique(), 'day')} from {days.min():%Y-%m-%d} to {days.max():%Y-%m-%d}"
