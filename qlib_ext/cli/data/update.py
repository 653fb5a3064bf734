"""`qlib-ext data update`."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from qlib_ext.checks import counted
from qlib_ext.cli.answer import Answer
from qlib_ext.cli.data.import_bars import import_bars
from qlib_ext.cli.data.summary import facts
from qlib_ext.cli.options import pairs, settings_of
from qlib_ext.terminal import say

SHOWN = 10  # revised values
_IMPORT = get_type_hints(import_bars, include_extras=True)


def _as_import(option: str) -> Any:
    """The option of `qlib-ext data import`, with its help."""
    return _IMPORT[option].__metadata__[0]


def update(
    ctx: typer.Context,
    store: Annotated[Path, typer.Argument(help="The store to add to.")],
    source: Annotated[Path, typer.Argument(help="CSV or Parquet file, or a folder of them; .gz too.")],
    revise: Annotated[
        bool, typer.Option("--revise", help="Take the source's values where they contradict the store.")
    ] = False,
    allow_gap: Annotated[
        bool, typer.Option("--allow-gap", help="Leave days out on which the exchange traded.")
    ] = False,
    universes: Annotated[
        str, typer.Option(help="Open spells of universes: carry them forward, or keep them as they are.")
    ] = "carry",
    region: Annotated[str | None, _as_import("region")] = None,
    column: Annotated[list[str] | None, _as_import("column")] = None,
    adjustment: Annotated[str | None, _as_import("adjustment")] = None,
    actions: Annotated[Path | None, _as_import("actions")] = None,
    volume: Annotated[str | None, _as_import("volume")] = None,
    volume_unit: Annotated[float | None, _as_import("volume_unit")] = None,
    amount_unit: Annotated[float | None, _as_import("amount_unit")] = None,
    change: Annotated[str | None, _as_import("change")] = None,
    calendar: Annotated[str | None, _as_import("calendar")] = None,
    exchange: Annotated[str | None, _as_import("exchange")] = None,
    timezone: Annotated[str | None, _as_import("timezone")] = None,
    date_format: Annotated[str | None, _as_import("date_format")] = None,
    pattern: Annotated[str | None, _as_import("pattern")] = None,
    encoding: Annotated[str | None, _as_import("encoding")] = None,
    decimal: Annotated[str | None, _as_import("decimal")] = None,
    duplicates: Annotated[str | None, _as_import("duplicates")] = None,
    bad_values: Annotated[str | None, _as_import("bad_values")] = None,
    zero_volume: Annotated[str | None, _as_import("zero_volume")] = None,
) -> Answer:
    """Add the days and stocks that a source has beyond a store, whole or not at all.

    The source is read as that of the import was; an option says where it differs.
    """
    from qlib_ext.market.importing.import_settings import FILE, ImportSettings
    from qlib_ext.market.updates.update import update
    from qlib_ext.terminal import shown_progress  # here, so that `qlib-ext --help` stays quick

    began = time.perf_counter()
    store = store.expanduser()
    given = {name: value for name, value in settings_of(ctx, ImportSettings).items() if value is not None}
    settings = ImportSettings.load(store) if (store / FILE).is_file() else ImportSettings()
    if region not in (None, settings.region):
        given.setdefault("exchange", None)  # that of the other region
    columns = {**settings.columns, **pairs("--column", column, "close=Last")}
    settings = replace(settings, columns=columns, **given)
    with shown_progress() as progress:
        done = update(
            store,
            source,
            settings,
            actions=actions,
            revise=revise,
            allow_gap=allow_gap,
            universes=universes,
            progress=progress,
        )
    for note in done.notes:
        say(f"note: {note}")
    days = done.store.calendar
    document = {"store": store, **facts(done.store), "notes": done.notes, "changed": done.changed}
    if not done.changed:
        say(f"{store} has everything that {source} has, up to {days[-1].date()}: left as it is")
        return Answer(document)
    for revision in done.revisions[:SHOWN]:
        say(f"revised: {revision}")
    if len(done.revisions) > SHOWN:
        say(f"revised: and {len(done.revisions) - SHOWN:,} more values")
    added = f", {done.days[0].date()} to {done.days[-1].date()}" if len(done.days) else ""
    say(
        f"{store}: {counted(len(done.days), 'day')} added{added}, {counted(len(done.instruments), 'instrument')}, "
        f"{counted(done.rows, 'bar')}; {counted(len(done.revisions), 'value')} revised. It has "
        f"{counted(len(done.store.instruments()), 'instrument')} and {counted(len(days), 'day')} now "
        f"({time.perf_counter() - began:.1f} s)"
    )
    say(f"To check it: qlib-ext data check {store}")
    added_too = {"days_added": len(done.days), "instruments_added": done.instruments, "rows_added": done.rows}
    return Answer({**document, **added_too, "revised": [str(each) for each in done.revisions]})
