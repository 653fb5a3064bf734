"""How well direction and size of the next return are told, beside rules that need no model."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from qlib.data.dataset.handler import DataHandlerLP

from qlib_ext.checks import UserError, above, between, instance, integer
from qlib_ext.data.days import as_day
from qlib_ext.data.spec import DatasetSpec
from qlib_ext.metrics.bootstrap import bootstrap_intervals
from qlib_ext.metrics.classification import confusion_matrix, macro_f1, pooled_accuracy
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.metrics.regression import mean_absolute_error, root_mean_square_error
from qlib_ext.records.base import Record, matrices
from qlib_ext.records.ranking import require_column

logger = logging.getLogger(__name__)

WHOLE = "all test days"
IMPLAUSIBLE = 0.60  # of next-day direction, pooled: published results that hold up lie well below
CLASS_RULES, RETURN_RULES = ("model", "majority", "persistence"), ("model", "zero", "train_mean")
METRICS = {"accuracy": CLASS_RULES, "macro_f1": CLASS_RULES, "mae": RETURN_RULES, "rmse": RETURN_RULES}
ERRORS = ("mae", "rmse")  # lower is better


class DirectionRecord(Record):
    """Accuracy and macro F1 of the direction, MAE and RMSE of the return, over all rows and by day.

    The predicted class of a stock and day is the most probable one, of equals the lowest. The forecast of the return is
    the regression's output times `unit`. Beside them stand rules that need no model:

    ==============  ====================================================================================
    `majority`      the most common class of the training rows, always
    `persistence`   the direction of the last known return
    `zero`          a return of 0, always
    `train_mean`    the mean return of the training rows, always
    ==============  ====================================================================================

    Rows count that have everything, so that all are judged on the same ones. *Pooled* figures take all rows together, a
    day counting by its stocks; figures *by day* are means of daily ones. An `advantage` is how much better the model
    is (accuracy and F1: model less rule; errors: rule less model), with an interval from the stationary bootstrap of
    whole days, since stocks of a day move together and are no independent trials.

    Writes `direction/daily.parquet`, by day: `n_stocks` and, for each rule, `accuracy/<rule>`, `macro_f1/<rule>`,
    `mae/<rule>`, `rmse/<rule>`; `direction/summary.csv` (a row for each period and rule), `direction/differences.csv`
    (period, metric, over, rule, model, baseline, advantage, low, high), `direction/confusion.csv` (a row an actual class,
    a column a predicted one) and `direction/setup.json`. Logs `direction/accuracy`, `direction/macro_f1`,
    `direction/majority_accuracy`, `direction/accuracy_advantage` (against majority) and its `_low`, `return/mae`,
    `return/rmse`, `return/zero_mae`, `return/zero_rmse`, over all rows.

    Parameters
    ----------
    recorder, model, dataset
        Given by Qlib, which gives model and dataset together or not at all; of the dataset the training labels are read.
    task
        Name of the classification task; its probabilities are the columns `<task>_0`, `<task>_1`, ... of the
        predictions.
    label
        Column of the actual class, 0 to C - 1.
    persistence
        Column of the class that follows from the last known return; None leaves the rule out.
    returns
        Column of the actual return, a fraction.
    forecast
        Column of the predictions that forecasts it.
    unit
        What a forecast of 1 means as a return; the `unit` of `ScaleLabel` where that made the training label.
    periods
        Name -> (first day, last day): parts of the test days that are judged apart, such as times of stress.
    level, draws, seed
        Of the intervals: probability to cover, number of resampled series, seed.

    Raises
    ------
    UserError
        If an argument is out of range, or the predictions or labels lack a column or have no row with everything.

    Notes
    -----
    A return of exactly 0 belongs to the class that the label's processor gives it (`RiseOrFall`: no rise); `setup.json`
    says how many there were. A period without a test day has no figures, and says so in `setup.json` and in the log.
    """

    needs = ("signal/predictions.parquet", "signal/labels.parquet")
    makes = (
        "direction/daily.parquet",
        "direction/summary.csv",
        "direction/differences.csv",
        "direction/confusion.csv",
        "direction/setup.json",
    )

    def __init__(
        self,
        recorder: Any,
        model: Any,
        dataset: Any,
        task: str = "direction",
        label: str = "RISE",
        persistence: str | None = "RISE_PERSISTENCE",
        returns: str = "NEXT_RETURN",
        forecast: str = "score",
        unit: float = 1.0,
        periods: Mapping[str, Sequence[Any]] | None = None,
        level: float = 0.95,
        draws: int = 1000,
        seed: int = 0,
    ):
        super().__init__(recorder)
        self.dataset = dataset
        self.task = instance("task", task, str)
        self.label = instance("label", label, str)
        self.persistence = None if persistence is None else instance("persistence", persistence, str)
        self.returns = instance("returns", returns, str)
        self.forecast = instance("forecast", forecast, str)
        self.unit = above("unit", unit, 0)
        if periods is not None and not isinstance(periods, Mapping):
            raise UserError(
                f"`periods` must be a mapping from names to a first and a last day, found {periods!r}"
            )
        self.periods = {str(name): _period(str(name), days) for name, days in (periods or {}).items()}
        self.level = between("level", level, 0, 1, open_low=True, open_high=True)
        self.draws = integer("draws", draws, 1)
        self.seed = integer("seed", seed, 0)

    def check_before(self, spec: DatasetSpec) -> None:
        """Task and labels, against those of the model and the dataset."""
        spec.require_classification("task", self.task)
        for argument in ("label", "persistence", "returns"):
            if getattr(self, argument) is not None:
                spec.require_raw_label(argument, getattr(self, argument))

    def _generate(self) -> None:
        predictions = self.load_table("signal/predictions.parquet")
        labels = self.load_table("signal/labels.parquet")
        known = [("label", self.label), ("returns", self.returns)]
        known += [] if self.persistence is None else [("persistence", self.persistence)]
        for argument, column in known:
            require_column(argument, column, labels)
        require_column("forecast", self.forecast, predictions)
        guess, classes = self._predicted(predictions)
        columns = [guess, predictions[self.forecast] * self.unit, *(labels[column] for _, column in known)]
        days, _, planes = matrices(predictions.index, *columns)
        missing = np.isnan(planes).any(axis=0)
        if missing.all():
            raise UserError(
                f"no stock of any test day has a forecast, a class and a return: check `segments.test`, and the "
                f"columns {', '.join(column for _, column in known)} of the labels"
            )
        chosen, forecast, actual, returns, *last = (np.where(missing, np.nan, plane) for plane in planes)
        majority, mean = self._of_train()
        rules = {"model": chosen, "majority": np.where(missing, np.nan, majority)}
        if last:
            rules["persistence"] = last[0]
        forecasts = {
            "model": forecast,
            "zero": np.where(missing, np.nan, 0.0),
            "train_mean": np.where(missing, np.nan, mean),
        }

        counts = {name: _daily_confusion(actual, rule, classes) for name, rule in rules.items()}
        daily = pd.DataFrame({"n_stocks": (~missing).sum(axis=1)}, index=days)
        for name, of_day in counts.items():
            daily[f"accuracy/{name}"] = [pooled_accuracy(table) for table in of_day]
            daily[f"macro_f1/{name}"] = [macro_f1(table) for table in of_day]
        for name, rule in forecasts.items():
            daily[f"mae/{name}"] = mean_absolute_error(returns, rule)
            daily[f"rmse/{name}"] = root_mean_square_error(returns, rule)

        parts = {WHOLE: np.ones(len(days), dtype=bool)}
        parts |= {name: (days >= first) & (days <= last) for name, (first, last) in self.periods.items()}
        empty = [name for name, inside in parts.items() if not daily["n_stocks"][inside].sum()]
        for name in empty:
            logger.warning("the period `%s` has no test day with rows, so it has no figures", name)
        summaries, differences = [], []
        for name, inside in parts.items():
            some = {rule: table[inside] for rule, table in counts.items()}
            summary = _summary(daily[inside], some)
            summaries.append(summary.assign(period=name))
            differences.append(self._differences(daily[inside], some, summary).assign(period=name))
        summary = pd.concat(summaries).reset_index().set_index(["period", "rule"])
        difference = pd.concat(differences).set_index(["period", "metric", "over", "rule"])
        self.save_table("direction/daily.parquet", daily)
        self.save_csv("direction/summary.csv", summary)
        self.save_csv("direction/differences.csv", difference)
        self.save_csv(
            "direction/confusion.csv",
            pd.DataFrame(
                counts["model"].sum(axis=0),
                index=pd.RangeIndex(classes, name="actual"),
                columns=[f"predicted_{k}" for k in range(classes)],
            ),
        )
        accuracy = summary.loc[(WHOLE, "model"), "accuracy"]
        self.save_json(
            "direction/setup.json",
            {
                "task": self.task,
                "label": self.label,
                "returns": self.returns,
                "forecast": self.forecast,
                "unit": self.unit,
                "majority_class": majority,
                "train_mean_return": mean,
                "returns_of_zero": int((returns == 0).sum()),
                "rows": int((~missing).sum()),
                "periods": {name: [f"{day:%Y-%m-%d}" for day in days] for name, days in self.periods.items()},
                "periods_without_rows": empty,
                "level": self.level,
                "draws": self.draws,
                "implausible_above": IMPLAUSIBLE,
                "implausible": bool(accuracy > IMPLAUSIBLE),
            },
        )
        if accuracy > IMPLAUSIBLE:
            logger.warning(
                "accuracy of direction is %.1f%%: above %.0f%% a leak of the future is likelier than skill",
                100 * accuracy,
                100 * IMPLAUSIBLE,
            )
        of_majority = difference.loc[(WHOLE, "accuracy", "pooled", "majority")]
        self.log_metrics(
            {
                "direction/accuracy": accuracy,
                "direction/macro_f1": summary.loc[(WHOLE, "model"), "macro_f1"],
                "direction/majority_accuracy": summary.loc[(WHOLE, "majority"), "accuracy"],
                "direction/accuracy_advantage": of_majority["advantage"],
                "direction/accuracy_advantage_low": of_majority["low"],
                "return/mae": summary.loc[(WHOLE, "model"), "mae"],
                "return/rmse": summary.loc[(WHOLE, "model"), "rmse"],
                "return/zero_mae": summary.loc[(WHOLE, "zero"), "mae"],
                "return/zero_rmse": summary.loc[(WHOLE, "zero"), "rmse"],
            }
        )

    def _of_train(self) -> tuple[float, float]:
        """The most common class and the mean return of the training rows."""
        table = self.dataset.prepare("train", col_set="label", data_key=DataHandlerLP.DK_R)
        for argument, column in (("label", self.label), ("returns", self.returns)):
            require_column(argument, column, table)
        classes = table[self.label].dropna()
        if classes.empty:
            raise UserError(f"the segment `train` must have rows with `{self.label}`, found none")
        return float(classes.mode().iloc[0]), float(table[self.returns].astype("float64").mean())

    def _predicted(self, predictions: pd.DataFrame) -> tuple[pd.Series, int]:
        """The most probable class of each row, NaN without probabilities; and the number of classes C."""
        columns: list[str] = []
        while f"{self.task}_{len(columns)}" in predictions:
            columns.append(f"{self.task}_{len(columns)}")
        if len(columns) < 2:
            raise UserError(
                f"`task` must name a classification task of the model: expected the columns {self.task}_0, "
                f"{self.task}_1, ... among the predictions, found {[*predictions.columns]}"
            )
        probabilities = predictions[columns].to_numpy()
        best = probabilities.argmax(axis=1).astype(float)
        best[np.isnan(probabilities).any(axis=1)] = np.nan
        return pd.Series(best, index=predictions.index), len(columns)

    def _differences(
        self, daily: pd.DataFrame, counts: Mapping[str, np.ndarray], summary: pd.DataFrame
    ) -> pd.DataFrame:
        """Each metric of the model beside each rule, with the interval of its advantage."""
        pairs = [
            (metric, rule)
            for metric, rules in METRICS.items()
            for rule in rules
            if rule != "model" and rule in summary.index
        ]
        number = daily["n_stocks"].to_numpy(dtype=float)
        signs = np.array([-1.0 if metric in ERRORS else 1.0 for metric, _ in pairs])
        by_day = {
            f"{metric}/{rule}": daily[f"{metric}/{rule}"].to_numpy(dtype=float)
            for metric, rules in METRICS.items()
            for rule in rules
            if rule in summary.index
        }
        present = number > 0
        # Days are drawn, and of the drawn ones everything is taken together again: sums are enough for that.
        days = np.arange(int(present.sum()), dtype=float)
        weights = number[present]
        tables = {rule: of_day[present] for rule, of_day in counts.items()}
        series = {name: values[present] for name, values in by_day.items()}

        def figures(drawn: Floats) -> list[float]:
            chosen = drawn.astype(int)
            weight = weights[chosen]
            confusion = {rule: of_day[chosen].sum(axis=0) for rule, of_day in tables.items()}

            def pooled(metric: str, rule: str) -> float:
                if metric == "accuracy":
                    return pooled_accuracy(confusion[rule])
                if metric == "macro_f1":
                    return macro_f1(confusion[rule])
                values = series[f"{metric}/{rule}"][chosen]
                if metric == "mae":
                    return float((values * weight).sum() / weight.sum())
                return math.sqrt(float((values**2 * weight).sum() / weight.sum()))

            together = [pooled(metric, "model") - pooled(metric, rule) for metric, rule in pairs]
            apart = [
                float(series[f"{metric}/model"][chosen].mean() - series[f"{metric}/{rule}"][chosen].mean())
                for metric, rule in pairs
            ]
            return [*(signs * together), *(signs * apart)]

        nothing = np.full(2 * len(pairs), np.nan)
        advantage, (low, high) = nothing, (nothing, nothing)
        if len(days):
            advantage = np.array(figures(days))
            low, high = bootstrap_intervals(figures, days, level=self.level, draws=self.draws, seed=self.seed)
        rows = []
        for k, (over, suffix) in enumerate((("pooled", ""), ("by_day", "_by_day"))):
            for i, (metric, rule) in enumerate(pairs):
                at = k * len(pairs) + i
                rows.append(
                    {
                        "metric": metric,
                        "over": over,
                        "rule": rule,
                        "model": summary.loc["model", metric + suffix],
                        "baseline": summary.loc[rule, metric + suffix],
                        "advantage": advantage[at],
                        "low": low[at],
                        "high": high[at],
                    }
                )
        return pd.DataFrame(rows)


def _period(name: str, days: Sequence[Any]) -> tuple[pd.Timestamp, pd.Timestamp]:
    if name == WHOLE:
        raise UserError(f"`periods` must not name `{WHOLE}`, which is always there")
    if not isinstance(days, (list, tuple)) or len(days) != 2:
        raise UserError(f"`periods[{name!r}]` must be a first and a last day, found {days!r}")
    first, last = (as_day(f"periods[{name!r}]", day) for day in days)
    if first > last:
        raise UserError(f"`periods[{name!r}]` must be a first day and one not before it, found {days!r}")
    return first, last


def _daily_confusion(actual: Floats, predicted: Floats, classes: int) -> np.ndarray:
    """Confusion matrices of the days, `[D, C, C]`."""
    return np.stack([confusion_matrix(a, p, classes) for a, p in zip(actual, predicted, strict=True)])


def _summary(daily: pd.DataFrame, counts: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Pooled figures and means of daily ones, a row a rule; NaN where a rule says nothing of a metric."""
    number = daily["n_stocks"]
    rows = float(number.sum())
    table: dict[str, dict[str, float]] = {}
    for rule, of_day in counts.items():
        together = of_day.sum(axis=0)
        table[rule] = {"accuracy": pooled_accuracy(together), "macro_f1": macro_f1(together)}
    for rule in RETURN_RULES:
        mae, rmse = daily[f"mae/{rule}"], daily[f"rmse/{rule}"]
        table.setdefault(rule, {})
        table[rule]["mae"] = float((mae * number).sum() / rows) if rows else math.nan
        table[rule]["rmse"] = math.sqrt(float((rmse**2 * number).sum() / rows)) if rows else math.nan
    for rule, figures in table.items():
        figures |= {f"{metric}_by_day": daily[f"{metric}/{rule}"].mean() for metric in [*figures]}
        figures |= {"days": float((number > 0).sum()), "rows": rows}
    every = [*METRICS, *(f"{metric}_by_day" for metric in METRICS), "days", "rows"]
    return pd.DataFrame(table).T.reindex(columns=every).rename_axis(index="rule")
