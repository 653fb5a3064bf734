"""Values of single bars: numbers that cannot be, and prices of one day that contradict each other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from qlib_ext.market.codes import is_index
from qlib_ext.market.finding import Findings, Kind, listed
from qlib_ext.market.quality.series import Series
from qlib_ext.market.quality.source import PRICES, Block, Source

# Prices are float32 and adjusted ones are rounded by whoever adjusts them: four digits of agreement are asked for.
RANGE_TOLERANCE = 1e-4
# vwap is amount / volume, and vendors round both: to 1000 yuan and to lots of 100 shares.
VWAP_TOLERANCE = 5e-3
AMOUNT_TOLERANCE = 1e-2
# A raw price is a whole number of cents; 0.1 cent and the rounding of two float32 are let pass. Of 1.5 million bars of
# liquid A shares from 2010 to 2020 none is off.
TICK_TOLERANCE, TICK_ROUNDING = 0.1, 3e-7
TICK_CODES = ("SH60", "SH68", "SZ00", "SZ30")
# Higher than any adjusted price (81,366 in ten years of A shares), lower than any (below a hundredth of a cent).
HIGHEST_PRICE, LOWEST_PRICE = 1e8, 1e-6
HIGHEST_VOLUME = 1e14
# Real fields never stand still for a quarter of a year of trading.
CONSTANT_DAYS = 60
# What more than half of at least this many stocks show is a convention of the store, and told once.
MANY_STOCKS = 5

Say = str | Callable[[int, int], str]

KINDS = (
    Kind("value-infinite", "error", "a field holds infinity",
         "it spreads through every mean and every normalisation of its day", "replaces it by NaN"),
    Kind("value-absurd", "error", "a price or volume is far beyond what any market has",
         "the file holds something else than float32, or is damaged"),
    Kind("price-negative", "error", "a price is below zero", "returns on it mean nothing", "replaces it by NaN"),
    Kind("price-zero", "error", "a price is zero", "a return to it is -100 %, one from it infinite",
         "replaces it by NaN"),
    Kind("volume-negative", "error", "a volume or traded amount is below zero",
         "features and costs on it mean nothing", "replaces it by NaN"),
    Kind("high-below-low", "error", "the high is below the low", "columns were mixed up, or the bar is wrong"),
    Kind("close-outside-range", "warning", "the close lies above the high or below the low",
         "one of the three is wrong, and the close makes the labels; a few cents may be the auction's"),
    Kind("open-outside-range", "warning", "the open lies above the high or below the low",
         "one of the three is wrong; no label needs them"),
    Kind("vwap-outside-range", "warning", "vwap lies above the high or below the low",
         "it is adjusted differently, or in another unit"),
    Kind("amount-inconsistent", "warning", "amount is not volume × vwap, measured by the stock's own median ratio",
         "one of the three is wrong on these days"),
    Kind("volume-raw", "note", "amount is volume × vwap / factor: volumes are in raw shares, prices are adjusted",
         "volume × price is not the money traded, and volumes jump on the day of a split"),
    Kind("price-off-tick", "warning", "close / factor is no whole cent, the tick of the exchanges of mainland China",
         "the price or the factor is wrong, or adjusted prices were rounded: lots are sized by raw prices"),
    Kind("amount-unit", "note", "amount is a fixed multiple of volume × vwap",
         "it is in another unit, such as thousands; whoever reads it must know"),
    Kind("close-missing", "error", "there is a volume and no close",
         "the day has no return although the stock traded"),
    Kind("price-missing", "warning", "there is a close, and open, high or low is missing",
         "features of the day are filled up instead of known"),
    Kind("volume-missing", "warning", "there is a close and no volume, in a stock that has volumes",
         "the backtest takes it for a day without trade, and nobody can tell whether it was one"),
    Kind("volume-zero-with-range", "warning", "volume is zero, and high and low differ",
         "prices moved without a trade: the volume or the prices are wrong"),
    Kind("field-empty", "warning", "a file of bars holds NaN only", "the field looks as if it were there"),
    Kind("field-constant", "warning",
         f"a price, volume or amount is the same number on all of at least {CONSTANT_DAYS} days",
         "a column was filled with a placeholder"),
)  # fmt: skip


class BarChecks:
    """Single bars, block by block.

    Parameters
    ----------
    source, found
        What is checked, and where findings go.
    region
        Raw prices of `cn` are whole cents.
    """

    def __init__(self, source: Source, found: Findings, region: str | None):
        self._days = source.days
        self._found = found
        self._cells = partial(cells, found, source.days)
        self._ticks = region == "cn"
        self._ratios: list[tuple[str, float]] = []
        self._raw_volumes: list[str] = []
        self._with_ticks = 0
        self._off_tick: list[tuple[str, str, np.ndarray, np.ndarray]] = []

    def check(self, series: Series) -> None:
        """One block."""
        block, field = series.block, series.field
        for name, values in block.values.items():
            self._check_field(block, name, values)
            self._check_presence(series, name, values)
        high, low, close, opened = (field(name) for name in ("high", "low", "close", "open"))
        crossed = high < low * (1 - RANGE_TOLERANCE)
        self._cells("high-below-low", block, "high", crossed, "high {:.6g}, low {:.6g}", high, low)
        sound = (high >= low) & (low > 0)
        for name, values, kind, tolerance in (
            ("close", close, "close-outside-range", RANGE_TOLERANCE),
            ("open", opened, "open-outside-range", RANGE_TOLERANCE),
            ("vwap", field("vwap"), "vwap-outside-range", VWAP_TOLERANCE),
        ):
            outside = (values > high * (1 + tolerance)) | (values < low * (1 - tolerance))
            sound_outside = outside & sound & (values > 0) & np.isfinite(values)
            said = f"{name} {{:.6g}} with low {{:.6g}} and high {{:.6g}}"
            self._cells(kind, block, name, sound_outside, said, values, low, high)
        self._check_volume(series)
        self._check_amount(series)
        if self._ticks:
            self._check_ticks(series)

    def _check_field(self, block: Block, name: str, values: np.ndarray) -> None:
        """One field by itself: `values` float32 `[S, D]`."""
        sound = np.isfinite(values)
        self._one("value-infinite", block, name, np.isinf(values), values)
        if name in PRICES:
            self._one("price-negative", block, name, (values < 0) & sound, values)
            self._one("price-zero", block, name, values == 0, values)
            absurd = (values > HIGHEST_PRICE) | ((values > 0) & (values < LOWEST_PRICE))
            self._one("value-absurd", block, name, absurd & sound, values)
        elif name in ("volume", "amount"):
            self._one("volume-negative", block, name, (values < 0) & sound, values)
            absurd = (values > HIGHEST_VOLUME) | ((values > 0) & (values < LOWEST_PRICE))
            self._one("value-absurd", block, name, absurd & sound, values)

    def _one(self, kind: str, block: Block, name: str, mask: np.ndarray, values: np.ndarray) -> None:
        self._cells(kind, block, name, mask, f"{name} is {{:.6g}}", values)

    def _check_presence(self, series: Series, name: str, values: np.ndarray) -> None:
        """Files that hold nothing, or one number for ever."""
        block = series.block
        there = ~np.isnan(values)
        count = there.sum(axis=1)
        for row in np.flatnonzero(count == 0).tolist():
            if block.has(name)[row]:
                file = block.file(row, name)
                self._found.add(
                    "field-empty", f"{file} holds NaN only", file=file, instrument=block.codes[row]
                )
        # Indices may have no volume, and stand at 0; what does not move at all is caught as a stale run instead.
        if name in (*PRICES, "volume", "amount"):
            top, bottom = np.fmax.reduce(values, axis=1), np.fmin.reduce(values, axis=1)
            same = (count >= CONSTANT_DAYS) & (top == bottom)
            for row in np.flatnonzero(same).tolist():
                code = block.codes[row]
                if name in ("volume", "amount") and is_index(code) and top[row] == 0:
                    continue
                message = f"{code}: {name} is {top[row]:.6g} on all of its {count[row]} days"
                self._found.add(
                    "field-constant",
                    message,
                    block.file(row, name),
                    code,
                    self._days[np.argmax(there[row])],
                    count[row],
                )

    def _check_volume(self, series: Series) -> None:
        block, field = series.block, series.field
        volume, close = field("volume"), field("close")
        unpriced = (volume > 0) & np.isnan(close) & block.has("close")[:, None]
        self._cells("close-missing", block, "close", unpriced, "volume {:.6g} and no close", volume)
        lacking = {
            name: series.valid & np.isnan(field(name))
            for name in ("open", "high", "low")
            if name in block.values
        }
        # A stock that lacks the file lacks it on every day: that is said once, of the file.
        for name, mask in lacking.items():
            mask[~block.has(name)] = False
        if lacking:
            some = np.logical_or.reduce(list(lacking.values()))

            def told(row: int, day: int) -> str:
                return f"close and no {listed([name for name, mask in lacking.items() if mask[row, day]])}"

            self._cells("price-missing", block, next(iter(lacking)), some, told)
        unknown = series.valid & np.isnan(volume) & series.has_volume[:, None] & ~series.carried
        self._cells("volume-missing", block, "volume", unknown, "close {:.6g} and no volume", close)
        high, low = field("high"), field("low")
        ranged = (volume == 0) & (high > low * (1 + RANGE_TOLERANCE)) & (low > 0) & series.has_volume[:, None]
        said = "volume 0, low {:.6g} and high {:.6g}"
        self._cells("volume-zero-with-range", block, "volume", ranged, said, low, high)

    def _check_amount(self, series: Series) -> None:
        """Traded amount against volume × vwap; the index of a market sums other stocks' trades and is left out."""
        block, field = series.block, series.field
        if "amount" not in block.values or "vwap" not in block.values:
            return
        amount, volume, vwap = (field(name).astype(np.float64) for name in ("amount", "volume", "vwap"))
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            ratio = amount / (volume * vwap)
            raw = ratio * field("factor")
        usable = np.isfinite(ratio) & (ratio > 0)
        usable[[is_index(code) for code in block.codes]] = False
        for row in np.flatnonzero(usable.any(axis=1)).tolist():
            typical, fits = _typical(ratio[row, usable[row]])
            typical_raw, fits_raw = _typical(raw[row, usable[row]])
            # A factor that never moves fits either way: then the way that comes out at 1.
            unit, unit_raw = (abs(each - 1) <= AMOUNT_TOLERANCE for each in (typical, typical_raw))
            if fits_raw > fits or (fits_raw == fits and unit_raw and not unit):
                ratio[row], typical = raw[row], typical_raw
                self._raw_volumes.append(block.codes[row])
            ratio[row] /= typical
            self._ratios.append((block.codes[row], typical))
        wrong = usable & (np.abs(ratio - 1) > AMOUNT_TOLERANCE)
        said = "amount {:.6g} is {:.4g} times what volume × vwap says"
        self._cells("amount-inconsistent", block, "amount", wrong, said, amount, ratio)

    def _check_ticks(self, series: Series) -> None:
        """Raw prices are whole cents."""
        block = series.block
        ticked = np.array([code.startswith(TICK_CODES) for code in block.codes], dtype=bool) & block.has(
            "factor"
        )
        if "factor" not in block.values or not ticked.any():
            return
        cents = 100 * series.raw_close
        known = series.valid & (series.field("factor") > 0) & ticked[:, None]
        off = known & (np.abs(cents - np.round(cents)) > TICK_TOLERANCE + TICK_ROUNDING * cents)
        self._with_ticks += int(known.any(axis=1).sum())
        for row in np.flatnonzero(off.any(axis=1)).tolist():
            days = np.flatnonzero(off[row])
            self._off_tick.append(
                (block.codes[row], block.file(row, "factor"), days, cents[row, days[:1]] / 100)
            )

    def finish(self) -> None:
        """What is told once for the store: the units of amounts and volumes, and factors that never fit."""
        if 2 * len(self._off_tick) > self._with_ticks >= MANY_STOCKS:
            code, file, days, price = self._off_tick[0]
            message = (
                f"close / factor is no whole cent in {len(self._off_tick)} of {self._with_ticks} stocks, such as "
                f"{price[0]:.6g} in {code} on {on(self._days, int(days[0]))}"
            )
            self._found.add("price-off-tick", message, file, code, self._days[days[0]], len(self._off_tick))
        else:
            for code, file, days, price in self._off_tick:
                more = f" (on {len(days)} days)" if len(days) > 1 else ""
                message = f"{code} {on(self._days, int(days[0]))}: close / factor is {price[0]:.6g}, no whole cent{more}"
                self._found.add("price-off-tick", message, file, code, self._days[days[0]], len(days))
        if self._raw_volumes:
            message = (
                f"volumes are in raw shares in {len(self._raw_volumes)} of {len(self._ratios)} stocks, such as "
                f"{self._raw_volumes[0]}"
            )
            self._found.add(
                "volume-raw", message, instrument=self._raw_volumes[0], count=len(self._raw_volumes)
            )
        other = [(code, ratio) for code, ratio in self._ratios if abs(ratio - 1) > AMOUNT_TOLERANCE]
        if other:
            code, ratio = other[0]
            message = (
                f"amount is {ratio:.4g} times volume × vwap in {code}, and another multiple than 1 in {len(other)} of "
                f"{len(self._ratios)} stocks"
            )
            self._found.add("amount-unit", message, instrument=code, count=len(other))


