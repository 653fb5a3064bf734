"""The report of what is kept: figures of each kind, differences with their intervals, and a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.trainings import kinds as kept
from benchmarks.trainings.kinds import ENOUGH, RANK_IC, YEAR, Trainings, extent, with_interval
from benchmarks.walk_forward.cases import KINDS
from qlib_ext.metrics.cross_section import icir
from qlib_ext.metrics.significance import bootstrap_seeds

# What is held against what: question -> kinds, the first over the second.
QUESTIONS: Mapping[str, tuple[str, str]] = {
    "walking forward against training once, LightGBM": ("LightGBM Alpha360", "LightGBM Alpha360, once"),
    "walking forward against training once, LSTM": ("LSTM", "LSTM, once"),
    "warm start against cold": ("LSTM, warm start", "LSTM"),
    "LSTM against LightGBM": ("LSTM", "LightGBM Alpha360"),
    "LSTM, warm start, against LightGBM": ("LSTM, warm start", "LightGBM Alpha360"),
    "seeds together against one of them": ("Ensemble LSTM", "LSTM"),
    "both kinds against LightGBM": ("Ensemble both", "LightGBM Alpha360"),
    "both kinds against LSTM": ("Ensemble both", "LSTM"),
}


def row(kind: str, runs: Trainings) -> dict[str, str]:
    """The figures of a kind, means over its seeds; intervals draw seeds and days."""
    rank_ic, over = runs.of(RANK_IC), runs.over("equal_weight")
    by_seed = rank_ic.mean(axis=1)
    return {
        "kind": kind,
        "seeds": str(len(runs)),
        "days": str(int(rank_ic.notna().all().sum())),
        "RankIC": with_interval(by_seed.mean(), bootstrap_seeds(rank_ic), "{:.4f}"),
        "by seed": extent(by_seed, "{:.4f}"),
        "RankICIR": f"{np.mean([icir(daily[RANK_IC].dropna().to_numpy()) for daily in runs.daily]):.3f}",
        "over equal weight a year": with_interval(
            over.to_numpy().mean(), bootstrap_seeds(over), "{:+.1%}", YEAR
        ),
        "compounded, by seed": extent(runs.compounded("equal_weight"), "{:+.1%}"),
        "core-hours a run": runs.core_hours(),
    }


def differences(kinds: Mapping[str, Trainings]) -> list[dict[str, str]]:
    """Mean daily difference in RankIC and in return after cost, of those questions that both sides are kept of."""
    return [
        {
            "question": question,
            "seeds": f"{len(kinds[one])} against {len(kinds[other])}",
            "RankIC": with_interval(*kept.difference(kinds[one], kinds[other], RANK_IC), "{:+.4f}"),
            "return a year": with_interval(
                *kept.difference(kinds[one], kinds[other], "portfolio"), "{:+.1%}", YEAR
            ),
        }
        for question, (one, other) in QUESTIONS.items()
        if one in kinds and other in kinds
    ]


def write(folder: Path, out: Path) -> Path:
    """Write the page, with `head.md` of its folder first; what was not run is named."""
    kinds = kept.read(folder, [*KINDS])
    out.mkdir(parents=True, exist_ok=True)
    head = out / "head.md"
    lines = [head.read_text(encoding="utf-8")] if head.is_file() else ["# Walking forward", ""]
    lines += ["## Kinds", "", *kept.table([row(kind, runs) for kind, runs in kinds.items()]), ""]
    if kinds:
        lines += ["![Wealth over equal weight](wealth.png)", ""]
        kept.draw_wealth(kinds, out / "wealth.png")
    if questions := differences(kinds):
        lines += [
            "## Differences",
            "",
            "Mean daily difference of the first to the second, after cost.",
            f"With fewer than {ENOUGH} seeds on a side the interval says nothing of other seeds of that side.",
            "",
            *kept.table(questions),
            "",
        ]
    if missing := [kind for kind in KINDS if kind not in kinds]:
        lines += [f"Not run: {'; '.join(missing)}.", ""]
    page = out / "README.md"
    page.write_text("\n".join(lines), encoding="utf-8")
    return page
