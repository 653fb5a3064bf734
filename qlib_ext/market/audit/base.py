"""The audit put together: `audit` runs every family of checks over a store."""

from __future__ import annotations

from pathlib import Path

from qlib_ext.checks import UserError
from qlib_ext.market.audit import files
from qlib_ext.market.audit.finding import Audit, Finding, Findings, Kind, Progress

__all__ = ["Audit", "Finding", "Kind", "audit"]

FAMILIES = (files,)
KINDS: tuple[Kind, ...] = tuple(kind for family in FAMILIES for kind in family.KINDS)


def audit(
    root: str | Path,
    *,
    universe: str | None = None,
    benchmark: str | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Look for every kind of fault in a store; nothing in it is changed.

    It reads the files itself and needs no store that opens: a broken one is what it is for.

    Parameters
    ----------
    root
        Directory in Qlib's format; `~` is expanded.
    universe
        Check the membership of this universe only, and that it is there; by default every universe.
    benchmark
        Code of the index that a backtest compares with; by default every index among the bars.
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
    files.check_layout(root, found)
    return Audit(found.sorted(), KINDS, {"root": str(root)})