def _typical(ratios: np.ndarray) -> tuple[float, int]:
    """The median of some ratios, and how many agree with it."""
    known = ratios[np.isfinite(ratios)]
    if not known.size:
        return np.nan, 0
    typical = float(np.median(known))
    return typical, int((np.abs(known / typical - 1) <= AMOUNT_TOLERANCE).sum())


def cells(
    found: Findings,
    days: np.ndarray,
    kind: str,
    block: Block,
    field: str,
    mask: np.ndarray,
    say: Say,
    *numbers: np.ndarray,
) -> None:
    """One finding for each stock of a block that `mask` `[S, D]` touches, told by its first day.

    Parameters
    ----------
    found, days
        Where findings go; dates `[D]`.
    kind, field
        What was found, and the field whose file is named.
    say, numbers
        What is wrong in a cell, with a place for the cell of each of `numbers` `[S, D]`; or a function of row and day.
    """
    for row in np.flatnonzero(mask.any(axis=1)).tolist():
        day, count = int(np.argmax(mask[row])), int(mask[row].sum())
        code = block.codes[row]
        more = f" (on {count} days)" if count > 1 else ""
        message = f"{code} {on(days, day)}: {sentence(say, row, day, *numbers)}{more}"
        found.add(kind, message, block.file(row, field), code, days[day], count)


def sentence(say: Say, row: int, day: int, *numbers: np.ndarray) -> str:
    """What to say of a cell, as `cells` takes it."""
    return say.format(*(values[row, day] for values in numbers)) if isinstance(say, str) else say(row, day)


def on(days: np.ndarray, day: int) -> str:
    """`2010-01-04`, or the position where the calendar has no day there."""
    return f"day {day} of the calendar" if np.isnat(days[day]) else str(days[day])
