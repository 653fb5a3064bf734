"""The report of what is kept: figures of each kind and run, differences with their intervals, and a picture."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from benchmarks.walk_forward.cases import KINDS
from benchmarks.walk_forward.runs import ENSEMBLES
from qlib_ext.metrics.cross_section import icir
from qlib_ext.metrics.risk import annualised_return, relative_return, relative_wealth
from qlib_ext.metrics.significance import bootstrap_seeds, bootstrap_trainings

YEAR = 243  # trading days of a Chinese year
# What is held against what: question -> kinds, the first over the second.
QUESTIONS: Mapping[str, tuple[str, str]] = {
    "walking forward against training once, LightGBM": ("LightGBM Alpha360", "LightGBM Alpha360, once"),
    "walking forward against training once, LSTM": ("LSTM", "LSTM, once"),
    "warm start against cold": ("LSTM, warm start", "LSTM"),
    "LSTM against LightGBM": ("LSTM", "LightGBM Alpha360"),
    "seeds together against one of them": ("Ensemble LSTM", "LSTM"),
    "both kinds against LightGBM": ("Ensemble both", "LightGBM Alpha360"),
    "both kinds against LSTM": ("Ensemble both", "LSTM"),
}
ENOUGH = 3  # seeds, below which nothing is said of other seeds


@dataclass(frozen=True)
class Trainings:
    """The runs of a kind, a seed each.

    Attributes
    ----------
    facts
        What is kept of each in `run.json`.
    daily
        RankIC and returns of each.
    """

    facts: Sequence[Mapping[str, Any]]
    daily: Sequence[pd.DataFrame]

    def __len__(self) -> int:
        return len(self.daily)

    def of(self, column: str) -> pd.DataFrame:
        """A column of all, a row a training ``[R, D]``."""
        return pd.DataFrame([daily[column] for daily in self.daily])

    def over_equal_weight(self) -> pd.DataFrame:
        """Return after cost over the universe at equal weight, by training and day ``[R, D]``."""
        return pd.DataFrame(
            [daily["portfolio"] - daily["equal_weight"] for daily in self.daily],
        ).dropna(axis=1)


def read(folder: Path) -> dict[str, Trainings]:
    """Kind -> its runs by seed, in the order of the page; whole ones only."""
    found: dict[str, list[tuple[int, Mapping[str, Any], pd.DataFrame]]] = {}
    for path in folder.glob("*/run.json"):
        facts = json.loads(path.read_text(encoding="utf-8"))
        kind, seed = _parts(facts["name"])
        found.setdefault(kind, []).append((seed, facts, pd.read_parquet(path.parent / "daily.parquet")))
    ordered = [kind for kind in KINDS if kind in found] + sorted(kind for kind in found if kind not in KINDS)
    runs = {kind: sorted(found[kind], key=lambda run: run[0]) for kind in ordered}
    return {kind: Trainings([run[1] for run in of], [run[2] for run in of]) for kind, of in runs.items()}


def row(kind: str, runs: Trainings) -> dict[str, str]:
    """The figures of a kind, means over its seeds; intervals draw seeds and days."""
    rank_ic, over = runs.of("rank_ic"), runs.over_equal_weight()
    ic_range, over_range = (bootstrap_seeds(values) for values in (rank_ic, over))
    of_each = [
        annualised_return(relative_return(daily["portfolio"], daily["equal_weight"]), YEAR)
        for daily in (daily.dropna(subset=["portfolio", "equal_weight"]) for daily in runs.daily)
    ]
    by_seed = rank_ic.mean(axis=1)
    return {
        "kind": kind,
        "seeds": str(len(runs)),
        "days": str(int(rank_ic.notna().all().sum())),
        "RankIC": f"{by_seed.mean():.4f} ({ic_range.low:.4f} to {ic_range.high:.4f})",
        "by seed": _range(by_seed, "{:.4f}"),
        "RankICIR": f"{np.mean([icir(daily['rank_ic'].dropna().to_numpy()) for daily in runs.daily]):.3f}",
        "over equal weight a year": f"{YEAR * over.to_numpy().mean():+.1%} ({YEAR * over_range.low:+.1%} to {YEAR * over_range.high:+.1%})",
        "compounded, by seed": _range(of_each, "{:+.1%}"),
        "hours a run": f"{np.mean([facts['seconds'] for facts in runs.facts]) / 3600:.2f}",
    }


def differences(kinds: Mapping[str, Trainings]) -> list[dict[str, str]]:
    """Mean daily difference in RankIC and in return after cost, of those questions that both sides are kept of."""
    rows = []
    for question, (one, other) in QUESTIONS.items():
        if one not in kinds or other not in kinds:
            continue
        first, second = kinds[one], kinds[other]
        said = {"question": question, "seeds": f"{len(first)} against {len(second)}"}
        for title, column, factor, form in (
            ("RankIC", "rank_ic", 1, "{:+.4f}"),
            ("return a year", "portfolio", YEAR, "{:+.1%}"),
        ):
            sides = pd.concat([first.of(column), second.of(column)]).dropna(axis=1).to_numpy()
            ours, theirs = sides[: len(first)], sides[len(first) :]
            interval = bootstrap_trainings(ours, theirs)
            mean, low, high = (
                form.format(factor * value)
                for value in (ours.mean() - theirs.mean(), interval.low, interval.high)
            )
            said[title] = f"{mean} ({low} to {high})"
        rows.append(said)
    return rows


def write(folder: Path, out: Path) -> Path:
    """Write the page, with `head.md` of its folder first; what was not run is named."""
    kinds = read(folder)
    out.mkdir(parents=True, exist_ok=True)
    head = out / "head.md"
    lines = [head.read_text(encoding="utf-8")] if head.is_file() else ["# Walking forward", ""]
    lines += ["## Kinds", "", *_table([row(kind, runs) for kind, runs in kinds.items()]), ""]
    if kinds:
        lines += ["![Wealth over equal weight](wealth.png)", ""]
        _picture(kinds, out / "wealth.png")
    if questions := differences(kinds):
        lines += [
            "## Differences",
            "",
            "Mean daily difference of the first to the second, after cost.",
            f"With fewer than {ENOUGH} seeds on a side the interval says nothing of other seeds of that side.",
            "",
            *_table(questions),
            "",
        ]
    if missing := [kind for kind in KINDS if kind not in kinds]:
        lines += [f"Not run: {'; '.join(missing)}.", ""]
    page = out / "README.md"
    page.write_text("\n".join(lines), encoding="utf-8")
    return page


def _parts(name: str) -> tuple[str, int]:
    """Kind and seed of a run's name; an ensemble has no seed of its own."""
    found = re.fullmatch(r"(.*) seed (\d+)", name)
    if found is None or name.startswith(ENSEMBLES):
        return name, 0
    return found[1], int(found[2])


def _range(values: Sequence[float] | pd.Series, form: str) -> str:
    """The least and the most of several; of one itself."""
    low, high = (form.format(value) for value in (min(values), max(values)))
    return low if len(values) == 1 else f"{low} to {high}"


def _picture(kinds: Mapping[str, Trainings], file: Path) -> None:
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    for kind, runs in kinds.items():
        returns = [runs.of(column).dropna(axis=1).mean() for column in ("portfolio", "equal_weight")]
        axes.plot(returns[0].index, relative_wealth(*returns), label=f"{kind} ({len(runs)})", linewidth=1)
    axes.axhline(1, color="0.6", linewidth=0.8)
    axes.set_ylabel("wealth over equal weight, after cost")
    axes.legend(fontsize=7, frameon=False, title="mean account of its seeds", title_fontsize=7)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    if not rows:
        return ["Nothing is kept yet."]
    head = [*rows[0]]
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(each[name] for name in head)} |" for each in rows),
    ]
