"""Runs as an index shows them, made up without MLflow, which is slow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qlib_ext.report.index.document import render
from qlib_ext.report.index.runs import IndexedRun

FIRST, SECOND = "0123456789abcdef", "fedcba9876543210"


def run(
    number: int = 0,
    name: str = "",
    *,
    traits: Mapping[str, str] | None = None,
    metrics: Mapping[str, float] | None = None,
    **given: Any,
) -> IndexedRun:
    """A finished run; `number` is in its id, its time and its figures."""
    fields = {
        "run_id": f"{number:032x}",
        "name": name or f"run {number}",
        "experiment": "main",
        "started": f"2026-01-{1 + number % 28:02} 10:00",
        "status": "FINISHED",
        "seed": str(number % 3),
        "fingerprint": FIRST,
        "traits": {
            "method": "CQB" if number % 2 else "EqualWeighting",
            "universe": "csi300",
            **(traits or {}),
        },
        "metrics": {
            "RankIC": number / 1000,
            "backtest/annualised_excess_return": -number / 100,
            **(metrics or {}),
        },
        "report": None,
    }
    return IndexedRun(**{**fields, **given})


def page_of(folder: Path, runs: list[IndexedRun], title: str = "Runs", **given: Any) -> Path:
    """The page of runs, in a folder."""
    file = folder / "index.html"
    facts = given.pop("facts", {"Made by": "qlib-ext index"})
    file.write_text(
        render(title, runs, given.pop("data", []), facts, place=folder, **given), encoding="utf-8"
    )
    return file
