"""What is kept of trainings, by kind and seed: series of days side by side, and tables of a page."""

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
from matplotlib.rcsetup import cycler

from qlib_ext.metrics.risk import annualised_return, relative_return, relative_wealth
from qlib_ext.metrics.significance import Interval, bootstrap_trainings

YEAR = 243  # trading days of a Chinese year
ENOUGH = 3  # seeds, below which nothing is said of other seeds
ENSEMBLES = "Ensemble"  # begins the names of runs that have no seed of their own
RANK_IC = "rank_ic/RETURN"


@dataclass(frozen=True)
class Trainings:
    """The runs of a kind, a seed each.

    Attributes
    ----------
    facts
        What is kept of each in `run.json`.
    daily
        Figures of each by day.
    """

    facts: Sequence[Mapping[str, Any]]
    daily: Sequence[pd.DataFrame]

    def __len__(self) -> int:
        return len(self.daily)

    def of(self, column: str) -> pd.DataFrame:
        """A column of all, a row a training ``[R, D]``."""
        return pd.DataFrame([daily[column] for daily in self.daily])

    def mean(self, column: str) -> float:
        """Mean of a column over trainings and days, those that have it."""
        return float(np.nanmean(self.of(column).to_numpy()))

    def over(self, benchmark: str) -> pd.DataFrame:
        """Daily return after cost over that of another column ``[R, D]``, on the days that all of them have."""
        return pd.DataFrame([daily["portfolio"] - daily[benchmark] for daily in self.daily]).dropna(axis=1)

    def core_hours(self) -> str:
        """Processor time of a run in hours, the mean of those that it is known of."""
        known = [facts.get("processor_seconds") for facts in self.facts]
        spent = [seconds for seconds in known if seconds is not None]
        return f"{np.mean(spent) / 3600:.2f}" if spent else "not known"

    def compounded(self, benchmark: str) -> list[float]:
        """Of each the relative return a year over that of another column."""
        both = [daily[["portfolio", benchmark]].dropna() for daily in self.daily]
        return [annualised_return(relative_return(days["portfolio"], days[benchmark]), YEAR) for days in both]


def read(folder: Path, order: Sequence[str]) -> dict[str, Trainings]:
    """Kind -> its runs by seed, first those of `order`, then others by name; whole ones only."""
    found: dict[str, list[tuple[int, Mapping[str, Any], pd.DataFrame]]] = {}
    for path in folder.glob("*/run.json"):
        facts = json.loads(path.read_text(encoding="utf-8"))
        kind, seed = parts(facts["name"])
        daily = pd.read_parquet(path.parent / "daily.parquet").astype("float64")
        found.setdefault(kind, []).append((seed, facts, daily))
    kinds = [kind for kind in order if kind in found] + sorted(kind for kind in found if kind not in order)
    runs = {kind: sorted(found[kind], key=lambda run: run[0]) for kind in kinds}
    return {kind: Trainings([run[1] for run in of], [run[2] for run in of]) for kind, of in runs.items()}


def parts(name: str) -> tuple[str, int]:
    """Kind and seed of a run's name; an ensemble has no seed of its own."""
    found = re.fullmatch(r"(.*) seed (\d+)", name)
    if found is None or name.startswith(ENSEMBLES):
        return name, 0
    return found[1], int(found[2])


def difference(first: Trainings, second: Trainings, column: str) -> tuple[float, Interval]:
    """Mean daily difference of the first to the second on their common days, with seeds and days drawn together."""
    sides = pd.concat([first.of(column), second.of(column)]).dropna(axis=1).to_numpy()
    ours, theirs = sides[: len(first)], sides[len(first) :]
    return float(ours.mean() - theirs.mean()), bootstrap_trainings(ours, theirs)


def extent(values: Sequence[float] | pd.Series, form: str) -> str:
    """The least and the most of several; of one itself."""
    low, high = (form.format(value) for value in (min(values), max(values)))
    return low if len(values) == 1 else f"{low} to {high}"


def with_interval(mean: float, interval: Interval, form: str, factor: float = 1) -> str:
    """A mean with its interval behind it."""
    middle, low, high = (form.format(factor * value) for value in (mean, interval.low, interval.high))
    return f"{middle} ({low} to {high})"


def draw_wealth(kinds: Mapping[str, Trainings], file: Path) -> None:
    """Draw the wealth of each kind's mean account over that of equal weight."""
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    axes.set_prop_cycle(cycler(linestyle=("-", "--", ":")) * plt.rcParams["axes.prop_cycle"])
    for kind, runs in kinds.items():
        own, base = (runs.of(column).dropna(axis=1).mean() for column in ("portfolio", "equal_weight"))
        days = own.index.intersection(base.index)
        wealth = relative_wealth(own[days], base[days])
        axes.plot(days, np.asarray(wealth), label=f"{kind} ({len(runs)})", linewidth=1)
    axes.axhline(1, color="0.6", linewidth=0.8)
    axes.set_ylabel("wealth over equal weight, after cost")
    axes.legend(fontsize=7, frameon=False, title="mean account of its seeds", title_fontsize=7)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Lines of a Markdown table."""
    if not rows:
        return ["Nothing is kept yet."]
    head = [*rows[0]]
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(each[name] for name in head)} |" for each in rows),
    ]
