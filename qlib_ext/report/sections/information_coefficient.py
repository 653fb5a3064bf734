"""How the scores agree with the returns that followed: by day, over time, by industry, at a distance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from qlib_ext.checks import UserError, brief, integer, nearest
from qlib_ext.report import html
from qlib_ext.report.charts import Bars, Chart, Heatmap, Histogram, Lines, Points
from qlib_ext.report.fold_marks import FOLDS, fold_marks
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.report.smoothing import WINDOW_DAYS, smooth, window_days
from qlib_ext.tracking.artifacts import RunArtifacts

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
FOLDER = "signal_analysis"


class InformationCoefficient(Section):
    """IC and RankIC: daily, cumulative, by month and year, by industry, their decay and their distribution.

    Parameters
    ----------
    label
        Label column; by default the first that the run was ranked against. The others stand beside it where there is
        room for both.
    window
        Days of the moving average; of a run shorter than four times as many, a quarter of its days.
    """

    title = "Information coefficient"
    place = 130
    answers = (
        "Does the score agree with the returns that followed, when, in which industry, for how many days?"
    )
    requires = ("ranking/daily.parquet", "ranking/summary.csv")
    optional = (
        f"{FOLDER}/monthly.csv",
        f"{FOLDER}/yearly.csv",
        f"{FOLDER}/distribution.csv",
        f"{FOLDER}/normality.parquet",
        f"{FOLDER}/decay.csv",
        f"{FOLDER}/industry.csv",
        f"{FOLDER}/summary.json",
        FOLDS,
    )

    def __init__(self, label: str | None = None, window: int = WINDOW_DAYS):
        self.label = label
        self.window = integer("window", window, 1)

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """Lines over days, and what the run's signal analysis adds."""
        label, others = self._labels(run)
        daily, marks = run.table("ranking/daily.parquet"), fold_marks(run)
        found: dict[str, Chart] = {
            "information_coefficient": self._daily(daily, label, others, marks),
            "information_coefficient_sum": _running_sum(daily, label, others, marks),
        }
        if run.has(f"{FOLDER}/monthly.csv"):
            monthly = _of_label(run.table(f"{FOLDER}/monthly.csv"), label)
            if len(monthly):
                found["information_coefficient_monthly"] = _months(monthly, label)
        if run.has(f"{FOLDER}/decay.csv"):
            decay = _decay(run.table(f"{FOLDER}/decay.csv"), label)
            if decay is not None:
                found["information_coefficient_decay"] = decay
        if run.has(f"{FOLDER}/industry.csv"):
            industry = _of_label(run.table(f"{FOLDER}/industry.csv"), label)
            if len(industry):
                found["information_coefficient_industry"] = _industries(industry, label)
        found |= _histogram(daily, label)
        if run.has(f"{FOLDER}/normality.parquet"):
            found |= _normality(_of_label(run.table(f"{FOLDER}/normality.parquet"), label))
        return found

    def render(self, run: RunArtifacts) -> str:
        """What it is in a sentence, then the charts, each beside its table."""
        label, others = self._labels(run)
        charts = {name: shown(name, chart) for name, chart in self.charts(run).items()}

        def chart(part: str) -> str:
            return charts.get(f"information_coefficient{part}", "")

        parts = [
            html.paragraph(
                "The information coefficient (IC) of a day is the correlation of the day's scores with the returns that "
                "followed, across stocks: 1 if the scores order and space the stocks as the returns do, 0 if they know "
                f"nothing. RankIC is the same of the ranks. Returns are the raw label {label} unless another is named."
            ),
            chart(""),
            chart("_sum"),
        ]
        if run.has(f"{FOLDER}/yearly.csv"):
            yearly = run.table(f"{FOLDER}/yearly.csv")
            parts += [
                html.heading("By month and by year"),
                chart("_monthly"),
                _years(yearly, [label, *others]),
            ]
        if chart("_decay"):
            parts += [html.heading("Decay"), chart("_decay")]
        if run.has(f"{FOLDER}/summary.json"):
            parts += [html.heading("By industry"), chart("_industry")]
            parts.append(_industry_note(run.json(f"{FOLDER}/summary.json")["industry"]))
        parts += [html.heading("Distribution"), html.beside(chart("_histogram"), chart("_qq"))]
        if run.has(f"{FOLDER}/distribution.csv"):
            parts.append(_shapes(run.table(f"{FOLDER}/distribution.csv"), [label, *others]))
        else:
            parts.append(
                html.paragraph(
                    "This run has no months, years, industries and decay of the IC: "
                    f"{run.maker(f'{FOLDER}/decay.csv')} makes them.",
                    "note",
                )
            )
        return "".join(parts)

    def _daily(
        self, daily: pd.DataFrame, label: str, others: list[str], marks: Mapping[str, object]
    ) -> Chart:
        window = window_days(len(daily), self.window)
        lines = {"IC": daily[f"ic/{label}"], "RankIC": daily[f"rank_ic/{label}"]}
        every = lines | {f"RankIC, {other}": daily[f"rank_ic/{other}"] for other in others}
        averages = {
            f"{name}, mean of {window} days": smooth(values, window) for name, values in every.items()
        }
        single = {f"{name}, each day": values for name, values in lines.items()}
        rank_ic = lines["RankIC"].dropna()
        positive = f"{(rank_ic > 0).mean():.0%}" if len(rank_ic) else "none"
        return Lines(
            series=averages | single,
            marks=marks,
            hidden=[*single, *(f"RankIC, {other}, mean of {window} days" for other in others)],
            ylabel="correlation",
            alt=f"IC and RankIC against {label} over time",
            caption=f"Correlation of the scores of day t with the raw label {label}, across the stocks of the day, as the "
            f"mean of {window} days; each day's own, and other labels, can be switched on. RankIC is above zero on "
            f"{positive} of {len(rank_ic)} days.",
        )

    def _labels(self, run: RunArtifacts) -> tuple[str, list[str]]:
        """The label that the section goes by, and the others."""
        known = [str(label) for label in run.table("ranking/summary.csv").index]
        label = known[0] if self.label is None else self.label
        if label not in known:
            raise UserError(
                f"`label` must be one of {', '.join(known)}, found {brief(label)}{nearest(label, known)}"
            )
        return label, [other for other in known if other != label]


