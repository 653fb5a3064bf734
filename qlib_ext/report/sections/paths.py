"""The paths of a combinatorial cross-validation: how far the figures of one method differ from history to history."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pandas as pd

from qlib_ext.report import html
from qlib_ext.report.charts import Bars, Chart, Lines
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.tracking.artifacts import RunArtifacts

PATHS, SPLITS, OVERFITTING = "paths/paths.csv", "paths/splits.csv", "paths/overfitting.json"
WEALTH = "paths/wealth.parquet"
SEGMENTS = {"train": "training", "valid": "validation", "test": "test"}

_signed: Callable[[float], str] = partial(html.percent, digits=1, signed=True)
_share: Callable[[float], str] = partial(html.percent, digits=1)
_ratio: Callable[[float], str] = partial(html.number, digits=2)

# Figure of a path -> what it is called in a table, and how it is written.
FIGURES: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "IC": ("IC", html.number),
    "RankIC": ("RankIC", html.number),
    "RankICIR": ("RankICIR", _ratio),
    "annualised_return": ("Return a year", _signed),
    "annualised_excess_return": ("Over the index a year", _signed),
    "sharpe_ratio": ("Sharpe ratio", _ratio),
    "information_ratio": ("Information ratio", _ratio),
    "max_drawdown": ("Drawdown", _share),
    "excess_max_drawdown": ("Drawdown over the index", _share),
    "turnover": ("Turnover a day", _share),
}


UNSIGNED = ("max_drawdown", "excess_max_drawdown", "turnover")  # whose sign is always the same


class Paths(Section):
    """RankIC, return and ratio over the paths, as a table of their distribution and as charts, and what each split was worth."""

    title = "Paths"
    place = 136
    answers = "Does the method hold on other histories of the same days?"
    requires = (PATHS, SPLITS, OVERFITTING)
    optional = (WEALTH,)

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """By path RankIC and, where it was traded, ratios and wealth; by split RankIC on its segments."""
        table, splits = run.table(PATHS), run.table(SPLITS)
        names = pd.Index([_name(number) for number in table.index])
        charts: dict[str, Chart] = {
            "paths_rank_ic": Bars(
                values=pd.DataFrame({"RankIC": table["RankIC"].to_numpy()}, index=names),
                ylabel="RankIC",
                height=260,
                alt="Mean RankIC by path",
                caption="Mean daily RankIC of each path, over all days.",
            ),
            "splits_rank_ic": Bars(
                values=pd.DataFrame(
                    {told: splits[f"RankIC/{key}"].to_numpy() for key, told in SEGMENTS.items()},
                    index=pd.Index([str(folds) for folds in splits["folds"]]),
                ),
                xlabel="folds that the split scores",
                ylabel="RankIC",
                height=280,
                alt="RankIC on training, validation and test by split",
                caption="Mean RankIC of each split's model on days of its own segments, spread evenly. Its training and its "
                "validation are of the other folds, before and after.",
            ),
        }
        ratios = {
            told: table[key].to_numpy()
            for key, told in (("sharpe_ratio", "Sharpe ratio"), ("information_ratio", "information ratio"))
            if key in table
        }
        if ratios:
            charts["paths_ratio"] = Bars(
                values=pd.DataFrame(ratios, index=names),
                ylabel="ratio of a year",
                height=260,
                alt="Sharpe and information ratio by path",
                caption="After cost: mean over standard deviation of the daily return, and of that less the index's, times the "
                "root of the trading days in a year.",
            )
        if run.has(WEALTH):
            wealth = run.table(WEALTH)
            over = (
                "over the index, after cost" if "annualised_excess_return" in table else "return, after cost"
            )
            charts["paths_wealth"] = Lines(
                series={_name(path): wealth[path] - 1 for path in wealth},
                percent=True,
                ylabel=over,
                alt="Value of the account on each path",
                caption="Value of the account after cost"
                + (" over that of the index, both" if over.startswith("over") else ",")
                + " 1 at the start, minus 1. Each path is traded by itself, as the run is.",
            )
        return charts

    def render(self, run: RunArtifacts) -> str:
        """Sentences, the distribution over paths, charts, and a row a path and a split."""
        table, splits = run.table(PATHS), run.table(SPLITS)
        drawn = {name: shown(name, chart) for name, chart in self.charts(run).items()}
        return "".join(
            [
                html.paragraph(_said(table, splits, run.tags.get("combinatorial", ""))),
                _distribution(table),
                drawn.get("paths_wealth", ""),
                html.beside(*(drawn[name] for name in ("paths_rank_ic", "paths_ratio") if name in drawn)),
                html.paragraph(_chosen(run.json(OVERFITTING))),
                drawn["splits_rank_ic"],
                html.details("Each path", _each(table)),
                html.details("Each split, and its run", _splits(splits)),
            ]
        )


def _name(path: Any) -> str:
    return f"path {path}" + (" (this run)" if str(path) == "1" else "")


def _said(table: pd.DataFrame, splits: pd.DataFrame, plan: str) -> str:
    later = int((~splits["in_order"].astype(bool)).sum())
    told = f" ({plan})" if plan else ""
    above = int((table["RankIC"] > 0).sum())
    said = (
        f"{len(splits)} models{told}, each trained anew on the folds that it does not score, make {len(table)} paths, each of which "
        f"scores every day by one model. {later} of them learned of days after those that they score: this judges the method, "
        f"and nobody could have traded so. RankIC is above zero on {above} of {len(table)} paths, from "
        f"{html.number(table['RankIC'].min())} to {html.number(table['RankIC'].max())}"
    )
    key = next((name for name in ("annualised_excess_return", "annualised_return") if name in table), None)
    if key is None:
        return f"{said}."
    over = "the return over the index" if "excess" in key else "the return"
    low, high = (html.percent(end, 1, signed=True) for end in (table[key].min(), table[key].max()))
    return f"{said}; {over} a year, after cost, from {low} to {high}."


def _distribution(table: pd.DataFrame) -> str:
    rows = [
        (
            told,
            *map(write, (values.mean(), values.std(ddof=1), values.min(), *values.quantile([0.25, 0.5, 0.75]), values.max())),
            html.NONE if name in UNSIGNED else f"{int((values > 0).sum())} of {len(values)}",
        )
        for name, (told, write) in FIGURES.items()
        if name in table
        for values in [table[name]]
    ]  # fmt: skip
    header = [
        "Over the paths",
        "Mean",
        "Deviation",
        "Lowest",
        "25%",
        "Median",
        "75%",
        "Highest",
        "Above zero",
    ]
    note = (
        "Paths share their days, and two of them the models of some: their deviation says how much hangs on which days a model "
        "learned of, and is no standard error of the mean. All after cost where something was traded."
    )
    return html.table(header, rows, numbers=range(1, len(header))) + html.paragraph(note, "note")


def _chosen(found: Mapping[str, Any]) -> str:
    """What choosing the best path would be worth: paths are of one method, so that the best is so by luck."""
    if not found:
        return ""
    return (
        f"Had the best of these {found['configurations']} paths been chosen on half of the days, by the {found['measure']}, it "
        f"would lie below the median of the other half with a probability of {html.percent(found['probability'], 0)} (probability of "
        f"backtest overfitting, {html.count(found['days'])} days in {found['blocks']} blocks). Where the paths differ by luck alone, "
        "50% is to be expected; far less says that it matters which folds the models of a path have learned of."
    )


def _each(table: pd.DataFrame) -> str:
    there = {name: of for name, of in FIGURES.items() if name in table}
    rows = [
        (_name(number), *(write(row[name]) for name, (_, write) in there.items()))
        for number, row in table.iterrows()
    ]
    return html.table(["Path", *(told for told, _ in there.values())], rows, numbers=range(1, len(there) + 1))


def _splits(table: pd.DataFrame) -> str:
    rows = [
        (
            number,
            row["folds"],
            *(html.number(row[f"RankIC/{key}"]) for key in SEGMENTS),
            html.number(row["psi"], 2),
            "before its test" if row["in_order"] else "before and after",
            html.number(row["minutes"], 1),
            row["run_id"] if row["trained"] else f"{row['run_id']} (taken from an earlier run)",
        )
        for number, row in table.iterrows()
    ]
    header = ["Split", "Scores folds", *(f"RankIC, {told}" for told in SEGMENTS.values())]
    return html.table([*header, "Drift", "Learned of days", "Minutes", "Run"], rows, numbers=(2, 3, 4, 5, 7))
