"""Indices: whether a backtest can compare itself with them on every day."""

from __future__ import annotations

import numpy as np

from qlib_ext.market.finding import Findings, Kind
from qlib_ext.market.quality.bars import on
from qlib_ext.market.quality.cross_section import STOCKS, CrossSection
from qlib_ext.market.quality.series import runs
from qlib_ext.market.quality.source import Source

# Indices are given with two decimals and more: even one unchanged close is rare, three in a row are none.
FLAT_DAYS = 3
# Any index of stocks moves with the mean of the stocks (0.8 and more); another series does not.
LIKENESS, LIKENESS_DAYS = 0.3, 120

KINDS = (
    Kind("benchmark-missing", "error", "the benchmark that was asked for has no closes",
         "excess returns cannot be computed"),
    Kind("benchmark-gap", "error", "an index has no close on a day on which stocks have one",
         "excess returns skip the day, and the return of the next one is that of both"),
    Kind("benchmark-range", "warning", "an index begins after the stocks or ends before them",
         "backtests beyond it have nothing to compare with"),
    Kind("benchmark-flat", "warning", f"an index stands still for {FLAT_DAYS} days or more",
         "old values were carried forward"),
    Kind("benchmark-unlike-market", "warning",
         f"the returns of an index correlate with the stocks' mean by less than {LIKENESS}",
         "it is another series, or its days are shifted"),
)  # fmt: skip


def check_benchmarks(source: Source, market: CrossSection, benchmark: str | None, found: Findings) -> None:
    """Every index among the bars, and the code that was asked for."""
    folders = {folder.code: folder for folder in source.folders}
    if benchmark is not None and benchmark.upper() not in market.first:
        message = f"{benchmark.upper()} has no closes" + (
            "" if benchmark.upper() in folders else "; there is no folder of its bars"
        )
        found.add("benchmark-missing", message, f"features/{benchmark.lower()}", benchmark.upper())
    mean = market.mean_return()
    for code, close in market.index_close.items():
        if code in market.first:
            folder = folders[code]
            file = f"features/{folder.path.name}/{folder.bins.get('close', 'close.day.bin')}"
            _check(source.days, market, code, file, close, mean, found)


def _check(
    days: np.ndarray,
    market: CrossSection,
    code: str,
    file: str,
    close: np.ndarray,
    mean: np.ndarray,
    found: Findings,
) -> None:
    first, stop = market.first[code], market.stop[code]
    there = ~np.isnan(close)
    inside = np.zeros(len(days), dtype=bool)
    inside[first:stop] = True
    open_days = market.closes > 0
    gaps = inside & ~there & open_days
    if gaps.any():
        message = f"{code} has no close on {on(days, int(np.argmax(gaps)))}" + (
            f", and on {int(gaps.sum())} days in all" if gaps.sum() > 1 else ""
        )
        found.add("benchmark-gap", message, file, code, days[np.argmax(gaps)], int(gaps.sum()))
    outside = ~inside & open_days
    if outside.any():
        message = (
            f"{code} has closes from {on(days, first)} to {on(days, stop - 1)}; stocks have them on {int(outside.sum())} "
            "days beyond"
        )
        found.add("benchmark-range", message, file, code, days[np.argmax(outside)], int(outside.sum()))
    same = np.zeros(len(days), dtype=bool)
    same[1:] = close[1:] == close[:-1]
    for _, start, length, times in runs(same[None], FLAT_DAYS):
        message = f"{code} stands still for {length} days after {on(days, start - 1)}" + (
            f"; {times} such runs" if times > 1 else ""
        )
        found.add("benchmark-flat", message, file, code, days[start], length)
    growth = np.full(len(days), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        growth[1:] = np.log(close[1:] / close[:-1])
    both = np.isfinite(growth) & np.isfinite(mean) & (market.return_counts >= STOCKS)
    if both.sum() >= LIKENESS_DAYS and np.ptp(growth[both]) > 0 and np.ptp(mean[both]) > 0:
        likeness = float(np.corrcoef(np.clip(growth[both], -0.2, 0.2), mean[both])[0, 1])
        if likeness < LIKENESS:
            message = f"{code}: its returns correlate with the mean of the stocks by {likeness:.2f} on {int(both.sum())} days"
            found.add("benchmark-unlike-market", message, file, code, count=int(both.sum()))