def _running_sum(daily: pd.DataFrame, label: str, others: list[str], marks: Mapping[str, object]) -> Chart:
    lines = {"IC": daily[f"ic/{label}"], "RankIC": daily[f"rank_ic/{label}"]}
    more = {f"RankIC, {other}": daily[f"rank_ic/{other}"] for other in others}
    return Lines(
        series={name: values.fillna(0.0).cumsum() for name, values in (lines | more).items()},
        marks=marks,
        hidden=[*more],
        ylabel="running sum",
        height=240,
        alt=f"Running sums of IC and RankIC against {label}",
        caption="The running sum of the daily values; its slope is the mean, so that a bend shows when the signal got "
        "weaker or stronger. A day without a value adds nothing.",
    )


def _of_label(table: pd.DataFrame, label: str) -> pd.DataFrame:
    return table[table["label"] == label].drop(columns="label")


def _months(monthly: pd.DataFrame, label: str) -> Chart:
    """A row a year, a column a month."""
    period = pd.PeriodIndex(monthly.index.astype(str), freq="M")
    years = [*range(period.year.min(), period.year.max() + 1)]
    wide = pd.Series(monthly["RankIC"].to_numpy(dtype=float), index=[period.year, period.month]).unstack()
    wide = wide.reindex(index=years, columns=range(1, 13))
    return Heatmap(
        values=wide.set_axis([str(year) for year in years]).set_axis(MONTHS, axis=1),
        digits=3,
        height=90,
        alt=f"Mean RankIC against {label} by month",
        caption=f"Mean of the daily RankIC against {label} in each month; blue is above zero, orange below.",
    )


def _years(yearly: pd.DataFrame, labels: list[str]) -> str:
    rows = [
        (
            str(year),
            label,
            html.number(row["IC"]),
            html.number(row["ICIR"], 2),
            html.number(row["RankIC"]),
            html.number(row["RankICIR"], 2),
            html.percent(row["hit_rate"], 1),
            html.count(row["days"]),
        )
        for label in labels
        for year, row in _of_label(yearly, label).iterrows()
    ]
    header = ["Year", "Label", "IC", "ICIR", "RankIC", "RankICIR", "RankIC above 0", "Days"]
    return html.table(header, rows, numbers=range(2, 8)) + html.paragraph(
        "Means over days. ICIR and RankICIR are the mean over the standard deviation of the daily values, not annualised.",
        "note",
    )


