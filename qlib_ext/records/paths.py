"""The paths of a combinatorial cross-validation: what the same method is worth on each, and how far that differs."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from qlib.strategy.base import BaseStrategy

from qlib_ext.backtest.simulation import make_exchange, simulate
from qlib_ext.checks import instance
from qlib_ext.config.build import build
from qlib_ext.data.spec import DatasetSpec
from qlib_ext.market.progress import Progress
from qlib_ext.metrics.cross_section import icir, pearson, spearman
from qlib_ext.metrics.overfitting import FEWEST_DAYS, backtest_overfitting
from qlib_ext.metrics.portfolio_series import series_of
from qlib_ext.metrics.risk import relative_wealth
from qlib_ext.metrics.risk import wealth as wealth_of
from qlib_ext.model.combinatorial import SPLITS, paths
from qlib_ext.records.backtest import measures, summarise
from qlib_ext.records.base import Record
from qlib_ext.records.columns import matrices, require_column
from qlib_ext.records.folds import of_training
from qlib_ext.terminal import shown_progress

logger = logging.getLogger(__name__)

COLUMNS = (
    "annualised_return",
    "annualised_excess_return",
    "sharpe_ratio",
    "information_ratio",
    "max_drawdown",
    "excess_max_drawdown",
    "turnover",
)


class PathsRecord(Record):
    """RankIC and backtest of each path of a combinatorial cross-validation, and what each split was worth.

    A path scores all days, each by a model that was trained without the folds around it. The first is the run's own; the others
    are traded as it was, with the same strategy, account, costs and limits. Where the run has no backtest before this record,
    paths have ICs alone. Writes:

    - `paths/paths.csv`: by `path`, `IC`, `RankIC`, their `ICIR` and `RankICIR`, and after cost those of `backtest/summary.csv`:
      returns, ratios, drawdowns, and mean `turnover` a day;
    - `paths/rank_ic.parquet`: by day and path; `paths/wealth.parquet`: the account after cost over the index, both 1 at the
      start, or the account alone where there is no index;
    - `paths/splits.csv`: by `split`, the `folds` that it scores, `run_id`, `trained`, `in_order` (whether its training comes
      before all that it scores), and what `FoldRecord` says of it;
    - `paths/overfitting.json`: what choosing the best of the paths by some days is worth on others
      (`metrics.overfitting.backtest_overfitting`), of `measure`: daily returns after cost, over the index where there is one, or
      RankICs; empty where there are too few days for it.

    Logs of the paths `paths/<figure>`, the mean, `paths/<figure>/sd` (divisor n - 1), and `paths/positive`, the share of them
    whose RankIC is above zero.

    Parameters
    ----------
    recorder
        Given by Qlib.
    label
        Raw label of the ICs, and of those by segment, unless the task has a `FoldRecord` of its own.

    Raises
    ------
    UserError
        If the run has no such label, or is no cross-validation.
    """

    needs = (SPLITS, "signal/predictions.parquet", "signal/labels.parquet")
    makes = ("paths/paths.csv", "paths/rank_ic.parquet", "paths/splits.csv", "paths/overfitting.json")
    may_make = ("paths/wealth.parquet",)
    of_model = True

    def __init__(self, recorder: Any, label: str = "RETURN"):
        super().__init__(recorder)
        self.label = instance("label", label, str)

    def check_before(self, spec: DatasetSpec) -> None:
        """The label, against those of the dataset."""
        spec.require_raw_label("label", self.label)

    def _generate(self) -> None:
        runs = self.load_json(SPLITS)
        scores = [each["score"] for each in paths(self.recorder.client, runs)]
        rows, rank_ic = self._judged(scores)
        measure, daily = "RankIC", rank_ic
        self.save_table("paths/rank_ic.parquet", rank_ic)
        if self.has("backtest/daily.parquet"):
            traded, daily, wealth = self._traded(scores)
            rows = rows.join(traded)
            self.save_table("paths/wealth.parquet", wealth)
            measure = "return over the index" if "annualised_excess_return" in rows else "return"
        self.save_csv("paths/paths.csv", rows)
        self.save_csv("paths/splits.csv", self._splits(runs))
        self.save_json("paths/overfitting.json", _overfitting(daily, measure))
        self.log_metrics(
            {f"paths/{name}": value for name, value in rows.mean().items()}
            | {f"paths/{name}/sd": value for name, value in rows.std(ddof=1).items()}
            | {"paths/positive": float((rows["RankIC"] > 0).mean())}
        )

    def _judged(self, scores: list[pd.Series]) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Of each path, how its scores agree with the label; and its RankIC by day."""
        labels = self.load_table("signal/labels.parquet")
        require_column("label", self.label, labels)
        rows, by_day = {}, {}
        for number, path in enumerate(scores, start=1):
            days, _, (score, truth) = matrices(path.index, path, labels[self.label])
            ic, rank_ic = pearson(score, truth), spearman(score, truth)
            by_day[str(number)] = pd.Series(rank_ic, index=days)
            rows[number] = {
                "IC": np.nanmean(ic),
                "ICIR": icir(ic),
                "RankIC": np.nanmean(rank_ic),
                "RankICIR": icir(rank_ic),
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis(index="path"), pd.DataFrame(by_day)

    def _traded(self, scores: list[pd.Series]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """Of each path what it earned, day by day what is compared (over the index, where there is one), and its wealth."""
        with shown_progress() as progress:
            every = self._trade(scores, progress)
        setup = self.load_json("backtest/setup.json")
        rows, compared, wealth = {}, {}, {}
        for number, daily in enumerate(every, start=1):
            series = series_of(daily, setup["days_per_year"])
            figures = measures(summarise(series), daily, setup["days_per_year"])
            rows[number] = {name: figures[name] for name in COLUMNS if name in figures}
            after, beside = daily["return"] - daily["cost"], daily.get("benchmark")
            own = series.get("excess_with_cost", series["portfolio_with_cost"]).daily
            compared[str(number)] = pd.Series(own, index=daily.index)
            grown = wealth_of(after) if beside is None else relative_wealth(after, beside)
            wealth[str(number)] = pd.Series(grown, index=daily.index)
        return pd.DataFrame.from_dict(rows, orient="index"), pd.DataFrame(compared), pd.DataFrame(wealth)

    def _trade(self, scores: list[pd.Series], progress: Progress | None) -> list[pd.DataFrame]:
        """`backtest/daily.parquet` of each path; the first is there."""
        setup = self.load_json("backtest/setup.json")
        first, last = pd.Timestamp(setup["start"]), pd.Timestamp(setup["end"])
        found = [self.load_table("backtest/daily.parquet")]
        codes = sorted({code for path in scores for code in path.index.get_level_values("instrument")})
        exchange, _ = make_exchange(codes, first, last, setup["exchange"])

        def show(day: int, days: int, what: str, before: int) -> None:
            if progress is not None:
                progress(before * days + day, (len(scores) - 1) * days, what)

        for k, path in enumerate(scores[1:]):
            strategy = build(setup["strategy"], BaseStrategy, name="strategy", signal=path.dropna())
            found.append(
                simulate(
                    strategy,
                    exchange,
                    first,
                    last,
                    account=setup["account"],
                    benchmark=setup["benchmark"],
                    progress=partial(show, before=k),
                ).daily
            )
        return found

    def _splits(self, runs: list[dict[str, Any]]) -> pd.DataFrame:
        rows = {}
        for run in runs:
            figures, _ = of_training(self.recorder.client, run["run_id"])
            rows[run["split"]] = {
                "folds": " ".join(map(str, run["folds"])),
                "run_id": run["run_id"],
                "trained": run["trained"],
                "in_order": run["in_order"],
                **figures,
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis(index="split")


def _overfitting(daily: pd.DataFrame, measure: str) -> dict[str, Any]:
    """What choosing the best path is worth, ready for JSON."""
    known = daily.dropna()
    if len(known) < 2 * FEWEST_DAYS:
        return {}
    found = backtest_overfitting(known.to_numpy())
    kept = ("probability", "slope", "loss", "configurations", "blocks")
    return {"measure": measure, "days": len(known), **{name: getattr(found, name) for name in kept}}
