"""From a user's files to bars in memory: read, put in order, adjusted, on a calendar."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError
from qlib_ext.market.adjustment import (
    Actions,
    adjusted,
    choose_adjustment,
    factor_of_actions,
    factor_of_columns,
    read_actions,
)
from qlib_ext.market.bars import Bars
from qlib_ext.market.calendars import exchange_days, exchange_timezone
from qlib_ext.market.codes import normalise_code
from qlib_ext.market.columns import KNOWN
from qlib_ext.market.import_settings import REGIONS, ImportSettings
from qlib_ext.market.notes import Notes
from qlib_ext.market.sources import Piece, SourceFile, bad_sentence, day_reader, pieces, scan
from qlib_ext.market.trading_days import DayReader
from qlib_ext.market.units import COMPUTED, check_vwap, choose_change, settle_units

Progress = Callable[[int, int, str], None]

RAW = tuple(field for field in KNOWN if field not in ("date", "code"))
ORDER = ("open", "high", "low", "close", "vwap", "volume", "amount", "factor", "change")
SMALL_SHARE = 0.01  # of rows or values; more than that is no dirt but a wrong option
# A step of the factor that a price can show; and how many steps make a judgement.
FACTOR_STEP, FACTOR_STEPS = 0.05, 10


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
    way = choose_adjustment(settings.adjustment, in_all, actions is not None)
    volume = _choose_volume(settings, way, in_all)
    reader = day_reader(settings, timezone)
    by_code = {} if actions is None else read_actions(actions, settings, reader, notes)

    if way == "adjusted" and settings.adjustment == "auto":
        notes.add(
            "prices taken as adjusted already, since nothing in the source adjusts them (if they are raw, see "
            "`--adjustment`)"
        )
    rows = _Rows(files, settings, reader, notes, progress)
    _check_bad_values(rows, notes)
    calendar = _calendar(rows, settings, exchange, notes)
    _note_unused(by_code, rows.codes, notes)

    fields = [field for field in rows.fields if field not in ("adj_close", "factor")]
    if way != "adjusted" or "factor" in rows.fields:
        fields.append("factor")
    fields.append(COMPUTED)
    shape = (len(rows.codes), len(calendar))
    table = {field: np.full(shape, np.nan, dtype=np.float32) for field in fields}
    judge = _FactorJudge()
    for index, (code, days, values) in enumerate(rows.instruments()):
        days, values = _one_row_a_day(code, days, values, settings, notes)
        open_days = np.isin(days, calendar)
        if settings.zero_volume == "suspended" and "volume" in values:
            idle = open_days & (values["volume"] == 0)
            notes.add(
                "{row} with a volume of 0: taken as suspended days, left out",
                idle.sum(),
                _at(code, days[idle]),
            )
            open_days &= ~idle
        days, values = days[open_days], {field: array[open_days] for field, array in values.items()}
        factor: np.ndarray | None
        if way == "actions":
            none = Actions(days[:0], np.empty(0), np.empty(0))
            factor = factor_of_actions(code, days, values["close"], by_code.get(code, none), notes)
        else:
            factor = factor_of_columns(code, days, values, way, notes)
        judge.see(values["close"], factor)
        bars = adjusted(values, way, volume, factor)
        bars[COMPUTED] = _rise(bars["close"])
        at = calendar.searchsorted(days)
        for field, array in bars.items():
            table[field][index, at] = array
    _judge_factor(judge, settings.adjustment, way, notes)
    _note_zero_volume(table, rows.codes, calendar, settings, notes)

    benchmarks = tuple(normalise_code(code, settings.region) for code in settings.benchmarks)
    stocks = np.array([code not in benchmarks for code in rows.codes])
    volume_unit, amount_unit = settle_units(table, stocks, settings, notes)
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
    ordered = [*(f for f in ORDER if f in table), *(f for f in table if f not in ORDER)]
    return Bars(
        calendar=pd.DatetimeIndex(calendar.astype("datetime64[ns]")),
        instruments=rows.codes,
        fields={field: table[field].T for field in ordered},
        notes=notes.sentences(),
        settings=decided,
    )


class _Rows:
    """The rows of all files, by instrument."""

    def __init__(
        self,
        files: list[SourceFile],
        settings: ImportSettings,
        reader: DayReader,
        notes: Notes,
        progress: Progress | None,
    ):
        there = {field for file in files for field in file.columns}
        extras = sorted(there - set(RAW) - {"date", "code"})
        self.fields = tuple(field for field in (*RAW, *extras) if field in there)
        self._parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        self.count = 0
        self.present = np.zeros(len(self.fields), dtype=np.int64)  # values that are there, by field
        days = np.empty(0, dtype="datetime64[D]")
        for done, file in enumerate(files):
            lacking = [field for field in self.fields if field not in file.columns]
            for field in lacking:
                notes.add(f"{{file}} without a column of `{field}`, which others have", 1, [file.path.name])
            empty = True
            for piece in pieces(file, self.fields, settings, reader, notes):
                empty = False
                self.count += len(piece.days)
                self.present += (~np.isnan(piece.values)).sum(axis=0)
                days = np.union1d(days, piece.days)
                for code, part in _by_code(piece):
                    self._parts.setdefault(code, []).append(part)
            if empty:
                notes.add("{file} without rows", 1, [file.path.name])
            if progress is not None:
                progress(done + 1, len(files), file.path.name)
        if not self._parts:
            raise UserError(
                f"the source has no rows: {len(files)} files, such as `{files[0].path}`, are empty"
            )
        self.codes = tuple(sorted(self._parts))
        self.days = days

    def rows_on(self, days: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Code and days of the rows on any of `days`."""
        for code in self.codes:
            own = np.concatenate([part for part, _ in self._parts[code]])
            hit = own[np.isin(own, days)]
            if hit.size:
                yield code, hit

    def instruments(self) -> Iterator[tuple[str, np.ndarray, dict[str, np.ndarray]]]:
        """Code, days and fields of each instrument in turn, in the order of the files; it can be read once."""
        for code in self.codes:
            parts = self._parts.pop(code)  # its memory is free once it is in the table
            days = np.concatenate([part for part, _ in parts])
            values = np.concatenate([part for _, part in parts])
            yield code, days, {field: values[:, index] for index, field in enumerate(self.fields)}


