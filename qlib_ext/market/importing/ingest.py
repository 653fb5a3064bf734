"""From a user's files to bars in memory: read, put in order, adjusted, on a calendar."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError
from qlib_ext.market.codes import code_in_store
from qlib_ext.market.columns import REQUIRED, STATUSES
from qlib_ext.market.exchange_days import exchange_days, exchange_timezone
from qlib_ext.market.importing.adjustment import (
    Actions,
    adjusted,
    factor_of_actions,
    factor_of_change,
    factor_of_columns,
    read_actions,
)
from qlib_ext.market.importing.bars import Bars
from qlib_ext.market.importing.decision import BY_SUBTRACTION, Decision, actions_of_columns, decide
from qlib_ext.market.importing.evidence import STOCKS
from qlib_ext.market.importing.files import SourceFile, bad_sentence, day_reader, scan
from qlib_ext.market.importing.import_settings import REGIONS, ImportSettings
from qlib_ext.market.importing.notes import Notes, at
from qlib_ext.market.importing.rows import SourceRows, one_row_a_day
from qlib_ext.market.importing.units import COMPUTED, check_vwap, choose_change, settle_units
from qlib_ext.market.progress import Progress
from qlib_ext.market.traded_value import volume_kind

ORDER = ("open", "high", "low", "close", "vwap", "volume", "amount", "factor", "change")
SMALL_SHARE = 0.01  # of rows or values; more than that is no dirt but a wrong option
FEW_NEGATIVE = 5  # rows; fewer are typing errors


def read_bars(
    source: str | Path,
    settings: ImportSettings,
    *,
    actions: str | Path | None = None,
    progress: Progress | None = None,
) -> Bars:
    """Read a source of daily bars, adjust them, and put them on a calendar.

    Files are read one after the other, long ones in chunks; an instrument may be spread over several.

    Parameters
    ----------
    source
        A file, or a folder of files; with a column of codes, or one file an instrument that is named by its code.
    settings
        How it is read.
    actions
        A file of splits and dividends, for `adjustment="actions"`.
    progress
        Called with (done, total, what) after each file.

    Returns
    -------
    Bars
        float32, instruments sorted. `settings` has every `auto` decided, and reads further files of the same kind
        alike. `change` is close / close of the bar before - 1 where the source has none; the first bar has none.

    Raises
    ------
    UserError
        If the source cannot be read or understood, rows contradict each other, more than 1 % of its rows are of
        days without trading, or more than 1 % of the values of a field are bad.
    """
    notes = Notes()
    files = scan(source, settings, notes)
    in_all = set.intersection(*(set(file.columns) for file in files))
    exchange = settings.exchange or REGIONS[settings.region]
    timezone = settings.timezone or exchange_timezone(exchange)
    reader = day_reader(settings, timezone)
    by_code = None if actions is None else read_actions(actions, settings, reader, notes)
    rows = SourceRows(files, settings, reader, notes, progress)
    _check_bad_values(rows, notes)
    if "change" not in {field for file in files for field in file.columns}:
        in_all |= {"change"} & set(rows.fields)
    decision = decide(settings.adjustment, in_all, actions is not None, lambda: rows.some(STOCKS), notes)
    way = decision.way
    volume = _choose_volume(settings, way, in_all, rows, notes)
    _note_unused_columns(files, way, actions is not None, notes)
    calendar = _calendar(rows, settings, exchange, notes)
    _note_unused(by_code or {}, rows.codes, notes)

    table = _adjusted_table(rows, calendar, decision, volume, by_code, settings, notes)
    benchmarks = tuple(code_in_store(code, rows.codes) for code in settings.benchmarks)
    stocks = np.array([code not in benchmarks for code in rows.codes])
    volume_unit, amount_unit = settle_units(table, rows.codes, stocks, settings, notes)
    check_vwap(table, rows.codes, calendar, notes)
    change = choose_change(table, settings.change, notes)
    decided = dataclasses.replace(
        settings,
        adjustment=way,
        volume=volume,
        volume_unit=volume_unit,
        amount_unit=amount_unit,
        change=change,
        exchange=exchange,
        benchmarks=benchmarks,
    )
    _note_gaps(table["close"], rows.codes, calendar, notes)
    empty = [code for code, close in zip(rows.codes, table["close"], strict=True) if np.isnan(close).all()]
    notes.add("{instrument} without any close", len(empty), empty)
    if len(empty) == len(rows.codes):
        raise UserError("the source has no close on any trading day: is `close` the right column?")
    for field in [field for field, values in table.items() if np.isnan(values).all()]:
        notes.add(f"no `{field}`: it has no value on any day")
        del table[field]
    ordered = [*(f for f in ORDER if f in table), *(f for f in table if f not in ORDER)]
    return Bars(
        calendar=pd.DatetimeIndex(calendar.astype("datetime64[ns]")),
        instruments=rows.codes,
        fields={field: table[field].T for field in ordered},
        notes=notes.sentences(),
        settings=decided,
    )


def _adjusted_table(
    rows: SourceRows,
    calendar: np.ndarray,
    decision: Decision,
    volume: str,
    actions: Mapping[str, Actions] | None,
    settings: ImportSettings,
    notes: Notes,
) -> dict[str, np.ndarray]:
    """Adjusted fields, and the rises of the adjusted closes, on the calendar: float32 `[S, D]` each."""
    way = decision.way
    fields = [field for field in rows.fields if field not in ("adj_close", "factor", *STATUSES)]
    if way != "adjusted" or "factor" in rows.fields:
        fields.append("factor")
    shape = (len(rows.codes), len(calendar))
    table = {field: np.full(shape, np.nan, dtype=np.float32) for field in (*fields, COMPUTED)}
    for index, (code, days, values) in enumerate(rows.instruments()):
        days, values = one_row_a_day(code, days, values, settings.duplicates, notes)
        _mark_idle_days(code, days, values, notes)
        kept = np.isin(days, calendar)
        if settings.zero_volume == "suspended" and "volume" in values:
            idle = kept & (values["volume"] == 0)
            notes.add("{row} with a volume of 0: suspended days, left out", idle.sum(), at(code, days[idle]))
            kept &= ~idle
        days, values = days[kept], {field: array[kept] for field, array in values.items()}
        factor: np.ndarray | None
        if way == "actions":
            own = actions_of_columns(days, values, decision.splits) if actions is None else actions.get(code)
            factor = factor_of_actions(code, days, values["close"], own, notes)
        elif way == "change":
            factor = factor_of_change(values["close"], values["change"])
        else:
            factor = factor_of_columns(code, days, values, way, notes)
        bars = adjusted(values, way, volume, factor)
        bars[COMPUTED] = _rise(bars["close"])
        position = calendar.searchsorted(days)
        for field, array in bars.items():
            table[field][index, position] = array
    _note_zero_volume(table, rows.codes, calendar, settings, notes)
    return table


def _choose_volume(
    settings: ImportSettings, way: str, fields: set[str], rows: SourceRows, notes: Notes
) -> str:
    if settings.volume == "auto" and way == "adjusted" and {"factor", "volume"} <= fields:
        some = list(rows.some(STOCKS))
        kind = volume_kind(
            *(np.concatenate([values[field] for values in some]) for field in ("volume", "factor"))
        )
        if kind == "raw":
            notes.add(
                "volumes are whole shares beside adjusted prices: taken as raw (`--volume adjusted` if they are not)"
            )
        return kind or "adjusted"
    if settings.volume == "auto":
        return "adjusted" if way == "adjusted" else "raw"
    if settings.volume == "raw" and way == "adjusted" and "factor" not in fields:
        raise UserError(
            "a raw volume of adjusted prices can only be adjusted by a factor: name its column with "
            "`--column factor=NAME`, or say `--volume adjusted`"
        )
    return settings.volume


def _check_bad_values(rows: SourceRows, notes: Notes) -> None:
    if rows.negative >= FEW_NEGATIVE:
        raise UserError(
            f"{rows.negative:,} of {rows.count:,} rows have prices below 0, first {rows.first_negative}: {BY_SUBTRACTION}"
        )
    for field, present in rows.present.items():
        bad = notes.count(bad_sentence(field))
        if bad > SMALL_SHARE * (present + bad):
            places = "; ".join(notes.places(bad_sentence(field)))
            raise UserError(
                f"`{field}` must be finite numbers that are not negative, found {bad:,} of {present + bad:,} that are "
                f"not: {places}. Is it the right column, and the decimal sign a point?"
                + ("" if field in REQUIRED else f" `--column {field}=` leaves it out")
            )
    for field, present in rows.present.items():
        if field in ("open", "high", "low", "close", "volume"):
            known = notes.count(bad_sentence(field)) + notes.count(
                f"{{price}} of 0 in `{field}`: made missing"
            )
            notes.add(f"{{value}} of `{field}` missing in the source", rows.count - present - known)


def _calendar(rows: SourceRows, settings: ImportSettings, exchange: str, notes: Notes) -> np.ndarray:
    """Trading days, datetime64[D]."""
    days = rows.days
    if settings.calendar == "data":
        weekend = days[~np.is_busday(days)]
        notes.add("{day} of the data on a weekend: kept as trading days", len(weekend), map(str, weekend))
        return days
    first, last = pd.Timestamp(days[0]), pd.Timestamp(days[-1])
    sessions = exchange_days(exchange, first, last).to_numpy().astype("datetime64[D]")
    closed = np.setdiff1d(days, sessions)
    if closed.size:
        hits = list(rows.rows_on(closed))
        count = sum(len(hit) for _, hit in hits)
        where = (f"{code} {day}" for code, hit in hits for day in hit)
        if count > SMALL_SHARE * rows.count:
            raise UserError(
                f"{count:,} of {rows.count:,} rows are of days on which {exchange} did not trade, such as "
                f"{', '.join(place for place, _ in zip(where, range(3), strict=False))}: name the exchange with "
                "`--exchange`, the time zone with `--timezone`, or take the days of the data with `--calendar data`"
            )
        notes.add(f"{{row}} of days on which {exchange} did not trade: left out", count, where)
    without = np.setdiff1d(sessions, days)
    notes.add(
        f"{{day}} on which {exchange} traded without a row in the data", len(without), map(str, without)
    )
    if not sessions.size:
        raise UserError(
            f"no row is of a day on which {exchange} traded; take the days with `--calendar data`"
        )
    return sessions


def _rise(close: np.ndarray) -> np.ndarray:
    """Close over the last close before, minus 1; NaN without one."""
    change = np.full(len(close), np.nan)
    there = np.flatnonzero(~np.isnan(close))
    change[there[1:]] = close[there[1:]] / close[there[:-1]] - 1
    return change


def _mark_idle_days(code: str, days: np.ndarray, values: dict[str, np.ndarray], notes: Notes) -> None:
    """Give days without trade a volume of 0: those that a status says, and a close without volume or amount."""
    if "volume" not in values:
        return
    volume, nothing = values["volume"], np.full(len(days), np.nan)
    traded, paused = (values.get(status, nothing) for status in ("traded", "paused"))
    said = ((traded == 0) | (paused > 0)) & ~np.isnan(values["close"])
    moved = said & (volume > 0)
    notes.add(
        "{row} that a status column calls suspended and that have a volume: kept as traded",
        moved.sum(),
        at(code, days[moved]),
    )
    idle = said & ~moved & (volume != 0)
    notes.add(
        "{row} that a status column calls suspended: days without trade", idle.sum(), at(code, days[idle])
    )
    empty = np.isnan(volume) & ~np.isnan(values["close"]) & ~said & (volume > 0).any()
    empty &= ~(values.get("amount", nothing) > 0) & ~(traded > 0)
    notes.add(
        "{row} with a close and no volume: days without trade, as with a volume of 0",
        empty.sum(),
        at(code, days[empty]),
    )
    for field in ("volume", "amount"):
        if field in values:
            values[field] = np.where(idle | empty, 0.0, values[field])


def _note_zero_volume(
    table: Mapping[str, np.ndarray],
    codes: tuple[str, ...],
    calendar: np.ndarray,
    settings: ImportSettings,
    notes: Notes,
) -> None:
    if "volume" not in table or settings.zero_volume == "suspended":
        return
    stock, day = np.nonzero(table["volume"] == 0)
    notes.add(
        "{bar} with a volume of 0: kept (`--zero-volume suspended` leaves them out)",
        len(stock),
        (f"{codes[s]} {calendar[d]}" for s, d in zip(stock, day, strict=True)),
    )


def _note_gaps(close: np.ndarray, codes: tuple[str, ...], calendar: np.ndarray, notes: Notes) -> None:
    """Count the days without a close between the first and the last close of each instrument."""
    there = ~np.isnan(close)
    begun = np.logical_or.accumulate(there, axis=1)
    to_come = np.logical_or.accumulate(there[:, ::-1], axis=1)[:, ::-1]
    stock, day = np.nonzero(begun & to_come & ~there)
    notes.add(
        "{day} without a close between the first and the last close of an instrument: missing, as on suspended days",
        len(stock),
        (f"{codes[s]} {calendar[d]}" for s, d in zip(stock, day, strict=True)),
    )


def _note_unused_columns(files: list[SourceFile], way: str, has_actions: bool, notes: Notes) -> None:
    """Name the columns that nothing is made of."""
    used = {"factor": ("factor", "adjusted"), "adj_close": ("adj_close",), "preclose": ("change",)}
    used |= dict.fromkeys(("split", "dividend"), () if has_actions else ("actions",))
    idle = [field for field, ways in used.items() if way not in ways]
    unused = [
        name
        for file in files
        for name in (*(file.columns[f] for f in idle if f in file.columns), *file.unused)
    ]
    if unused:
        notes.add(
            f"columns of the source that are not used: {', '.join(map(repr, dict.fromkeys(unused)))} (`--column "
            "NAME=COLUMN` imports one as a field of its own)"
        )


def _note_unused(by_code: Mapping[str, Actions], codes: tuple[str, ...], notes: Notes) -> None:
    unused = sorted(set(by_code) - set(codes))
    notes.add("{instrument} with splits or dividends but no bars: not used", len(unused), unused)
