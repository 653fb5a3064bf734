"""`qlib-ext data import`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from qlib_ext.cli.answer import Answer
from qlib_ext.cli.data.summary import audit, described, facts
from qlib_ext.cli.options import pairs, settings_of
from qlib_ext.terminal import say


def import_bars(
    ctx: typer.Context,
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="CSV or Parquet file, or a folder of them; .gz too.")
    ],
    out: Annotated[Path, typer.Option(help="Directory to make, in Qlib's format.")],
    region: Annotated[str, typer.Option(help="cn or us: default exchange, form of the codes.")] = "cn",
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="FIELD=COLUMN where it is not recognised, such as close=Last; FIELD= for none. Repeat."
        ),
    ] = None,
    adjustment: Annotated[
        str,
        typer.Option(
            help="factor (raw prices and a factor), adj_close (raw prices and an adjusted close), actions (raw "
            "prices and splits and dividends), change (raw prices and a change that knows the ex-days), adjusted "
            "(as it is), none (raw, as it is), or auto."
        ),
    ] = "auto",
    actions: Annotated[
        Path | None, typer.Option(help="Table of date, code, split and dividend for raw prices.")
    ] = None,
    volume: Annotated[
        str, typer.Option(help="Whether volumes are raw or adjusted; auto: as prices are.")
    ] = "auto",
    volume_unit: Annotated[
        float | None, typer.Option(help="Shares in one unit of volume, such as 100; else by the prices.")
    ] = None,
    amount_unit: Annotated[
        float | None, typer.Option(help="Currency in one unit of amount, such as 1000; else by the prices.")
    ] = None,
    change: Annotated[
        str,
        typer.Option(help="Unit of the source's change: fraction, percent, computed (not used), or auto."),
    ] = "auto",
    calendar: Annotated[
        str, typer.Option(help="Days of the exchange, or every day of the data.")
    ] = "exchange",
    exchange: Annotated[
        str | None, typer.Option(help="Name in exchange_calendars; else XSHG for cn, XNYS for us.")
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(help="In which a timestamp's day is taken; else that of the exchange.")
    ] = None,
    date_format: Annotated[
        str | None, typer.Option(help="Of dates that are not ISO 8601, such as %m/%d/%Y.")
    ] = None,
    pattern: Annotated[str | None, typer.Option(help="Which files of the folder, such as '*.csv'.")] = None,
    encoding: Annotated[str, typer.Option(help="Of CSV files, such as gbk.")] = "utf-8",
    decimal: Annotated[
        str, typer.Option(help="Sign before decimals in CSV files: point, comma, or auto.")
    ] = "auto",
    duplicates: Annotated[
        str, typer.Option(help="Rows of a stock and day that contradict: error, first or last.")
    ] = "error",
    bad_values: Annotated[
        str, typer.Option(help="Values that are no number, infinite or negative: nan or error.")
    ] = "nan",
    zero_volume: Annotated[str, typer.Option(help="Rows with a volume of 0: keep or suspended.")] = "keep",
    universe: Annotated[str, typer.Option(help="Name of the universe of all but the benchmarks.")] = "stocks",
    benchmark: Annotated[
        list[str] | None, typer.Option(help="Code of an index or fund that is no stock to choose. Repeat.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the store at --out; its folder `side` is kept.")
    ] = False,
) -> Answer:
    """Make a store of your own daily bars, whole or not at all, and audit it."""
    from qlib_ext.market.importing.import_bars import import_bars
    from qlib_ext.market.importing.import_settings import ImportSettings
    from qlib_ext.terminal import shown_progress  # here, so that `qlib-ext --help` stays quick

    began = time.perf_counter()
    settings = ImportSettings(
        **settings_of(ctx, ImportSettings),
        columns=pairs("--column", column, "close=Last"),
        benchmarks=tuple(benchmark or ()),
    )
    with shown_progress() as progress:
        done = import_bars(source, out, settings, actions=actions, replace=replace, progress=progress)
    said = described(done.store, ", ".join(done.bars.fields))
    say(f"{out}: {said} ({time.perf_counter() - began:.1f} s)")
    for note in done.notes:
        say(f"note: {note}")
    audited = audit(out)
    if region == "us":
        variable = "" if universe == "stocks" else f" UNIVERSE={universe}"
        say(f"To use it: QLIB_DATA={out}{variable} qrun workflows/mimstocr_us.yaml")
    else:
        say(
            f"To use it: QLIB_DATA={out} qrun WORKFLOW, with `instruments: {universe}` and a benchmark of the store in "
            "the workflow"
        )
    return Answer({"store": out, **facts(done.store), "notes": done.notes, "audit": audited})
