"""How well the momentum classes are told, and whether their probabilities hold."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from qlib_ext.report import html
from qlib_ext.report.charts import Bars, Chart, Heatmap, Lines, Points
from qlib_ext.report.colours import ramp
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.report.smoothing import smooth, window_days
from qlib_ext.tracking.artifacts import RunArtifacts

FOLDER = "momentum"
RULES = {"model": "Model", "persistence": "Persistence", "majority": "Majority"}


class Momentum(Section):
    """Confusion matrix, calibration, accuracy by class beside rules without a model, shares and adaptive k over time."""

    title = "Momentum classes"
    place = 170
    answers = (
        "Which classes are told right, are probabilities honest, is it better than a rule without a model?"
    )
    requires = tuple(
        f"{FOLDER}/{name}"
        for name in (
            "daily.parquet",
            "summary.csv",
            "confusion.csv",
            "classes.csv",
            "calibration.csv",
            "monthly.csv",
            "scores.json",
        )
    )

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """Heatmap, bars, points and lines."""
        classes = run.table(f"{FOLDER}/classes.csv")
        names = _names(classes)
        daily, monthly = run.table(f"{FOLDER}/daily.parquet"), run.table(f"{FOLDER}/monthly.csv")
        found: dict[str, Chart] = {}
        if classes["actual"].sum():
            found["momentum_confusion"] = _confusion(run.table(f"{FOLDER}/confusion.csv"), names)
            found["momentum_accuracy"] = _by_class(classes, names)
            found["momentum_calibration"] = _calibration(run.table(f"{FOLDER}/calibration.csv"), names)
            for which in ("actual", "predicted"):
                found[f"momentum_shares_{which}"] = _shares(monthly, names, which)
            found["momentum_k"] = _adaptive_k(daily, run.json(f"{FOLDER}/scores.json")["share"])
        return found

    def render(self, run: RunArtifacts) -> str:
        """How the model compares in a table, then where it is right and wrong."""
        charts = {name: shown(name, chart) for name, chart in self.charts(run).items()}

        def chart(part: str) -> str:
            return charts.get(f"momentum_{part}", "")

        scores = run.json(f"{FOLDER}/scores.json")
        classes = run.table(f"{FOLDER}/classes.csv")
        daily = run.table(f"{FOLDER}/daily.parquet")
        return "".join(
            [
                _rules(run.table(f"{FOLDER}/summary.csv")),
                html.heading("By class"),
                chart("accuracy"),
                _classes(classes),
                chart("confusion"),
                html.heading("Probabilities"),
                chart("calibration"),
                _probabilities(scores),
                html.heading("Over time"),
                html.beside(chart("shares_actual"), chart("shares_predicted")),
                chart("k"),
                html.paragraph(
                    f"In the order of their expected class, the k stocks have an NDCG of {html.number(daily['ndcg'].mean())} "
                    f"on an average day; a random order has {html.number(daily['ndcg_by_chance'].mean())}.",
                    "note",
                ),
            ]
        )


def _names(classes: pd.DataFrame) -> list[str]:
    return [str(name) for name in classes["name"]]


def _rules(summary: pd.DataFrame) -> str:
    rows = []
    for rule, name in RULES.items():
        row = summary.loc[rule]
        interval = f"{html.points(row['difference_low'])} to {html.points(row['difference_high'])}"
        rows.append(
            (
                name,
                html.percent(row["accuracy"]),
                html.points(row["difference"]),
                html.NONE if rule == "model" else interval,
                html.number(row["macro_f1"], 3),
                html.number(row["kappa"], 3),
                html.number(row["matthews"], 3),
            )
        )
    header = ["", "Accuracy", "Model's lead", "95% interval", "Macro F1", "Kappa", "Matthews"]
    return html.table(header, rows, numbers=range(1, 7)) + html.paragraph(
        f"Over {html.count(summary.loc['model', 'rows'])} stocks and days. Persistence lets the last known sign go on, "
        "and is hard to beat where most of what makes a class is known on the day; majority always says the most common "
        "class, known in hindsight. The lead is the mean over days of the model's accuracy less the rule's, with its "
        "interval from the stationary bootstrap over days. Macro F1 weighs all classes alike; kappa and the Matthews "
        "correlation are 0 for chance and 1 for perfection.",
        "note",
    )


def _by_class(classes: pd.DataFrame, names: list[str]) -> Chart:
    columns = {"model": "recall", "persistence": "persistence_recall", "majority": "majority_recall"}
    values = pd.DataFrame(
        {name: classes[columns[rule]].to_numpy() for rule, name in RULES.items()}, index=names
    )
    return Bars(
        values=values,
        percent=True,
        ylabel="told right",
        alt="Accuracy on each class of the model, of persistence and of the majority class",
        caption="Of the stocks that turned out to be in a class, the share that was predicted to be (recall).",
    )


def _classes(classes: pd.DataFrame) -> str:
    rows = [
        (
            row["name"],
            html.count(row["actual"]),
            html.count(row["predicted"]),
            html.percent(row["precision"], 1),
            html.percent(row["recall"], 1),
            html.number(row["f1"], 3),
            html.percent(row["calibration_error"], 1),
        )
        for _, row in classes.iterrows()
    ]
    header = ["Class", "Actual", "Predicted", "Precision", "Recall", "F1", "Calibration error"]
    return html.table(header, rows, numbers=range(1, 7)) + html.paragraph(
        "Of the model. Precision is the share of right ones among those predicted to be in the class, recall among those "
        "that are; F1 is their harmonic mean.",
        "note",
    )


def _confusion(confusion: pd.DataFrame, names: list[str]) -> Chart:
    shares = confusion.div(confusion.sum(axis=1), axis=0)
    return Heatmap(
        values=pd.DataFrame(shares.to_numpy(), index=names, columns=names),
        diverging=False,
        percent=True,
        digits=0,
        height=240,
        xlabel="predicted",
        ylabel="actual",
        alt="Confusion matrix of the momentum classes",
        caption="Of the stocks in each class (row), the share predicted to be in which (column); each row sums to 100% and "
        "the diagonal is right.",
    )


def _calibration(calibration: pd.DataFrame, names: list[str]) -> Chart:
    known = {str(number): name for number, name in enumerate(names)}
    series = {}
    for key, rows in calibration.groupby(calibration.index.astype(str), sort=False):
        used = rows[rows["predictions"] > 0]
        if len(used):
            series[known.get(str(key), str(key))] = pd.DataFrame(
                {
                    "x": used["predicted"].to_numpy(),
                    "y": used["observed"].to_numpy(),
                    "text": [f"{count:,} predictions" for count in used["predictions"]],
                }
            )
    return Points(
        series=series,
        diagonal=True,
        joined=True,
        percent=True,
        xlabel="predicted probability",
        ylabel="share that came true",
        height=340,
        alt="Predicted probability of each class against the share that came true",
        caption="Predictions in bins by their probability: the mean probability of a bin, and the share that came true, "
        "for each class and for the class that was predicted (the most probable one). On the line the probabilities mean "
        "what they say; below it the model is too sure.",
    )


def _probabilities(scores: Mapping[str, float]) -> str:
    def value(key: str) -> float:
        return float("nan") if scores[key] is None else float(scores[key])

    rows = [
        (
            "Model",
            html.number(value("log_loss"), 3),
            html.number(value("brier_score"), 3),
            html.percent(value("calibration_error"), 1),
        ),
        (
            "Class shares",
            html.number(value("constant_log_loss"), 3),
            html.number(value("constant_brier_score"), 3),
            html.NONE,
        ),
    ]
    return html.table(
        ["", "Log loss", "Brier score", "Calibration error"], rows, numbers=range(1, 4)
    ) + html.paragraph(
        "Log loss is the mean of minus the natural logarithm of the probability given to the class that came true, the "
        "Brier score the mean squared distance of the probabilities from what came true; for both, lower is better. "
        "The row of class shares gives every stock the shares that the classes turned out to have. The calibration error is the mean "
        "distance of the predicted class's points from the line.",
        "note",
    )


def _shares(monthly: pd.DataFrame, names: list[str], which: str) -> Chart:
    months = pd.PeriodIndex(monthly.index.astype(str), freq="M").to_timestamp()
    series = {
        name: pd.Series(monthly[f"{which}_{number}"].to_numpy(dtype=float), index=months)
        for number, name in enumerate(names)
    }
    return Lines(
        series=series,
        stacked=True,
        percent=True,
        colours=ramp(len(names)),
        ylabel=f"share of stocks, {which}",
        height=260,
        alt=f"Shares of the classes over time, {which}",
        caption=f"Shares of the classes by month, as they {'were' if which == 'actual' else 'were predicted'}.",
    )


def _adaptive_k(daily: pd.DataFrame, share: float) -> Chart:
    window = window_days(len(daily), 20)
    k = daily["k"].where(daily["n_stocks"] > 0).astype(float)
    return Lines(
        series={f"mean of {window} days": smooth(k, window), "each day": k},
        hidden=["each day"] if window > 1 else [],
        ylabel="stocks",
        height=260,
        alt="Adaptive k over time",
        caption="Adaptive k: how many stocks the loss ranks at the top, the whole classes from the highest that first hold "
        f"{share:.0%} of the day's stocks. It jumps where the highest class alone is too small and the next one joins it.",
    )
