"""The folds of a walk-forward beside each other, and what was lost between training and test."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd

from qlib_ext.report import html
from qlib_ext.report.charts import Bars, Chart, Heatmap
from qlib_ext.report.fold_marks import FOLDS
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.tracking.artifacts import RunArtifacts

DRIFT = "folds/drift.csv"
SEGMENTS = {"train": "training", "valid": "validation", "test": "test"}
SHOWN = 20  # features, those that move most
LARGE = 0.25  # of the index, as its source has it
CHANGED = 0.1


class Folds(Section):
    """RankIC, return and drift by fold: whether each holds, and how far the market has moved away from its training."""

    title = "Folds"
    place = 135
    answers = "Does it hold in each fold, and what is lost after the training?"
    requires = (FOLDS, DRIFT)

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """RankIC by segment, the return where there was a backtest, and the drift of the features that moved most."""
        table, drift = run.table(FOLDS), run.table(DRIFT)
        names = pd.Index([f"{number}: {row['test_start'][:7]}" for number, row in table.iterrows()])
        ics = pd.DataFrame(
            {told: table[f"RankIC/{key}"].to_numpy() for key, told in SEGMENTS.items()}, index=names
        )
        most = drift.loc[drift.mean(axis=1).sort_values(ascending=False).index[:SHOWN]]
        charts: dict[str, Chart] = {
            "folds_rank_ic": Bars(
                values=ics,
                xlabel="fold, and the month of its first score",
                ylabel="RankIC",
                height=280,
                alt="RankIC on training, validation and test by fold",
                caption="Mean RankIC of each fold's model on days of its own segments, spread evenly. The bar of the training "
                "shows how much it has learned by heart; what counts is the test, beside the validation that chose it.",
            ),
            "folds_drift": Heatmap(
                values=most.set_axis(names, axis=1),
                diverging=False,
                digits=2,
                alt="Population stability index of features by fold",
                caption=f"Population stability index of each feature, test days beside training days, of the {len(most)} "
                f"features that moved most. Below {CHANGED:g} is usually read as no change, above {LARGE:g} as a "
                "large one.",
            ),
        }
        key, told = _earned(table)
        if key is None:
            return charts
        return charts | {
            "folds_return": Bars(
                values=pd.DataFrame({told: table[key].to_numpy()}, index=names),
                percent=True,
                xlabel="fold, and the month of its first score",
                ylabel=told,
                height=260,
                alt=f"{told} by fold",
                caption="Compounded over the days of each fold, not a year; the first and the last may be short. What is held "
                "when a fold begins was bought by the scores of the one before.",
            )
        }

    def render(self, run: RunArtifacts) -> str:
        """Sentences, charts, and a row a fold."""
        table = run.table(FOLDS)
        drawn = {name: shown(name, chart) for name, chart in self.charts(run).items()}
        first = [drawn[name] for name in ("folds_rank_ic", "folds_return") if name in drawn]
        return "".join(
            [
                html.paragraph(_said(table, run.tags.get("walk_forward", ""))),
                html.beside(*first),
                _figures(table),
                html.heading("Drift of features"),
                html.paragraph(_moved(table)),
                drawn["folds_drift"],
                html.details("Days of each fold, and its run", _days(table)),
            ]
        )


def _earned(table: pd.DataFrame) -> tuple[str | None, str]:
    """The column of what was earned, and what it is called."""
    if "excess_return" in table:
        return "excess_return", "return over the index, after cost"
    return ("return", "return, after cost") if "return" in table else (None, "")


def _said(table: pd.DataFrame, plan: str) -> str:
    test, valid = table["RankIC/test"].mean(), table["RankIC/valid"].mean()
    low, high = table["RankIC"].idxmin(), table["RankIC"].idxmax()
    told = f" ({plan})" if plan else ""
    return (
        f"{len(table)} models{told}, each trained anew; all that is fitted is fitted on its own days of training, and each day "
        f"is scored by the newest of them that was finished before. RankIC is above zero in "
        f"{int((table['RankIC'] > 0).sum())} of {len(table)} folds, from {html.number(table['RankIC'].min())} (fold {low}) to "
        f"{html.number(table['RankIC'].max())} (fold {high}). On the mean fold it is {html.number(valid)} on the validation and "
        f"{html.number(test)} on the test."
    )


def _moved(table: pd.DataFrame) -> str:
    most = table["psi"].idxmax()
    return (
        f"Between training and test the features move by a population stability index of {html.number(table['psi'].mean(), 2)} on "
        f"the mean fold, most in fold {most} ({html.number(table['psi'].max(), 2)}, with "
        f"{html.percent(table.loc[most, 'moved'], 0)} of them above {LARGE:g}). Where they move far, a fold scores days unlike those "
        "that it knows; shorter folds, or features relative to the day, move less."
    )


def _figures(table: pd.DataFrame) -> str:
    columns: dict[str, tuple[str, Callable[[float], str]]] = {
        "days": ("Days", html.count),
        "IC": ("IC", html.number),
        "RankIC": ("RankIC", html.number),
        "RankIC/train": ("on training", html.number),
        "RankIC/valid": ("on validation", html.number),
        "return": ("Return", lambda value: html.percent(value, 1, signed=True)),
        "excess_return": ("Excess", lambda value: html.percent(value, 1, signed=True)),
        "information_ratio": ("IR", lambda value: html.number(value, 2)),
        "turnover": ("Turnover", lambda value: html.percent(value, 1)),
        "psi": ("Drift", lambda value: html.number(value, 2)),
    }
    there = {name: told for name, told in columns.items() if name in table}
    rows = [
        (f"{number}: {row['test_start'][:7]}", *(write(row[name]) for name, (_, write) in there.items()))
        for number, row in table.iterrows()
    ]
    return html.table(["Fold", *(head for head, _ in there.values())], rows, numbers=range(1, len(there) + 1))


def _days(table: pd.DataFrame) -> str:
    rows = [
        (
            number,
            *(f"{row[f'{segment}_start']} to {row[f'{segment}_end']}" for segment in SEGMENTS),
            html.number(row["minutes"], 1),
            row["run_id"] if row["trained"] else f"{row['run_id']} (taken from an earlier run)",
        )
        for number, row in table.iterrows()
    ]
    return html.table(["Fold", "Training", "Validation", "Scores count", "Minutes", "Run"], rows, numbers=[4])
