"""How well the scores rank the stocks of a day."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError, brief, integer, words
from qlib_ext.data.spec import DatasetSpec
from qlib_ext.metrics.cross_section import Floats, icir, newey_west_t, pearson, spearman
from qlib_ext.metrics.precision import base_rate, precision_at
from qlib_ext.records.base import Record
from qlib_ext.records.columns import label_spans, matrices, require_column
from qlib_ext.records.estimates import estimated

SUMMARY = ["IC", "ICIR", "RankIC", "RankICIR", "t", "days"]


class RankingRecord(Record):
    """IC, RankIC and Precision@N of the score against raw return labels, day by day and on average.

    Writes `ranking/daily.parquet`, by day: `ic/<label>`, `rank_ic/<label>`, `precision/<N>`, `base_rate` (share of
    all scored stocks that rose) and `n_stocks` (with a score and the first label); and `ranking/summary.csv`, by
    label: means over days, their ratios to the standard deviation, the IC's t and the days; and `ranking/estimates.parquet`, the figures
    against the first label and `precision/<N>/over_base`, each with its interval from a bootstrap of days. Logs IC, ICIR, RankIC, RankICIR, t and days
    against the first label under these names and against every other one as `<label>/IC`, ..., and
    `precision/<N>` and `base_rate` as means over days.

    Parameters
    ----------
    recorder
        Given by Qlib.
    labels
        Label columns; the first is the one that Precision@N and the headline go by.
    precision_at
        Numbers N of highest scored stocks, each at least 1.

    Raises
    ------
    UserError
        If an argument is out of its range or a label is not among the run's.

    Notes
    -----
    Labels of several days overlap: intervals draw blocks of at least twice their days, and t counts as many lags
    (`metrics.bootstrap.overlapping_block`).

    Departures
    ----------
    MiM-StocR's text ranks only the return for RankIC; here both sides are ranked (Spearman), as in the authors' code.
    The paper measures IC and Precision@N on the ranks of the day's returns, here they are of raw returns, as in Qlib's own
    tables: its IC exceeds its RankIC, which raw returns do not have, and its Precision@N has a base rate of one half.
    `python -m benchmarks.paper report` shows both.
    """

    needs = ("signal/predictions.parquet", "signal/labels.parquet")
    makes = ("ranking/daily.parquet", "ranking/summary.csv", "ranking/estimates.parquet")

    def __init__(
        self,
        recorder: Any,
        labels: Sequence[str] = ("RETURN", "NEXT_RETURN"),
        precision_at: Sequence[int] = (10, 20, 30, 50),
    ):
        super().__init__(recorder)
        self.labels = [*words("labels", labels)]
        if not self.labels:
            raise UserError(f"`labels` must be a list of at least one label column, found {brief(labels)}")
        if not isinstance(precision_at, (list, tuple)):
            raise UserError(
                f"`precision_at` must be a list of numbers of stocks, found {brief(precision_at)}"
            )
        self.precision_at = [integer("precision_at", n, 1) for n in precision_at]

    def check_before(self, spec: DatasetSpec) -> None:
        """The labels, against those of the dataset."""
        spec.require_segment("test", "RankingRecord")
        for label in self.labels:
            spec.require_raw_label("labels", label)

    def _generate(self) -> None:
        predictions = self.load_table("signal/predictions.parquet")
        labels = self.load_table("signal/labels.parquet")
        for label in self.labels:
            require_column("labels", label, labels)
        days, _, (score, *returns) = matrices(
            predictions.index, predictions["score"], *(labels[label] for label in self.labels)
        )
        columns = {}
        for label, values in zip(self.labels, returns, strict=True):
            columns[f"ic/{label}"] = pearson(score, values)
            columns[f"rank_ic/{label}"] = spearman(score, values)
        columns |= self._precision(score, returns[0])
        daily = pd.DataFrame(columns, index=days)

        spans = label_spans(self, self.labels)
        summary = pd.DataFrame({label: _summary(daily, label, spans[label]) for label in self.labels}).T
        metrics: dict[str, float] = {}
        for k, label in enumerate(self.labels):
            prefix = f"{label}/" if k else ""
            metrics |= {f"{prefix}{name}": summary.loc[label, name] for name in SUMMARY}
        for name in [*(f"precision/{n}" for n in self.precision_at), "base_rate"]:
            metrics[name] = daily[name].mean()
        self.save_table("ranking/daily.parquet", daily)
        self.save_csv("ranking/summary.csv", summary.rename_axis(index="label"))
        self.save_table(
            "ranking/estimates.parquet", estimates(daily, metrics, self.labels[0], spans[self.labels[0]])
        )
        self.log_metrics(metrics)

    def _precision(self, score: np.ndarray, returns: np.ndarray) -> dict[str, np.ndarray]:
        shares = {f"precision/{n}": precision_at(score, returns, n) for n in self.precision_at}
        there = ~np.isnan(score) & ~np.isnan(returns)
        shares["base_rate"] = base_rate(np.where(there, returns, np.nan))
        shares["n_stocks"] = there.sum(axis=1)
        return shares


def estimates(
    daily: pd.DataFrame, metrics: Mapping[str, float], label: str, span_days: int = 1
) -> pd.DataFrame:
    """The figures against a label with their intervals; days on which it has no correlation tell nothing.

    Parameters
    ----------
    daily
        Of the record, by day.
    metrics
        What it logs.
    label
        The first of its labels.
    span_days
        Days of return that it looks at.
    """
    tops = [
        f"precision/{n}" for n in sorted(int(name[10:]) for name in daily if name.startswith("precision/"))
    ]
    values = {name: metrics[name] for name in ("IC", "ICIR", "RankIC", "RankICIR", *tops)}
    values |= {f"{name}/over_base": metrics[name] - metrics["base_rate"] for name in tops}
    correlations = [f"ic/{label}", f"rank_ic/{label}"]
    table = daily.dropna(how="all", subset=correlations)

    def figures(ic: Floats, rank_ic: Floats, base: Floats, *shares: Floats) -> list[float]:
        means = [_mean(share) for share in shares]
        over = [mean - _mean(base) for mean in means]
        return [_mean(ic), icir(ic), _mean(rank_ic), icir(rank_ic), *means, *over]

    series = (table[name] for name in (*correlations, "base_rate", *tops))
    return estimated(values, figures, *series, span_days=span_days)


def _mean(values: Floats) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else math.nan


def _summary(daily: pd.DataFrame, label: str, span_days: int) -> dict[str, float]:
    ic, rank_ic = daily[f"ic/{label}"], daily[f"rank_ic/{label}"]
    return {
        "IC": ic.mean(),
        "ICIR": icir(ic),
        "RankIC": rank_ic.mean(),
        "RankICIR": icir(rank_ic),
        "t": newey_west_t(ic, span_days=span_days),
        "days": float(ic.notna().sum()),
    }
