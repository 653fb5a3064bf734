"""The leaderboard from what is kept: one table, who cannot be told from the best, and whose lead chance would not make."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.leaderboard.rows import CANDIDATES, Row, read_rows
from benchmarks.trainings import kinds as kept
from benchmarks.trainings.kinds import ENOUGH, RANK_IC, YEAR, Trainings, extent, with_interval
from qlib_ext.metrics.significance import bootstrap_seeds, model_confidence_set

BASELINES = ("LightGBM, Alpha158", "STL, Alpha360")
PRECISION = 30  # stocks, of whose share that rises the base rate is taken off
# RankIC of Qlib's published table, on its data from 2008; it counts to August of 2020.
ANCHORS = {
    "HIST": ".0667",
    "GATs": ".0592",
    "GRU": ".0581",
    "LSTM": ".0549",
    "LightGBM": ".0469 to .0492",
}


def write(out: Path) -> Path:
    """Write the page of the rows, and that of the candidates where any was run."""
    asked = read_rows()
    board = kept.read(out / "runs", [*asked])
    ordered = _by_rank_ic(board)
    lines = [*_head(out, "# Leaderboard"), *_tables(ordered)]
    if board:
        kept.draw_wealth(ordered, out / "wealth.png")
        lines += ["![Wealth over equal weight](wealth.png)", ""]
    for baseline in BASELINES:
        if baseline in board:
            lines += [f"## Against {baseline}", "", *kept.table(against(ordered, baseline)), ""]
    lines += [
        "RankIC of Qlib's published table, of the same years to August 2020 on its own data from 2008: "
        + ", ".join(f"{name} {value}" for name, value in ANCHORS.items())
        + ".",
        "",
        *_not_run(asked, board),
    ]
    page = out / "README.md"
    page.write_text("\n".join(lines), encoding="utf-8")
    if (out / "choice").is_dir():
        write_choice(out / "choice")
    return page


def write_choice(folder: Path) -> Path:
    """Write the page of the candidates of the house's recommendation, on the years before the test."""
    asked = read_rows(CANDIDATES)
    board = kept.read(folder, [*asked])
    lines = [*_head(folder, "# Candidates"), *_tables(_by_rank_ic(board)), *_not_run(asked, board)]
    page = folder / "README.md"
    page.write_text("\n".join(lines), encoding="utf-8")
    return page


def _head(folder: Path, title: str) -> list[str]:
    """What is said first: `head.md`, or the title."""
    folder.mkdir(parents=True, exist_ok=True)
    head = folder / "head.md"
    return [head.read_text(encoding="utf-8")] if head.is_file() else [title, ""]


def _by_rank_ic(board: Mapping[str, Trainings]) -> dict[str, Trainings]:
    return dict(sorted(board.items(), key=lambda one: -one[1].mean(RANK_IC)))


def _tables(ordered: Mapping[str, Trainings]) -> list[str]:
    """How well the rows rank, and what they earned."""
    sets = {what: confidence_set(ordered, what) for what in (RANK_IC, "portfolio")}
    return [
        "## Ranking",
        "",
        *kept.table([ranking(name, runs, sets[RANK_IC][name]) for name, runs in ordered.items()]),
        "",
        "## Traded",
        "",
        *kept.table([traded(name, runs, sets["portfolio"][name]) for name, runs in ordered.items()]),
        "",
    ]


def _not_run(asked: Mapping[str, Row], board: Mapping[str, Trainings]) -> list[str]:
    """Which rows are missing, or have fewer seeds than they ask for."""
    short = [
        f"{name} ({len(board.get(name, ()))} of {row.seeds} seeds)"
        for name, row in asked.items()
        if len(board.get(name, ())) < row.seeds
    ]
    return [f"Not run yet: {'; '.join(short)}.", ""] if short else []


def ranking(name: str, runs: Trainings, in_set: float) -> dict[str, str]:
    """How well a row's scores rank the stocks: means over its seeds, intervals of seeds and days."""
    rank_ic = runs.of(RANK_IC)
    by_seed = rank_ic.mean(axis=1)
    lift = runs.mean(f"precision/{PRECISION}/RETURN") / runs.mean("base_rate/RETURN")
    return {
        "row": name,
        "seeds": str(len(runs)),
        "RankIC": with_interval(by_seed.mean(), bootstrap_seeds(rank_ic), "{:.4f}"),
        "by seed": extent(by_seed, "{:.4f}"),
        "IC": f"{runs.mean('ic/RETURN'):.4f}",
        "IC, ranked label": f"{runs.mean('ranked/ic/RETURN'):.4f}",
        f"Precision@{PRECISION} over base rate": f"{lift:.3f}",
        "confidence set": f"{in_set:.2f}",
        "core-hours a run": runs.core_hours(),
    }


def traded(name: str, runs: Trainings, in_set: float) -> dict[str, str]:
    """What its portfolio earned after cost."""
    equal, index = runs.over("equal_weight"), runs.over("index")
    below = [facts["metrics"].get("benchmarks/random_below", np.nan) for facts in runs.facts]
    return {
        "row": name,
        "seeds": str(len(runs)),
        "over equal weight a year": with_interval(
            equal.to_numpy().mean(), bootstrap_seeds(equal), "{:+.1%}", YEAR
        ),
        "by seed": extent(runs.compounded("equal_weight"), "{:+.1%}"),
        "information ratio": f"{np.mean([day.mean() / day.std() for _, day in equal.iterrows()]) * YEAR**0.5:.2f}",
        "over the index a year": with_interval(
            index.to_numpy().mean(), bootstrap_seeds(index), "{:+.1%}", YEAR
        ),
        "random lists below": extent(below, "{:.0%}"),
        "turnover a year": f"{YEAR * runs.mean('turnover'):.1f}",
        "confidence set": f"{in_set:.2f}",
    }


def against(board: Mapping[str, Trainings], baseline: str) -> list[dict[str, str]]:
    """Each row less a baseline, with seeds and days drawn together, and in what it is ahead beyond chance."""
    rows = []
    for name, runs in board.items():
        if name == baseline:
            continue
        said = {"row": name, "seeds": f"{len(runs)} against {len(board[baseline])}"}
        ahead = []
        for title, column, form, factor in (
            ("RankIC", RANK_IC, "{:+.4f}", 1),
            ("return a year", "portfolio", "{:+.1%}", YEAR),
        ):
            mean, interval = kept.difference(runs, board[baseline], column)
            said[title] = with_interval(mean, interval, form, factor)
            if interval.low > 0:
                ahead.append(title.partition(" ")[0])
        enough = min(len(runs), len(board[baseline])) >= ENOUGH
        said["ahead in"] = (
            (" and ".join(ahead) or "nothing that is shown") if enough else "too few seeds to say"
        )
        rows.append(said)
    return rows


def confidence_set(board: Mapping[str, Trainings], column: str) -> dict[str, float]:
    """P of each row in the model confidence set of the mean of its seeds, on the days that all rows have."""
    if not board:
        return {}
    days = np.column_stack([runs.of(column).mean().reindex(_days(board)) for runs in board.values()])
    return dict(zip(board, model_confidence_set(days).tolist(), strict=True))


def _days(board: Mapping[str, Trainings]) -> list[object]:
    """Days that any row has, in order; those that one lacks are cut by the test."""
    return sorted({day for runs in board.values() for daily in runs.daily for day in daily.index})
