"""Direction and size of the next return, beside rules that need no model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from qlib_ext.report import html
from qlib_ext.report.charts import Bars, Chart, Lines
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.tracking.artifacts import RunArtifacts

WHOLE = "all test days"
ROLLING_DAYS = 60
NAMES = {
    "model": "the model",
    "majority": "always the most common class of the training years",
    "persistence": "the direction of the last known return",
    "zero": "always a return of 0",
    "train_mean": "always the mean return of the training years",
}
HEADINGS = {"accuracy": "Accuracy", "macro_f1": "Macro F1", "mae": "MAE", "rmse": "RMSE"}


class Direction(Section):
    """Accuracy, macro F1, MAE and RMSE beside naive rules, over all test days and in named periods."""

    title = "Direction and return"
    place = 180
    answers = "Is the direction of the next return told better than by a rule without a model, and its size?"
    requires = (
        "direction/daily.parquet",
        "direction/summary.csv",
        "direction/differences.csv",
        "direction/setup.json",
    )

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """Rolling accuracy, and the advantage over the rules by period."""
        daily = run.table("direction/daily.parquet")
        days = min(ROLLING_DAYS, max(2, len(daily) // 4))
        lines = {}
        for rule in ("model", "majority", "persistence"):
            if f"accuracy/{rule}" in daily:
                correct = daily[f"accuracy/{rule}"] * daily["n_stocks"]
                share = correct.rolling(days).sum() / daily["n_stocks"].rolling(days).sum()
                lines[NAMES[rule]] = share
        found: dict[str, Chart] = {
            "direction_accuracy": Lines(
                series=lines,
                levels={"a coin": 0.5},
                ylabel="share of right directions",
                percent=True,
                alt="Accuracy of the direction over time, beside rules without a model",
                caption=f"Share of stocks whose direction was told rightly, over the last {days} trading days.",
            )
        }
        difference = _differences(run)
        pooled = difference.xs(("accuracy", "pooled"), level=("metric", "over")).reset_index()
        table = pooled.pivot(index="period", columns="rule", values=["advantage", "low", "high"])
        table = table.reindex(pooled["period"].unique())
        renamed = {part: 100 * table[part].rename(columns=NAMES) for part in ("advantage", "low", "high")}
        if renamed["advantage"].notna().any().any():
            found["direction_advantage"] = Bars(
                values=renamed["advantage"],
                low=renamed["low"],
                high=renamed["high"],
                ylabel="percentage points of accuracy",
                height=260,
                alt="Accuracy of the model less that of each rule, by period",
                caption="Accuracy of the model less that of a rule, in percentage points, with its interval. A bar whose "
                "interval holds 0 is no evidence.",
            )
        return found

    def render(self, run: RunArtifacts) -> str:
        """What was predicted, the tables of each period, and the charts."""
        setup = run.json("direction/setup.json")
        parts = []
        if setup["implausible"]:
            parts.append(
                html.box(
                    "Look for a leak",
                    html.paragraph(
                        f"The accuracy is above {html.percent(setup['implausible_above'], 0)}. Nobody tells the "
                        "direction of the next day so often: a feature that knows the future is likelier than skill."
                    ),
                )
            )
        parts.append(
            html.paragraph(
                f"Direction: the label {setup['label']}, told by the task {setup['task']}; return: {setup['returns']}, a "
                f"fraction. {html.count(setup['rows'])} rows count, those that have everything; "
                f"{html.count(setup['returns_of_zero'])} of them have a return of exactly 0, which is no rise. "
                f"Pooled figures take all rows together, figures by day are means of daily ones. Intervals hold "
                f"{html.percent(setup['level'], 0)} of {html.count(setup['draws'])} resampled series of whole days; an "
                "advantage above 0 is one of the model."
            )
        )
        if setup["periods_without_rows"]:
            parts.append(
                html.paragraph(
                    f"No test day lies in: {', '.join(setup['periods_without_rows'])}. These periods have no figures."
                )
            )
        charts = self.charts(run)
        parts += [shown(name, chart) for name, chart in charts.items()]
        difference = _differences(run)
        for period in difference.index.unique("period"):
            if period in setup["periods_without_rows"]:
                continue
            parts.append(html.heading(_heading(period, setup)))
            by_over = dict(iter(difference.loc[period].groupby(level="over")))
            parts.append(_table(by_over["pooled"]))
            parts.append(html.details("By day, each day counting the same", _table(by_over["by_day"])))
        return "".join(parts)


def _differences(run: RunArtifacts) -> pd.DataFrame:
    table = run.table("direction/differences.csv").reset_index()
    return table.set_index(["period", "metric", "over", "rule"])


def _heading(period: str, setup: Mapping[str, Any]) -> str:
    if period == WHOLE:
        return "All test days"
    first, last = setup["periods"][period]
    return f"{period}: {first} to {last}"


def _table(difference: pd.DataFrame) -> str:
    rows = []
    for (metric, _, rule), row in difference.iterrows():
        share = metric in ("accuracy", "macro_f1")

        def figure(value: float, share: bool = share) -> str:
            return html.percent(value) if share else html.number(value, 5)

        def gap(value: float, share: bool = share) -> str:
            return html.points(value) if share else html.number(value, 5, signed=True)

        rows.append(
            (
                HEADINGS[metric],
                NAMES[rule],
                figure(row["model"]),
                figure(row["baseline"]),
                gap(row["advantage"]),
                f"{gap(row['low'])} to {gap(row['high'])}",
            )
        )
    return html.table(
        ["Metric", "Rule", "Model", "Rule's", "Advantage", "Interval"], rows, numbers=range(2, 6)
    )
