"""Folders and files: what is missing, misnamed, or cannot be read as bars."""

from __future__ import annotations

from pathlib import Path

from qlib_ext.market.audit.finding import Findings, Kind

KINDS = (
    Kind(
        "store-part-missing",
        "error",
        "calendars/day.txt, features/ or instruments/ is not there",
        "Without it no workflow starts",
    ),
)


def check_layout(root: Path, found: Findings) -> None:
    """The three parts of a store."""
    for part, is_there in (
        ("calendars/day.txt", Path.is_file),
        ("features", Path.is_dir),
        ("instruments", Path.is_dir),
    ):
        if not is_there(root / part):
            found.add("store-part-missing", f"{part} is missing", file=part)