def _by_code(piece: Piece) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """The rows of each instrument of a piece, in their order."""
    if len(piece.codes) == 1:
        yield piece.codes[0], (piece.days, piece.values)
        return
    order = np.argsort(piece.code, kind="stable")
    days, values = piece.days[order], piece.values[order]
    edges = np.searchsorted(piece.code[order], np.arange(len(piece.codes) + 1))
    for code, first, after in zip(piece.codes, edges[:-1], edges[1:], strict=True):
        yield code, (days[first:after], values[first:after])


def _choose_volume(settings: ImportSettings, way: str, fields: set[str]) -> str:
    if settings.volume == "auto":
        return "adjusted" if way == "adjusted" else "raw"
    if settings.volume == "raw" and way == "adjusted" and "factor" not in fields:
        raise UserError(
            "a raw volume of adjusted prices can only be adjusted by a factor: name its column with "
            "`--column factor=NAME`, or say `--volume adjusted`"
        )
    return settings.volume


def _check_bad_values(rows: _Rows, notes: Notes) -> None:
    for field, present in zip(rows.fields, rows.present, strict=True):
        bad = notes.count(bad_sentence(field))
        if bad > SMALL_SHARE * (present + bad):
            places = "; ".join(notes.places(bad_sentence(field)))
            raise UserError(
                f"`{field}` must be finite numbers that are not negative, found {bad:,} of {present + bad:,} that are "
                f"not: {places}. Is it the right column, and the decimal sign a point?"
            )
    for field, present in zip(rows.fields, rows.present, strict=True):
        if field in ("open", "high", "low", "close", "volume"):
            known = notes.count(bad_sentence(field)) + notes.count(
                f"{{price}} of 0 in `{field}`: made missing"
            )
            notes.add(f"{{value}} of `{field}` missing in the source", rows.count - int(present) - known)


