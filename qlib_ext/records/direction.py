"""How well direction and size of the next return are told, beside rules that need no model."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from qlib.data.dataset.handler import DataHandlerLP

from qlib_ext.checks import LARGEST_SEED, UserError, above, between, brief, instance, integer
from qlib_ext.data.days import as_day
from qlib_ext.data.spec import DatasetSpec
from qlib_ext.metrics.bootstrap import bootstrap_intervals, overlapping_block
from qlib_ext.metrics.classification import confusion_matrix, macro_f1, pooled_accuracy
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.metrics.regression import mean_absolute_error, root_mean_square_error
from qlib_ext.records.base import Record
from qlib_ext.records.columns import label_spans, matrices, probability_columns, require_column

logger = logging.getLogger(__name__)

WHOLE = "all test days"
IMPLAUSIBLE = 0.60  # of next-day direction, pooled: published results that hold up lie well below
CLASS_RULES, RETURN_RULES = ("model", "majority", "persistence"), ("model", "zero", "train_mean")
METRICS = {"accuracy": CLASS_RULES, "macro_f1": CLASS_RULES, "mae": RETURN_RULES, "rmse": RETURN_RULES}
ERRORS = ("mae", "rmse")  # lower is better
OVER = ("pooled", "by_day")


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
    whole days, since stocks of a day move together and are no independent trials, in longer blocks where returns overlap.

    Writes `direction/daily.parquet`, by day: `n_stocks` and, for each rule, `accuracy/<rule>`, `macro_f1/<rule>`,
    `mae/<rule>`, `rmse/<rule>`; `direction/summary.csv` (a row for each period and rule), `direction/differences.csv`
    (period, metric, over, rule, model, baseline, advantage, low, high) and `direction/setup.json`. Logs `direction/accuracy`, `direction/macro_f1`,
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
                f"`periods` must be a mapping from names to a first and a last day, found {brief(periods)}"
            )
        self.periods = {str(name): _period(str(name), days) for name, days in (periods or {}).items()}
        self.level = between("level", level, 0, 1, open_low=True, open_high=True)
        self.draws = integer("draws", draws, 1)
        self.seed = integer("seed", seed, 0, LARGEST_SEED)

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
        rules |= {"persistence": last[0]} if last else {}
        constant = {"zero": 0.0, "train_mean": mean}
        forecasts = {"model": forecast} | {
            name: np.where(missing, np.nan, value) for name, value in constant.items()
        }
        counts = {name: _daily_confusion(actual, rule, classes) for name, rule in rules.items()}
        daily = pd.DataFrame({"n_stocks": (~missing).sum(axis=1)}, index=days)
        for name, of_day in counts.items():
            daily[f"accuracy/{name}"] = [pooled_accuracy(table) for table in of_day]
            daily[f"macro_f1/{name}"] = [macro_f1(table) for table in of_day]
        for name, rule in forecasts.items():
            daily[f"mae/{name}"] = mean_absolute_error(returns, rule)
            daily[f"rmse/{name}"] = root_mean_square_error(returns, rule)
        summary, difference, empty = self._by_period(daily, counts)
        accuracy = summary.loc[(WHOLE, "model"), "accuracy"]
        self.save_table("direction/daily.parquet", daily)
        self.save_csv("direction/summary.csv", summary)
        self.save_csv("direction/differences.csv", difference)
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
        self.log_metrics(
            _headline(summary.loc[WHOLE], difference.loc[(WHOLE, "accuracy", "pooled", "majority")])
        )

    def _by_period(
        self, daily: pd.DataFrame, counts: Mapping[str, np.ndarray]
    ) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
        """Figures of the whole and of each period, those of the model less each rule's, and periods without rows."""
        parts = {WHOLE: np.ones(len(daily), dtype=bool)}
        parts |= {
            name: (daily.index >= first) & (daily.index <= last)
            for name, (first, last) in self.periods.items()
        }
        summaries, differences, empty = [], [], []
        for name, inside in parts.items():
            part = _Part(daily[inside], {rule: of_day[inside] for rule, of_day in counts.items()})
            if not len(part.stocks):
                empty.append(name)
                logger.warning("the period `%s` has no test day with rows, so it has no figures", name)
            summaries.append(part.summary().assign(period=name))
            differences.append(self._differences(part).assign(period=name))
        summary = pd.concat(summaries).reset_index().set_index(["period", "rule"])
        return summary, pd.concat(differences).set_index(["period", "metric", "over", "rule"]), empty

    def _differences(self, part: _Part) -> pd.DataFrame:
        """Each metric of the model beside each rule, with the interval of its advantage."""
        whole = part.figures(np.arange(len(part.stocks)))
        rows = [key for over in OVER for key in whole if key[0] == over and key[2] != "model"]

        def advantages(drawn: Floats) -> list[float]:
            found = part.figures(drawn.astype(int))
            return [
                (-1.0 if metric in ERRORS else 1.0)
                * (found[over, metric, "model"] - found[over, metric, rule])
                for over, metric, rule in rows
            ]

        days = np.arange(
            len(part.stocks), dtype=float
        )  # days are drawn, and of those all is taken together again
        (span,) = label_spans(self, [self.returns]).values()
        low, high = bootstrap_intervals(
            advantages,
            days,
            level=self.level,
            block_days=overlapping_block(len(days), span),
            draws=self.draws,
            seed=self.seed,
        )
        table = pd.DataFrame(rows, columns=["over", "metric", "rule"])
        return table.assign(
            model=[whole[over, metric, "model"] for over, metric, _ in rows],
            baseline=[whole[row] for row in rows],
            advantage=advantages(days),
            low=low,
            high=high,
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
        columns = probability_columns(self.task, predictions)
        probabilities = predictions[columns].to_numpy()
        best = probabilities.argmax(axis=1).astype(float)
        best[np.isnan(probabilities).any(axis=1)] = np.nan
        return pd.Series(best, index=predictions.index), len(columns)


class _Part:
    """The days of a period that have rows, as far as figures need them.

    Parameters
    ----------
    daily
        By day: `n_stocks`, and each metric of each rule.
    counts
        Rule -> confusion matrices of the days, `[D, C, C]`.
    """

    def __init__(self, daily: pd.DataFrame, counts: Mapping[str, np.ndarray]):
        present = daily["n_stocks"].to_numpy() > 0
        self.stocks = daily["n_stocks"].to_numpy(dtype=float)[present]
        self.counts = {rule: of_day[present] for rule, of_day in counts.items()}
        self.daily = {
            (metric, rule): daily[f"{metric}/{rule}"].to_numpy(dtype=float)[present]
            for metric, rules in METRICS.items()
            for rule in rules
            if f"{metric}/{rule}" in daily
        }

    def figures(self, days: npt.NDArray[np.int64]) -> dict[tuple[str, str, str], float]:
        """(over, metric, rule) -> figure of the days at these places, each as often as it is named."""
        if not len(days):
            return {(over, *key): math.nan for over in OVER for key in self.daily}
        stocks = self.stocks[days]
        together = {rule: of_day[days].sum(axis=0) for rule, of_day in self.counts.items()}
        found = {}
        for (metric, rule), by_day in self.daily.items():
            values = by_day[days]
            if metric == "accuracy":
                pooled = pooled_accuracy(together[rule])
            elif metric == "macro_f1":
                pooled = macro_f1(together[rule])
            elif metric == "mae":
                pooled = float((values * stocks).sum() / stocks.sum())
            else:
                pooled = math.sqrt(float((values**2 * stocks).sum() / stocks.sum()))
            found["pooled", metric, rule] = pooled
            found["by_day", metric, rule] = float(values.mean())
        return found

    def summary(self) -> pd.DataFrame:
        """Pooled figures and means of daily ones, a row a rule; NaN where a rule says nothing of a metric."""
        table: dict[str, dict[str, float]] = {}
        for (over, metric, rule), value in self.figures(np.arange(len(self.stocks))).items():
            table.setdefault(rule, {})[metric if over == "pooled" else f"{metric}_by_day"] = value
        every = [*METRICS, *(f"{metric}_by_day" for metric in METRICS)]
        found = pd.DataFrame(table).T.reindex(columns=every).rename_axis(index="rule")
        return found.assign(days=float(len(self.stocks)), rows=float(self.stocks.sum()))


def _headline(summary: pd.DataFrame, over_majority: pd.Series) -> dict[str, float]:
    """What is logged, of all test days."""
    return {
        "direction/accuracy": summary.loc["model", "accuracy"],
        "direction/macro_f1": summary.loc["model", "macro_f1"],
        "direction/majority_accuracy": summary.loc["majority", "accuracy"],
        "direction/accuracy_advantage": over_majority["advantage"],
        "direction/accuracy_advantage_low": over_majority["low"],
        "return/mae": summary.loc["model", "mae"],
        "return/rmse": summary.loc["model", "rmse"],
        "return/zero_mae": summary.loc["zero", "mae"],
        "return/zero_rmse": summary.loc["zero", "rmse"],
    }


def _period(name: str, days: Sequence[Any]) -> tuple[pd.Timestamp, pd.Timestamp]:
    if name == WHOLE:
        raise UserError(f"`periods` must not name `{WHOLE}`, which is always there")
    if not isinstance(days, (list, tuple)) or len(days) != 2:
        raise UserError(f"`periods[{name!r}]` must be a first and a last day, found {brief(days)}")
    first, last = (as_day(f"periods[{name!r}]", day) for day in days)
    if first > last:
        raise UserError(f"`periods[{name!r}]` must be a first day and one not before it, found {brief(days)}")
    return first, last


def _daily_confusion(actual: Floats, predicted: Floats, classes: int) -> np.ndarray:
    """Confusion matrices of the days, `[D, C, C]`."""
    return np.stack([confusion_matrix(a, p, classes) for a, p in zip(actual, predicted, strict=True)])
