"""The audit put together: `audit` runs every family of checks over a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qlib_ext.checks import UserError
from qlib_ext.market.codes import code_in_store, is_index, region
from qlib_ext.market.finding import Finding, Findings, Kind, QualityReport
from qlib_ext.market.progress import Progress
from qlib_ext.market.quality import bars, calendar, cross_section, files, prices, universes
from qlib_ext.market.quality import benchmark as benchmarks
from qlib_ext.market.quality import side_data as side
from qlib_ext.market.quality.series import Series
from qlib_ext.market.quality.source import Source

__all__ = ["FAMILIES", "KINDS", "Finding", "Kind", "QualityReport", "check_store"]

FAMILIES = (files, calendar, bars, prices, cross_section, universes, benchmarks, side)
KINDS: tuple[Kind, ...] = tuple(kind for family in FAMILIES for kind in family.KINDS)


def check_store(
    root: str | Path,
    *,
    universe: str | None = None,
    benchmark: str | None = None,
    progress: Progress | None = None,
) -> QualityReport:
    """Look for every kind of fault in a store; nothing in it is changed.

    It reads the files itself and needs no store that opens: a broken one is what it is for. Bars are read in blocks of
    stocks, so that memory grows by 4 bytes a stock and day beyond one block.

    Parameters
    ----------
    root
        Directory in Qlib's format; `~` is expanded.
    universe
        Check what a run on this universe sees: its membership and that it is there, the bars of its members and of the
        benchmark, and the store as a whole. By default every universe and every stock.
    benchmark
        Code of what a backtest compares with: check that it is there, and check it like an index. Every index among
        the bars is checked anyway.
    progress
        Called with (done, total, what) as blocks of stocks are read.

    Raises
    ------
    UserError
        If there is no directory at `root`.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise UserError(f"expected a Qlib data directory, found no directory at `{root}`")
    found = Findings(KINDS)
    source = Source(root)
    stocks = [code for code in source.codes if not is_index(code)]
    guess = region(stocks)

    files.check_layout(source, found)
    calendar.check_lines(source, found)
    files_of_bars = files.BinChecks(source, found)
    values = bars.BarChecks(source, found, guess)
    returns = prices.PriceChecks(source, found, guess)
    if benchmark is not None:
        benchmark = code_in_store(benchmark, source.codes)
    wanted = frozenset() if benchmark is None else frozenset({benchmark})
    market = cross_section.CrossSection(source, found, wanted)
    agreement = None
    with_bars = {folder.code: folder.path.name for folder in source.folders if folder.bins}
    # Damaged bytes are numbers of any size: what they make of a ratio is checked, not warned of.
    with np.errstate(all="ignore"):
        done = 0
        for block in source.blocks():
            files_of_bars.check(block)
            if len(source.days):
                series = Series(block)
                values.check(series)
                market.check(series, returns.check(series))
            done += len(block.folders)
            if progress is not None:
                progress(done, len(source.folders), "stocks")
        files_of_bars.finish()
        if len(source.days):
            values.finish()
            returns.finish(market.market_days())
            agreement = calendar.check_sessions(source, market.traded, found)
            market.finish()
            benchmarks.check_benchmarks(source, market, benchmark, found)
    universes.UniverseChecks(source, found, market.first, market.stop, with_bars).check(universe)
    side.check_side(source, list(with_bars), found)

    days = np.unique(source.days[~np.isnat(source.days)])
    facts = {
        "root": str(root),
        "days": len(days),
        "first_day": str(days[0]) if days.size else None,
        "last_day": str(days[-1]) if days.size else None,
        "instruments": len(with_bars),
        "indices": sorted(code for code in with_bars if is_index(code)),
        "fields": sorted({name for folder in source.folders for name in folder.bins}),
        "universes": sorted(membership.name for membership in source.memberships),
        "region": guess,
        "calendar_agreement": agreement,
    }
    findings = found.sorted()
    members = next(
        (of.codes for of in source.memberships if of.name.lower() == (universe or "").lower()), None
    )
    if universe is not None and members is not None:
        seen = {*members, *wanted, None}
        facts["left_out"] = sum(finding.instrument not in seen for finding in findings)
        findings = tuple(finding for finding in findings if finding.instrument in seen)
    return QualityReport(findings, KINDS, facts)