def _calendar(rows: _Rows, settings: ImportSettings, exchange: str, notes: Notes) -> np.ndarray:
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


def _one_row_a_day(
    code: str, days: np.ndarray, values: dict[str, np.ndarray], settings: ImportSettings, notes: Notes
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rows in the order of days, each day once."""
    order = np.argsort(days, kind="stable")
    if (np.diff(order) != 1).any():
        days, values = days[order], {field: array[order] for field, array in values.items()}
    again = np.flatnonzero(days[1:] == days[:-1]) + 1
    if not again.size:
        return days, values
    same = np.ones(len(again), dtype=bool)
    for array in values.values():
        now, before = array[again], array[again - 1]
        same &= (now == before) | (np.isnan(now) & np.isnan(before))
    notes.add("{row} that stood there twice: taken once", same.sum(), _at(code, days[again[same]]))
    contradict = again[~same]
    if contradict.size:
        if settings.duplicates == "error":
            day = days[contradict[0]]
            pair = [
                f"{field} {array[contradict[0] - 1]:g} and {array[contradict[0]]:g}"
                for field, array in values.items()
                if array[contradict[0] - 1] != array[contradict[0]]
            ]
            many = " Are these bars of less than a day?" if contradict.size > len(days) / 4 else ""
            raise UserError(
                f"{code} must have one row a day, found rows on {day} that contradict each other ({', '.join(pair)}), "
                f"and {contradict.size - 1:,} more of its rows like that; mend the source, or choose with "
                f"`--duplicates first` or `last`.{many}"
            )
        notes.add(
            f"{{row}} that contradict another of the same stock and day: the {settings.duplicates} taken",
            contradict.size,
            _at(code, days[contradict]),
        )
    different = days[1:] != days[:-1]
    keep = np.append(different, True) if settings.duplicates == "last" else np.insert(different, 0, True)
    return days[keep], {field: array[keep] for field, array in values.items()}


def _at(code: str, days: np.ndarray) -> Iterator[str]:
    return (f"{code} {day}" for day in days)


def _rise(close: np.ndarray) -> np.ndarray:
    """Close over the last close before, minus 1; NaN without one."""
    change = np.full(len(close), np.nan)
    there = np.flatnonzero(~np.isnan(close))
    change[there[1:]] = close[there[1:]] / close[there[:-1]] - 1
    return change


class _FactorJudge:
    """Whether the prices of a source are smoother with or without the factor, on the days of its steps."""

    def __init__(self) -> None:
        self.steps = self.raw = 0

    def see(self, close: np.ndarray, factor: np.ndarray | None) -> None:
        """Look at one instrument."""
        if factor is None:
            return
        there = ~(np.isnan(close) | np.isnan(factor))
        step = np.abs(np.diff(np.log(factor[there])))
        as_is = np.abs(np.diff(np.log(close[there])))
        times_factor = np.abs(np.diff(np.log(close[there] * factor[there])))
        seen = step > FACTOR_STEP
        self.steps += int(seen.sum())
        self.raw += int((times_factor < as_is)[seen].sum())


def _judge_factor(judge: _FactorJudge, asked: str, way: str, notes: Notes) -> None:
    if judge.steps < FACTOR_STEPS or way not in ("factor", "adjusted"):
        return
    share = judge.raw / judge.steps
    found = (
        f"on {judge.steps:,} days with a step of the factor, the prices times the factor move less than the prices as "
        f"they are on {share:.0%}"
    )
    if way == "factor" and share < 0.3:
        if asked == "auto":
            raise UserError(
                f"the prices seem to be adjusted already: {found}. Say `--adjustment adjusted`, or `--adjustment factor` "
                "if they are raw"
            )
        notes.add(f"the prices seem to be adjusted already, and were taken as raw: {found}")
    if way == "adjusted" and share > 0.7:
        notes.add(f"the prices seem to be raw, and were taken as adjusted: {found}")


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


def _note_unused(by_code: Mapping[str, Actions], codes: tuple[str, ...], notes: Notes) -> None:
    unused = sorted(set(by_code) - set(codes))
    notes.add("{instrument} with splits or dividends but no bars: not used", len(unused), unused)
