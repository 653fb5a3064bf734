"""The report of what is kept: figures of each run, and differences with their intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.walk_forward.cases import KINDS
from benchmarks.walk_forward.runs import ENSEMBLES
from qlib_ext.metrics.cross_section import icir
from qlib_ext.metrics.risk import annualised_return, relative_return
from qlib_ext.metrics.significance import bootstrap_difference, bootstrap_mean

YEAR = 243  # trading days of a Chinese year
# What is held against what: question -> kinds, the first over the second.
QUESTIONS: Mapping[str, tuple[str, str]] = {
    "walking forward against training once, LightGBM": ("LightGBM Alpha360", "LightGBM Alpha360, once"),
    "walking forward against training once, LSTM": ("LSTM", "LSTM, once"),
    "warm start against cold": ("LSTM, warm start", "LSTM"),
    "five seeds against the first": ("Ensemble LSTM", "LSTM"),
    "both kinds against LightGBM": ("Ensemble both", "LightGBM Alpha360"),
}


def read(folder: Path) -> dict[str, tuple[dict[str, Any], pd.DataFrame]]:
    """Name -> what is kept of each run, whole ones only."""
    found = {}
    for path in sorted(folder.glob("*/run.json")):
        facts = json.loads(path.read_text(encoding="utf-8"))
        found[facts["name"]] = facts, pd.read_parquet(path.parent / "daily.parquet")
    return found


def row(facts: Mapping[str, Any], daily: pd.DataFrame) -> dict[str, str]:
    """The figures of a run."""
    rank_ic = daily["rank_ic"].dropna().to_numpy()
    low, high = bootstrap_mean(rank_ic)
    traded = daily.dropna(subset=["portfolio", "equal_weight"])
    over = relative_return(traded["portfolio"], traded["equal_weight"])
    excess = bootstrap_difference(traded["portfolio"].to_numpy(), traded["equal_weight"].to_numpy())
    return {
        "run": facts["name"],
        "days": str(int(daily["rank_ic"].notna().sum())),
        "RankIC": f"{rank_ic.mean():.4f} ({low:.4f} to {high:.4f})",
        "RankICIR": f"{icir(rank_ic):.3f}",
        "return a year": f"{annualised_return(traded['portfolio'], YEAR):+.1%}",
        "over equal weight a year": f"{annualised_return(over, YEAR):+.1%}",
        "p": f"{excess.p:.3f}",
        "hours": f"{facts['seconds'] / 3600:.2f}",
    }


def differences(runs: Mapping[str, tuple[dict[str, Any], pd.DataFrame]]) -> list[dict[str, str]]:
    """Mean daily difference in RankIC and in return after cost, of those questions that both sides are kept of."""
    rows = []
    for question, (one, other) in QUESTIONS.items():
        first, second = (
            next((runs[name][1] for name in runs if _is(name, kind)), None) for kind in (one, other)
        )
        if first is None or second is None:
            continue
        both = first.join(second, lsuffix="/1", rsuffix="/2")
        ic, earned = (
            bootstrap_difference(*(both.dropna()[f"{what}/{k}"].to_numpy() for k in (1, 2)))
            for what in ("rank_ic", "portfolio")
        )
        rows.append(
            {
                "question": question,
                "RankIC": f"{ic.mean:+.4f} ({ic.low:+.4f} to {ic.high:+.4f})",
                "return a year": f"{earned.mean * YEAR:+.1%} ({earned.low * YEAR:+.1%} to {earned.high * YEAR:+.1%})",
            }
        )
    return rows


def write(folder: Path, out: Path) -> Path:
    """Write the page; what was not run is named."""
    runs = read(folder)
    order = {kind: k for k, kind in enumerate([*KINDS, "Ensemble"])}
    names = sorted(
        runs, key=lambda name: (min([k for kind, k in order.items() if _is(name, kind)], default=99), name)
    )
    missing = [kind for kind in KINDS if not any(_is(name, kind) for name in runs)]
    lines = [
        "# Walking forward",
        "",
        "CSI300, a model for each half year. Command: `python -m benchmarks.walk_forward run --store DIR`, then `report`.",
        "Intervals are of 95 %, by the stationary block bootstrap of days; p is that of the daily return over the universe at",
        "equal weight, after cost. Hours are those of all folds and of the run above them.",
        "",
        *_table([row(*runs[name]) for name in names]),
        "",
    ]
    if questions := differences(runs):
        lines += [
            "## Differences",
            "",
            "Mean daily difference of the first to the second, seed 0 of each.",
            "",
            *_table(questions),
            "",
        ]
    if missing:
        lines += [f"Not run: {', '.join(missing)}.", ""]
    out.mkdir(parents=True, exist_ok=True)
    page = out / "README.md"
    page.write_text("\n".join(lines), encoding="utf-8")
    return page


def _is(name: str, kind: str) -> bool:
    """Whether a run is of a kind: by its first seed, or an ensemble."""
    return name == f"{kind} seed 0" or (kind.startswith(ENSEMBLES) and name == kind)


def _table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    if not rows:
        return ["Nothing is kept yet."]
    head = [*rows[0]]
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(each[name] for name in head)} |" for each in rows),
    ]