def _decay(decay: pd.DataFrame, label: str) -> Chart | None:
    """RankIC with bands of all labels, IC where asked for."""
    series: dict[str, pd.Series] = {}
    bands: dict[str, tuple[pd.Series, pd.Series]] = {}
    labels = sorted(decay["label"].unique(), key=lambda other: other != label)
    for measure in ("RankIC", "IC"):
        for other in labels:
            rows = _of_label(decay, other).dropna(subset=[measure])
            if len(rows):
                name = f"{measure}, {other}"
                series[name] = rows[measure]
                bands[name] = rows[f"{measure}_low"], rows[f"{measure}_high"]
    if not series:
        return None
    return Lines(
        series=series,
        bands=bands,
        hidden=[name for name in series if name.startswith("IC")],
        dots=True,
        levels={"no information": 0.0},
        xlabel="lag, trading days",
        ylabel="mean correlation",
        alt="IC and RankIC of the score with the returns of later days",
        caption="Mean correlation of the score of day t with the label of day t + lag, a return of one day that starts "
        "that much later; lag 0 is the IC above. Bands are 95% intervals of the mean over days. A signal whose line "
        "falls fast must be traded fast.",
    )


def _industries(industry: pd.DataFrame, label: str) -> Chart:
    ordered = industry.sort_values("RankIC", ascending=False)
    return Bars(
        values=ordered[["RankIC"]],
        low=ordered[["RankIC_low"]].set_axis(["RankIC"], axis=1),
        high=ordered[["RankIC_high"]].set_axis(["RankIC"], axis=1),
        horizontal=True,
        height=160,
        xlabel="",
        ylabel="mean RankIC",
        alt=f"Mean RankIC against {label} within each industry",
        caption=f"Mean of the daily RankIC against {label} among the stocks of one industry alone, with its 95% interval: "
        "whether the score tells stocks of the same industry apart, or only industries from each other.",
    )


def _industry_note(industry: Mapping[str, Any]) -> str:
    if not industry["available"]:
        return html.paragraph(f"There is no IC by industry: {industry['reason']}.", "note")
    said = f"A day of an industry counts when at least {industry['min_stocks']} of its stocks have a score and a return."
    if industry["left_out"]:
        said += f" Never that many: {', '.join(map(str, industry['left_out']))}."
    return html.paragraph(said, "note")


def _histogram(daily: pd.DataFrame, label: str) -> dict[str, Chart]:
    samples = {"IC": daily[f"ic/{label}"].dropna(), "RankIC": daily[f"rank_ic/{label}"].dropna()}
    if not any(len(values) for values in samples.values()):
        return {}
    return {
        "information_coefficient_histogram": Histogram(
            samples={name: values.to_numpy() for name, values in samples.items()},
            bins=40,
            marks={f"mean {name}": float(values.mean()) for name, values in samples.items() if len(values)},
            xlabel="correlation of a day",
            ylabel="days",
            height=260,
            alt=f"Histogram of the daily IC and RankIC against {label}",
            caption="How many days had which IC and RankIC.",
        )
    }


def _normality(places: pd.DataFrame) -> dict[str, Chart]:
    """The Q-Q plot of the daily values."""
    if places.empty:
        return {}
    return {
        "information_coefficient_qq": Points(
            series={
                str(measure): pd.DataFrame(
                    {"x": rows["expected"], "y": rows["found"], "text": rows["day"].dt.strftime("%Y-%m-%d")}
                )
                for measure, rows in places.groupby("measure", sort=False)
            },
            diagonal=True,
            xlabel="expected of a normal distribution, standard deviations",
            ylabel="found, standard deviations",
            alt="Q-Q plot of the daily IC and RankIC against a normal distribution",
            caption="Every day's value, less the mean and over the standard deviation, against where it would lie if the "
            "values were normal. Points below the line on the left, or above it on the right, are days more extreme than "
            "a normal distribution has.",
        )
    }


def _shapes(shapes: pd.DataFrame, labels: list[str]) -> str:
    rows = [
        (
            str(measure),
            label,
            html.number(row["mean"]),
            f"{html.number(row['low'])} to {html.number(row['high'])}",
            html.number(row["std"]),
            html.number(row["ratio"], 2),
            html.number(row["t"], 1),
            html.percent(row["hit_rate"], 1),
            html.number(row["skewness"], 2),
            html.number(row["kurtosis"], 2),
        )
        for label in labels
        for measure, row in _of_label(shapes, label).iterrows()
    ]
    header = [
        "",
        "Label",
        "Mean",
        "95% interval",
        "Deviation",
        "Ratio",
        "t",
        "Above 0",
        "Skewness",
        "Kurtosis",
    ]
    return html.table(header, rows, numbers=range(2, 10)) + html.paragraph(
        "Of the daily values. The interval is of the mean, by the stationary bootstrap over days; the ratio is mean over "
        "deviation (ICIR); t is robust to autocorrelation (Newey-West). Skewness and excess kurtosis are 0 for a normal "
        "distribution.",
        "note",
    )
