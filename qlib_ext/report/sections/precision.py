"""How good the top of the list is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import pandas as pd

from qlib_ext.report import html
from qlib_ext.report.charts import Bars, Chart, Lines
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.report.smoothing import smooth, window_days
from qlib_ext.tracking.artifacts import RunArtifacts

FOLDER = "signal_analysis"


class Precision(Section):
    """Precision@N against the base rate, and NDCG@k against chance."""

    title = "Precision of the top of the list"
    place = 150
    answers = "How often do the highest scored rise, against chance?"
    requires = ("ranking/daily.parquet",)
    optional = tuple(
        f"{FOLDER}/{name}" for name in ("precision.csv", "ndcg.csv", "daily.parquet", "summary.json")
    )

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """A bar for each N, with its interval where the run has one; NDCG over time."""
        table = _table(run)
        found: dict[str, Chart] = {}
        if table["precision"].notna().any():
            found["precision"] = _bars(table)
        if table["difference_low"].notna().any():
            found["precision_difference"] = _differences(table)
        if run.has(f"{FOLDER}/ndcg.csv"):
            ndcg = _over_time(run.table(f"{FOLDER}/daily.parquet"), [*run.table(f"{FOLDER}/ndcg.csv").index])
            if ndcg is not None:
                found["ndcg"] = ndcg
        return found

    def render(self, run: RunArtifacts) -> str:
        """The charts and their tables."""
        charts = {name: shown(name, chart) for name, chart in self.charts(run).items()}
        both = html.beside(charts.get("precision", ""), charts.get("precision_difference", ""))
        parts = [both, _precision(_table(run))]
        if not run.has(f"{FOLDER}/precision.csv"):
            by = run.maker(f"{FOLDER}/precision.csv")
            parts.append(
                html.paragraph(f"This run has no intervals, lift and NDCG: {by} makes them.", "note")
            )
        if run.has(f"{FOLDER}/ndcg.csv"):
            classes = run.json(f"{FOLDER}/summary.json")["relevance_classes"]
            parts += [
                html.heading("NDCG"),
                html.paragraph(
                    "Normalised discounted cumulative gain: how much of the best returns of a day stands at the top of "
                    "the list, the first place counting most; 1 for the perfect order. The relevance of a stock is the "
                    f"fifth of the day that its return is in, 0 to {classes - 1}."
                ),
                charts.get("ndcg", ""),
                _ndcg(run.table(f"{FOLDER}/ndcg.csv")),
            ]
        return "".join(parts)


def _table(run: RunArtifacts) -> pd.DataFrame:
    """A row for each N: from the signal analysis, or means of the ranking, which has no intervals."""
    if run.has(f"{FOLDER}/precision.csv"):
        return run.table(f"{FOLDER}/precision.csv")
    daily = run.table("ranking/daily.parquet")
    base = daily["base_rate"]
    rows = {}
    for n in _numbers(daily):
        share = daily[f"precision/{n}"]
        better = (share > base)[share.notna() & base.notna()]
        rows[n] = {
            "precision": share.mean(),
            "base_rate": base.mean(),
            "difference": (share - base).mean(),
            "days_above": better.mean() if len(better) else float("nan"),
        }
    return pd.DataFrame(rows).T.reindex(
        columns=[
            "precision",
            "precision_low",
            "precision_high",
            "base_rate",
            "difference",
            "difference_low",
            "difference_high",
            "lift",
            "days_above",
        ]
    )


def _numbers(daily: pd.DataFrame) -> list[int]:
    found = (re.fullmatch(r"precision/(\d+)", str(column)) for column in daily.columns)
    return sorted(int(match.group(1)) for match in found if match)


def _bars(table: pd.DataFrame) -> Chart:
    named = table.set_axis([f"top {n}" for n in table.index])
    known = named["precision_low"].notna().any()

    def one(column: str) -> pd.DataFrame:
        return named[column].to_frame("share that rose")

    return Bars(
        values=one("precision"),
        low=one("precision_low") if known else None,
        high=one("precision_high") if known else None,
        levels={"base rate: all scored stocks": float(named["base_rate"].iloc[0])},
        ylabel="share that rose",
        percent=True,
        height=260,
        alt="Precision of the highest scored stocks against the base rate",
        caption="Share of the N highest scored stocks of a day whose raw return label is positive, mean over days"
        + (", with its 95% interval" if known else "")
        + ". The line is the base rate, the same share of all scored stocks: what a list drawn by lot would have."
        + (
            " Both rise and fall with the market, so their difference, below, is surer than either."
            if known
            else ""
        ),
    )


def _differences(table: pd.DataFrame) -> Chart:
    named = table.set_axis([f"top {n}" for n in table.index])

    def one(column: str) -> pd.DataFrame:
        return named[column].to_frame("above the base rate")

    return Bars(
        values=one("difference"),
        low=one("difference_low"),
        high=one("difference_high"),
        ylabel="precision less base rate",
        percent=True,
        height=240,
        alt="Precision of the highest scored stocks less the base rate",
        caption="How much more often the N highest scored stocks rose than all scored stocks, in percentage points, mean "
        "over days with its 95% interval. An interval that holds 0 leaves open whether the list knows anything.",
    )


def _over_time(daily: pd.DataFrame, numbers: list[int]) -> Chart | None:
    window = window_days(len(daily))
    lines = {
        f"NDCG@{k} less chance": smooth(daily[f"ndcg/{k}"] - daily[f"ndcg_by_chance/{k}"], window)
        for k in numbers
    }
    if not any(values.notna().any() for values in lines.values()):
        return None
    return Lines(
        series=lines,
        hidden=[*lines][1:],
        levels={"chance": 0.0},
        ylabel="NDCG less that of chance",
        height=260,
        alt="NDCG of the top of the list over time, less that of chance",
        caption=f"NDCG@k of the list less what a random order has on that day, mean of {window} days. Other k can be "
        "switched on.",
    )


def _precision(table: pd.DataFrame) -> str:
    rows = [
        (
            f"Precision@{n}",
            html.percent(row["precision"]),
            html.percent(row["base_rate"]),
            html.points(row["difference"]),
            _interval(row, html.points),
            html.number(row["lift"], 3),
            html.percent(row["days_above"], 1),
        )
        for n, row in table.iterrows()
    ]
    header = ["", "Precision", "Base rate", "Difference", "95% interval", "Lift", "Days above base"]
    return html.table(header, rows, numbers=range(1, 7)) + html.paragraph(
        "Means over days; the interval is of the difference, by the stationary bootstrap over days. Lift is mean precision "
        "over mean base rate.",
        "note",
    )


def _ndcg(table: pd.DataFrame) -> str:
    rows = [
        (
            f"NDCG@{k}",
            html.number(row["ndcg"]),
            html.number(row["by_chance"]),
            html.number(row["difference"], signed=True),
            _interval(row, lambda value: html.number(value, signed=True)),
        )
        for k, row in table.iterrows()
    ]
    return html.table(["", "NDCG", "By chance", "Difference", "95% interval"], rows, numbers=range(1, 5))


def _interval(row: pd.Series, written: Callable[[float], str]) -> str:
    low, high = row["difference_low"], row["difference_high"]
    return html.NONE if pd.isna(low) else f"{written(low)} to {written(high)}"
