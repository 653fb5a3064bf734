"""What the commands that make a store say of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qlib_ext.checks import counted
from qlib_ext.terminal import say

if TYPE_CHECKING:
    from qlib_ext.market.finding import QualityReport
    from qlib_ext.market.store import QlibStore


def described(store: QlibStore, fields: str = "") -> str:
    """`430 instruments, 2674 days from 2010-01-04 to 2020-12-31, universes all, csi300`."""
    days = store.calendar
    return (
        f"{len(store.instruments())} instruments, {len(days)} days from {days[0].date()} to {days[-1].date()}"
        f"{fields and f', fields {fields}'}, universes {', '.join(store.universes())}"
    )


def facts(store: QlibStore) -> dict[str, Any]:
    """The same, for a document."""
    days = store.calendar
    return {
        "instruments": len(store.instruments()),
        "days": len(days),
        "first_day": days[0],
        "last_day": days[-1],
        "universes": store.universes(),
    }


def counts(checked: QualityReport) -> str:
    """`1 error, 0 warnings, 2 notes`."""
    return ", ".join(counted(count, severity) for severity, count in checked.counts.items())


def audit(directory: Path) -> dict[str, int]:
    """Check a new store, and say how much was found; findings by severity."""
    from qlib_ext.market.quality.check import check_store
    from qlib_ext.terminal import shown_progress  # here, so that `qlib-ext --help` stays quick

    with shown_progress() as progress:
        checked = check_store(directory, progress=progress)
    say(f"The audit has {counts(checked)}. To read them: qlib-ext data check {directory}")
    return checked.counts
