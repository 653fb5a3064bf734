"""`qlib-ext recommend`."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qlib_ext.checks import UserError
from qlib_ext.cli.answer import Answer
from qlib_ext.cli.options import Columns, Encoding, TrackingUri, pairs
from qlib_ext.paths import writable
from qlib_ext.terminal import cell, console, empty_table, say

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from qlib_ext.recommend.recommendation import Recommendation

FOLDER = Path("recommendations")
STANDING = {"suspended": "suspended", "limit_up": "limit up", "limit_down": "limit down", "new": "new"}


def recommend(
    run: Annotated[str, typer.Option(help="Run: id, first digits of it, name, or experiment (its newest).")],
    date: Annotated[
        str | None, typer.Option(help="Day to score; the newest of the store by default.")
    ] = None,
    top: Annotated[int, typer.Option(help="Stocks to show; the file has all of them.", min=1)] = 20,
    current: Annotated[
        Path | None, typer.Option(help="CSV of what is held (code, shares), for the orders of the next day.")
    ] = None,
    cash: Annotated[float | None, typer.Option(help="Cash of the account, in currency.")] = None,
    store: Annotated[
        Path | None, typer.Option(help="Store to score; that of the training by default.")
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="CSV or Parquet file of scores, in the place of the run's model; its newest day."),
    ] = None,
    column: Columns = None,
    encoding: Encoding = None,
    on_the_day: Annotated[
        bool,
        typer.Option(
            "--on-the-day",
            help="The store has the day of the trade: score the day before it, and size orders by its prices.",
        ),
    ] = False,
    memory: Annotated[
        Path | None,
        typer.Option(help="File in which the strategy keeps what it remembers from call to call."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="CSV file to write; recommendations/DAY-RUN.csv by default.")
    ] = None,
    tracking_uri: TrackingUri = None,
) -> Answer:
    """Rank the stocks of a day with a trained run, and ask its strategy for the orders of the next."""
    from qlib_ext.terminal import quiet_imports

    with quiet_imports():
        from qlib_ext.recommend.recommendation import recommend as run_recommend
    from qlib_ext.tracking.runs import connect

    logging.getLogger("qlib_ext").addHandler(logging.NullHandler())  # what matters is shown below
    if out is not None and (out.is_dir() or out.suffix.lower() != ".csv"):
        raise UserError(f"`--out` must be a CSV file such as list.csv, found {out}")
    if memory is not None:
        memory = memory.expanduser().absolute()
        writable(memory.parent, name="the folder of `--memory`", way_out="name another")
    writable(
        FOLDER if out is None else out.expanduser().absolute().parent,
        name="the folder of `--out`",
        way_out="name another",
    )
    with contextlib.redirect_stdout(io.StringIO()):
        found = run_recommend(
            connect(tracking_uri),
            run,
            store,
            date=date,
            current=current,
            cash=cash,
            scores=scores,
            columns=pairs("--column", column, "score=alpha", empty=False),
            encoding=encoding,
            on_the_day=on_the_day,
            memory=memory,
        )
    terminal = console()
    source = found.source
    for warning in found.warnings:
        say(f"warning: {warning}")
    for note in found.notes:
        say(f"note: {note}")
    scored = int(found.listed["rank"].notna().sum())
    say(
        f"{source['universe']} at the close of {source['day']}, by {source['run_name']} ({source['run'][:8]}): "
        f"{scored} stocks scored, {len(found.listed) - scored} without a score"
    )
    terminal.print(_table(found.listed.head(top)))
    if found.orders is not None:
        say(
            f"Orders of {source['trade_day']}, at its prices:"
            if on_the_day
            else "Orders of the next trading day, sized by the closes of this one:"
        )
        terminal.print(_order_table(found.orders))
    out = out or FOLDER / f"{found.source['day']}-{found.source['run'][:8]}.csv"
    written = _write(found, out.expanduser())
    if memory is not None and found.memory is not None:
        found.memory.write(memory)
        written.append(memory)
    say(f"Written: {', '.join(map(str, written))}")
    return Answer(
        {
            **source,
            "warnings": found.warnings,
            "notes": found.notes,
            "list": found.listed.reset_index(),
            "orders": found.orders,
            "files": written,
        }
    )


def _write(found: Recommendation, out: Path) -> list[Path]:
    """The list, the orders where there are any, and what both were made of."""
    out.parent.mkdir(parents=True, exist_ok=True)
    found.listed.to_csv(out)
    written = [out]
    if found.orders is not None:
        written.append(out.with_suffix(".orders.csv"))
        found.orders.to_csv(written[-1], index=False)
    facts = {**found.source, "warnings": found.warnings, "notes": found.notes}
    written.append(out.with_suffix(".json"))
    written[-1].write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return written


def _table(listed: pd.DataFrame) -> Table:
    made = empty_table()
    classes = [column for column in listed if column.endswith("_class")]
    texts = [column for column in ("name", "industry") if column in listed]
    for column in ("rank", "code", "score"):
        made.add_column(column, justify="left" if column == "code" else "right", no_wrap=True)
    for column in classes:
        head = column.replace("_", " ")
        made.add_column(cell(head), justify="right", min_width=max(map(len, head.split())), overflow="fold")
    if classes:
        made.add_column("probability", justify="right", no_wrap=True)
    made.add_column("close", justify="right", no_wrap=True)
    made.add_column(", ".join(texts), overflow="fold")  # together, so that they have room for whole words
    for code, row in listed.iterrows():
        cells = [_shown(row["rank"], "d"), cell(code), _shown(row["score"], ".5f")]
        cells += [_shown(row[column], "d") for column in classes]
        if classes:
            cells.append(
                " / ".join(
                    _shown(row.get(f"{name.removesuffix('_class')}_{_shown(row[name], 'd')}"), ".0%")
                    for name in classes
                )
            )
        cells.append(_shown(row["close"], ".2f"))
        told = [*(_text(row[column]) for column in texts)]
        told += [said for column, said in STANDING.items() if row[column]]
        cells.append(", ".join(filter(None, told)))
        made.add_row(*cells)
    return made


def _order_table(orders: pd.DataFrame) -> Table:
    made = empty_table()
    for column in ("", "code", "shares", "close", "value", "reason"):
        is_number = column in ("shares", "close", "value")
        made.add_column(
            column, justify="right" if is_number else "left", no_wrap=column != "reason", overflow="fold"
        )
    for row in orders.itertuples():
        made.add_row(
            cell(row.side),
            _text(row.instrument),
            f"{row.shares:,.10g}",
            f"{row.price:,.2f}",
            f"{row.value:,.0f}",
            cell(row.reason),
        )
    return made


def _shown(value: object, form: str) -> str:
    """A number in its format, an empty cell where there is none."""
    missing = value is None or str(value) == "<NA>" or value != value
    return "" if missing else format(int(value) if form == "d" else float(value), form)  # type: ignore[call-overload, arg-type]


def _text(value: object) -> str:
    """Text as it is: what looks like markup is none."""
    return cell(value) if isinstance(value, str) else ""
