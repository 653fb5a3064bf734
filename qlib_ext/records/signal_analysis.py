"""What the scores are worth as a signal: how long, for whom, how evenly and how steadily."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from qlib.config import C

from qlib_ext.checks import UserError, brief, integer, words
from qlib_ext.data.spec import DatasetSpec
from qlib_ext.features.side_data.industries import Industries, industries
from qlib_ext.market.store import QlibStore
from qlib_ext.metrics.bootstrap import overlapping_block
from qlib_ext.metrics.cross_section import Floats, icir, newey_west_t, pearson, spearman
from qlib_ext.metrics.decay import lagged_correlation
from qlib_ext.metrics.moments import moments, normal_quantiles, positive_share
from qlib_ext.metrics.ndcg import ndcg_at, ndcg_by_chance
from qlib_ext.metrics.precision import base_rate, lift, precision_at
from qlib_ext.metrics.quantiles import group_means, monotonicity, quantile_groups, spread
from qlib_ext.metrics.significance import Interval, bootstrap_mean
from qlib_ext.metrics.stability import group_turnover, rank_autocorrelation, top_turnover
from qlib_ext.records.base import Record
from qlib_ext.records.columns import label_spans, matrices, require_column

FOLDER = "signal_analysis"
TURNOVER_LAGS = (1, 5, 20)
RELEVANCE_CLASSES = 5  # NDCG asks for grades: the fifth of the day that a stock's return is in


class SignalAnalysisRecord(Record):
    """The score against raw return labels, from every side that an analyst asks about.

    All tables are of the test segment's trading days, each day's stocks being those with a score, and each figure of a
    function in `qlib_ext.metrics` (docs/metrics.md has the rules). Intervals are of 95%, by the stationary bootstrap
    over days, in longer blocks where the returns of a label overlap.

    Writes under `signal_analysis/`:

    `daily.parquet`
        By day: `quantile/<label>/<q>` (mean return of group q, 1 the lowest scores), `all/<label>` (of all grouped
        stocks), `spread/<label>`, `autocorrelation/<lag>`, `turnover/top<N>`, `turnover/quantile<q>` (against the day
        before), `ndcg/<k>` and `ndcg_by_chance/<k>`.
    `monthly.csv`, `yearly.csv`
        By period and label: IC, ICIR, RankIC, RankICIR, hit rate of RankIC, days.
    `distribution.csv`
        By measure (IC, RankIC) and label: mean with interval, deviation, skewness, excess kurtosis, hit rate, ratio,
        t, and quantiles of the daily values.
    `normality.parquet`
        By measure and label: each day's value, `found` in standard deviations from the mean, and where it would lie if
        the values were normal, `expected`.
    `decay.csv`
        By label and lag: IC and RankIC of the score with the label that many trading days later, with intervals.
    `quantiles.csv`
        By label and group: mean return a day with its interval, the same beyond all stocks, stocks a day, turnover.
    `autocorrelation.csv`, `turnover.csv`
        By lag, the mean rank autocorrelation; by list (top N, groups), the mean turnover over 1, 5 and 20 days.
    `precision.csv`, `ndcg.csv`
        By N, Precision@N of the first label with its interval, beside the base rate; by k, NDCG@k beside chance. The
        relevance of a stock is the fifth of the day that its return is in, 0 to 4.
    `industry.csv`
        By label and industry: IC and RankIC among its stocks alone. Only where the store has industries.
    `summary.json`
        Settings, spread and monotonicity by label, and under `industry` whether there are any, or why not.

    Logs `signal/hit_rate`, `signal/spread`, `signal/monotonicity`, `signal/autocorrelation` (one day),
    `signal/turnover/top<N>`, `signal/lift/<N>` and `ndcg/<k>`, all of the first label.

    Parameters
    ----------
    recorder
        Given by Qlib.
    labels
        Label columns; the first is the one that Precision@N, NDCG@k and the logged figures go by.
    quantiles
        Groups of equal size, at least 2.
    max_lag_days
        Longest lag of the decay in trading days; all from 0 on are computed.
    autocorrelation_days
        Lags of the rank autocorrelation in trading days, each at least 1.
    top
        Lengths N of lists of the highest scores, also the k of NDCG@k, each at least 1.
    min_stocks
        An industry's IC of a day needs at least as many of its stocks with a score and a return.

    Raises
    ------
    UserError
        If an argument is out of its range or a label is not among the run's, or the store that Qlib reads lacks days
        that the predictions have.
    """

    needs = ("signal/predictions.parquet", "signal/labels.parquet")
    makes = tuple(
        f"{FOLDER}/{name}"
        for name in (
            "daily.parquet",
            "monthly.csv",
            "yearly.csv",
            "distribution.csv",
            "normality.parquet",
            "decay.csv",
            "quantiles.csv",
            "autocorrelation.csv",
            "turnover.csv",
            "precision.csv",
            "ndcg.csv",
            "summary.json",
        )
    )
    may_make = (f"{FOLDER}/industry.csv",)

    def __init__(
        self,
        recorder: Any,
        labels: Sequence[str] = ("RETURN", "NEXT_RETURN"),
        quantiles: int = 5,
        max_lag_days: int = 20,
        autocorrelation_days: Sequence[int] = (1, 2, 3, 4, 5, 10, 15, 20),
        top: Sequence[int] = (10, 20, 30, 50),
        min_stocks: int = 5,
    ):
        super().__init__(recorder)
        self.labels = [*words("labels", labels)]
        if not self.labels:
            raise UserError(f"`labels` must be a list of at least one label column, found {brief(labels)}")
        for name, given in (("autocorrelation_days", autocorrelation_days), ("top", top)):
            if not isinstance(given, (list, tuple)):
                raise UserError(f"`{name}` must be a list of numbers, found {brief(given)}")
        self.quantiles = integer("quantiles", quantiles, 2)
        self.max_lag_days = integer("max_lag_days", max_lag_days, 0)
        self.autocorrelation_days = [integer("autocorrelation_days", x, 1) for x in autocorrelation_days]
        self.top = [integer("top", n, 1) for n in top]
        if not self.top or not self.autocorrelation_days:
            raise UserError("`top` and `autocorrelation_days` must each name at least one number, found none")
        self.min_stocks = integer("min_stocks", min_stocks, 2)

    def check_before(self, spec: DatasetSpec) -> None:
        """The labels, against those of the dataset."""
        for label in self.labels:
            spec.require_raw_label("labels", label)

    def _generate(self) -> None:
        predictions = self.load_table("signal/predictions.parquet")
        labels = self.load_table("signal/labels.parquet")
        for label in self.labels:
            require_column("labels", label, labels)
        self._analyse(QlibStore(C.dpm.get_data_uri("day")), predictions, labels)

    def _analyse(self, store: QlibStore, predictions: pd.DataFrame, labels: pd.DataFrame) -> None:
        days, instruments, (score, *returns) = _on_trading_days(
            store.calendar, predictions["score"], *(labels[label] for label in self.labels)
        )
        by_label = dict(zip(self.labels, returns, strict=True))
        self._spans = label_spans(self, self.labels)
        first = returns[0]
        daily = pd.DataFrame(index=days)

        self.save_csv(f"{FOLDER}/decay.csv", self._decay(score, by_label))
        self._periods(days, score, by_label)

        group = quantile_groups(score, self.quantiles)
        grouped = self._quantiles(daily, group, by_label)
        self.save_csv(f"{FOLDER}/quantiles.csv", grouped)
        autocorrelation = self._autocorrelation(daily, score)
        turnover = self._turnover(daily, score, group)
        precision = self._precision(score, first)
        ndcg = self._ndcg(daily, score, first)
        self.save_table(f"{FOLDER}/daily.parquet", daily)

        found, reason = industries(store, days, instruments)
        names: list[str] = []
        if found is not None:
            by_industry = self._industries(found, score, by_label)
            names = [*by_industry.index.unique()]
            if names:
                self.save_csv(f"{FOLDER}/industry.csv", by_industry)
            else:
                reason = f"no industry has {self.min_stocks} stocks with a score and a return on any day"
        spreads = {label: self._spread(daily, grouped, label) for label in self.labels}
        self.save_json(
            f"{FOLDER}/summary.json",
            {
                "labels": self.labels,
                "quantiles": self.quantiles,
                "max_lag_days": self.max_lag_days,
                "top": self.top,
                "start": f"{days[0]:%Y-%m-%d}",
                "end": f"{days[-1]:%Y-%m-%d}",
                "days": len(days),
                "spread": spreads,
                "relevance_classes": RELEVANCE_CLASSES,
                "industry": {
                    "available": bool(names),
                    "reason": reason,
                    "min_stocks": self.min_stocks,
                    "left_out": [] if found is None else [name for name in found.names if name not in names],
                },
            },
        )
        headline = spreads[self.labels[0]]
        self.log_metrics(
            {
                "signal/hit_rate": positive_share(spearman(score, first)),
                "signal/spread": headline["mean"],
                "signal/monotonicity": headline["monotonicity"],
                "signal/autocorrelation": autocorrelation["autocorrelation"].iloc[0],
                **{f"signal/turnover/top{n}": turnover.loc[f"top {n}", "days_1"] for n in self.top},
                **{f"signal/lift/{n}": precision.loc[n, "lift"] for n in self.top},
                **{f"ndcg/{k}": ndcg.loc[k, "ndcg"] for k in self.top},
            }
        )

    def _decay(self, score: Floats, by_label: Mapping[str, Floats]) -> pd.DataFrame:
        lags = range(self.max_lag_days + 1)
        rows = []
        for label, ret in by_label.items():
            ic = lagged_correlation(score, ret, lags)
            rank_ic = lagged_correlation(score, ret, lags, ranks=True)
            for lag in lags:
                row = {"lag": lag, "label": label}
                span = self._spans[label]
                row |= _mean("IC", ic[lag], span) | _mean("RankIC", rank_ic[lag], span)
                rows.append(row | {"days": int(np.isfinite(ic[lag]).sum())})
        return pd.DataFrame(rows).set_index("lag")

    def _periods(self, days: pd.DatetimeIndex, score: Floats, by_label: Mapping[str, Floats]) -> None:
        daily = {}
        for label, ret in by_label.items():
            daily["IC", label], daily["RankIC", label] = pearson(score, ret), spearman(score, ret)
        for name, frequency in (("monthly", "M"), ("yearly", "Y")):
            rows = []
            for period, places in pd.Series(range(len(days))).groupby(days.to_period(frequency).to_numpy()):
                rows += [
                    {"period": str(period), "label": label}
                    | _ratios(daily["IC", label][places], daily["RankIC", label][places])
                    for label in by_label
                ]
            self.save_csv(f"{FOLDER}/{name}.csv", pd.DataFrame(rows).set_index("period"))
        shapes = [
            {"measure": name, "label": label} | _distribution(values, self._spans[label])
            for (name, label), values in daily.items()
        ]
        self.save_csv(f"{FOLDER}/distribution.csv", pd.DataFrame(shapes).set_index("measure"))
        places = [
            _normality(days, values).assign(measure=name, label=label)
            for (name, label), values in daily.items()
        ]
        self.save_table(f"{FOLDER}/normality.parquet", pd.concat(places).set_index("measure"))

    def _quantiles(self, daily: pd.DataFrame, group: Floats, by_label: Mapping[str, Floats]) -> pd.DataFrame:
        """Returns of the groups into `daily`, and their means by group and label."""
        moved = group_turnover(group, self.quantiles)
        numbers = range(1, self.quantiles + 1)
        for k, q in enumerate(numbers):
            daily[f"turnover/quantile{q}"] = moved[:, k]
        rows = []
        for label, ret in by_label.items():
            means = group_means(group, ret, self.quantiles)
            every = group_means(np.where(np.isnan(group), np.nan, 0.0), ret, 1)[:, 0]
            daily[f"all/{label}"] = every
            daily[f"spread/{label}"] = spread(means)
            for k, q in enumerate(numbers):
                daily[f"quantile/{label}/{q}"] = means[:, k]
                count = ((group == k) & ~np.isnan(ret)).sum(axis=1)
                rows.append(
                    {"quantile": q, "label": label}
                    | _mean("return", means[:, k], self._spans[label])
                    | _mean("excess", means[:, k] - every, self._spans[label])
                    | {
                        "stocks": float(count[count > 0].mean()) if count.any() else np.nan,
                        "turnover": _average(moved[:, k]),
                        "days": int(np.isfinite(means[:, k]).sum()),
                    }
                )
        return pd.DataFrame(rows).set_index("quantile")

    def _spread(self, daily: pd.DataFrame, grouped: pd.DataFrame, label: str) -> dict[str, float]:
        values = daily[f"spread/{label}"].to_numpy()
        low, high = _interval(values, self._spans[label])
        return {
            "mean": _average(values),
            "low": low,
            "high": high,
            "t": newey_west_t(values, span_days=self._spans[label]),
            "hit_rate": positive_share(values),
            "monotonicity": monotonicity(grouped.loc[grouped["label"] == label, "return"].to_numpy()),
        }

    def _autocorrelation(self, daily: pd.DataFrame, score: Floats) -> pd.DataFrame:
        rows = []
        for lag in self.autocorrelation_days:
            daily[f"autocorrelation/{lag}"] = values = rank_autocorrelation(score, lag)
            rows.append(
                {"lag": lag} | _mean("autocorrelation", values) | {"days": int(np.isfinite(values).sum())}
            )
        table = pd.DataFrame(rows).set_index("lag")
        self.save_csv(f"{FOLDER}/autocorrelation.csv", table)
        return table

    def _turnover(self, daily: pd.DataFrame, score: Floats, group: Floats) -> pd.DataFrame:
        rows = []
        for n in self.top:
            daily[f"turnover/top{n}"] = top_turnover(score, n)
            means = {f"days_{lag}": _average(top_turnover(score, n, lag)) for lag in TURNOVER_LAGS}
            rows.append({"list": f"top {n}"} | means)
        moved = {lag: group_turnover(group, self.quantiles, lag) for lag in TURNOVER_LAGS}
        for k in range(self.quantiles):
            means = {f"days_{lag}": _average(values[:, k]) for lag, values in moved.items()}
            rows.append({"list": f"quantile {k + 1}"} | means)
        table = pd.DataFrame(rows).set_index("list")
        self.save_csv(f"{FOLDER}/turnover.csv", table)
        return table

    def _precision(self, score: Floats, ret: Floats) -> pd.DataFrame:
        base = base_rate(np.where(np.isnan(score), np.nan, ret))
        span, rows = self._spans[self.labels[0]], []
        for n in self.top:
            share = precision_at(score, ret, n)
            known = np.isfinite(share)
            rows.append(
                {"n": n}
                | _mean("precision", share, span)
                | _mean("base_rate", base, span)
                | _mean("difference", share - base, span)
                | {
                    "lift": lift(share, base),
                    "days_above": float((share > base)[known].mean()) if known.any() else np.nan,
                    "days": int(known.sum()),
                }
            )
        table = pd.DataFrame(rows).set_index("n")
        self.save_csv(f"{FOLDER}/precision.csv", table)
        return table

    def _ndcg(self, daily: pd.DataFrame, score: Floats, ret: Floats) -> pd.DataFrame:
        relevance = quantile_groups(np.where(np.isnan(score), np.nan, ret), RELEVANCE_CLASSES)
        rows = []
        for k in self.top:
            daily[f"ndcg/{k}"] = found = ndcg_at(score, relevance, k)
            daily[f"ndcg_by_chance/{k}"] = chance = ndcg_by_chance(relevance, k)
            rows.append(
                {"k": k, "ndcg": _average(found), "by_chance": _average(chance)}
                | _mean("difference", found - chance, self._spans[self.labels[0]])
                | {"days": int(np.isfinite(found).sum())}
            )
        table = pd.DataFrame(rows).set_index("k")
        self.save_csv(f"{FOLDER}/ndcg.csv", table)
        return table

    def _industries(self, found: Industries, score: Floats, by_label: Mapping[str, Floats]) -> pd.DataFrame:
        """IC within each industry, on the days on which enough of its stocks have both values."""
        rows = []
        for number, name in enumerate(found.names):
            columns = (found.code == number).any(axis=0)
            inside = found.code[:, columns] == number
            for label, ret in by_label.items():
                s = np.where(inside, score[:, columns], np.nan)
                r = ret[:, columns]
                count = (~np.isnan(s) & ~np.isnan(r)).sum(axis=1)
                enough = count >= self.min_stocks
                if not enough.any():
                    continue
                ic = np.where(enough, pearson(s, r), np.nan)
                rank_ic = np.where(enough, spearman(s, r), np.nan)
                rows.append(
                    {"industry": name, "label": label}
                    | _mean("IC", ic, self._spans[label])
                    | _mean("RankIC", rank_ic, self._spans[label])
                    | {
                        "RankICIR": icir(rank_ic),
                        "stocks": float(count[enough].mean()),
                        "days": int(np.isfinite(rank_ic).sum()),
                    }
                )
        columns_of = ["industry", "label", "IC", "IC_low", "IC_high", "RankIC", "RankIC_low", "RankIC_high"]
        return pd.DataFrame(rows, columns=[*columns_of, "RankICIR", "stocks", "days"]).set_index("industry")


def _on_trading_days(
    calendar: pd.DatetimeIndex, *columns: pd.Series
) -> tuple[pd.DatetimeIndex, list[str], list[Floats]]:
    """Columns as matrices over every trading day from the first to the last, so that rows apart are days apart."""
    known, instruments, found = matrices(columns[0].index, *columns)
    foreign = known.difference(calendar)
    if len(foreign):
        raise UserError(
            f"the predictions have days that the store lacks, the first is {foreign[0]:%Y-%m-%d}: the run and Qlib's "
            "`provider_uri` must be of one store"
        )
    days = calendar[(calendar >= known[0]) & (calendar <= known[-1])]
    rows = days.get_indexer(known)
    spread_out = []
    for values in found:
        matrix = np.full((len(days), len(instruments)), np.nan)
        matrix[rows] = values
        spread_out.append(matrix)
    return pd.DatetimeIndex(days, name="datetime"), [str(code) for code in instruments], spread_out


def _average(daily: Floats) -> float:
    values = daily[np.isfinite(daily)]
    return float(values.mean()) if len(values) else float("nan")


def _mean(name: str, daily: Floats, span_days: int = 1) -> dict[str, float]:
    """The mean of a daily series with its interval, as three columns."""
    low, high = _interval(daily, span_days)
    return {name: _average(daily), f"{name}_low": low, f"{name}_high": high}


def _interval(daily: Floats, span_days: int) -> Interval:
    """Of the mean of a series whose values look at `span_days` days of return."""
    days = int((~np.isnan(daily)).sum())
    return bootstrap_mean(daily, block_days=overlapping_block(days, span_days))


def _ratios(ic: Floats, rank_ic: Floats) -> dict[str, float]:
    return {
        "IC": _average(ic),
        "ICIR": icir(ic),
        "RankIC": _average(rank_ic),
        "RankICIR": icir(rank_ic),
        "hit_rate": positive_share(rank_ic),
        "days": int(np.isfinite(ic).sum()),
    }


def _normality(days: pd.DatetimeIndex, daily: Floats) -> pd.DataFrame:
    """A row for each day of more than two, from the lowest value to the highest; none where they have no spread."""
    values = pd.Series(daily, days).dropna().sort_values()
    if len(values) < 3 or values.std() == 0:
        values = values[:0]
    found = ((values - values.mean()) / values.std()).to_numpy()
    return pd.DataFrame({"day": values.index, "expected": normal_quantiles(len(values)), "found": found})


def _distribution(daily: Floats, span_days: int) -> dict[str, float]:
    values = daily[np.isfinite(daily)]
    shape = moments(values)
    at = {"lowest": 0, "q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95, "highest": 1}
    quantiles = {name: float(np.quantile(values, q)) if len(values) else np.nan for name, q in at.items()}
    low, high = _interval(values, span_days)
    return {
        "mean": shape.mean,
        "low": low,
        "high": high,
        "std": shape.std,
        "skewness": shape.skewness,
        "kurtosis": shape.kurtosis,
        "hit_rate": positive_share(values),
        "ratio": icir(values),
        "t": newey_west_t(values, span_days=span_days),
        **quantiles,
        "days": len(values),
    }
