"""The run's line in the ledger of trials, and what the trials before it do to its figures."""

from __future__ import annotations

import getpass
import hashlib
import logging
import math
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from qlib.config import C

from qlib_ext.lock import BusyError
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.metrics.moments import moments
from qlib_ext.metrics.portfolio_series import series_of
from qlib_ext.metrics.significance import deflated_sharpe_ratio, expected_maximum_sharpe
from qlib_ext.records.base import Record
from qlib_ext.tracking import ledger
from qlib_ext.tracking.ledger import Entry, LedgerError, Trial

logger = logging.getLogger(__name__)


class LedgerRecord(Record):
    """Enter the run into the ledger of trials, `qlib_ext.tracking.ledger`.

    Every run that ends well is entered, with this record or without it; with it, before the report, the report says what
    the trials before it mean for its figures.

    Writes `ledger/trials.csv`, the trials that looked at some of the same test days, by number, and `ledger/summary.json`:
    the `file`, `entry` and `hash` of the run's line, the number of `trials` and of those with a backtest (`traded`), the
    `ratio` a year that the best of these is expected to have without any skill (`luck`), the run's own (`ratio`) and its
    deflated Sharpe ratio (`deflated`); or, in `problem`, why the ledger could not be used, and nothing else. Sets the tag
    `ledger_entry`.

    Parameters
    ----------
    recorder
        Given by Qlib.

    Notes
    -----
    The ratio is the information ratio over the index after cost; without an index Sharpe's. Trials count as independent:
    runs that differ by their seed are not, so that their number is an upper bound.
    """

    needs = ("signal/predictions.parquet", "data/summary.json")
    makes = ("ledger/trials.csv", "ledger/summary.json")

    def __init__(self, recorder: Any):
        super().__init__(recorder)

    def _generate(self) -> None:
        path = ledger.ledger_path(Path(C.dpm.get_data_uri("day")))
        daily = self.load_table("backtest/daily.parquet") if self.has("backtest/daily.parquet") else None
        try:
            entry, known = ledger.enter(path, self._trial(daily))
        except (OSError, BusyError, LedgerError) as error:
            logger.warning("Ledger of trials: %s", error)
            self.save_csv("ledger/trials.csv", ledger.tabulate([]))
            self.save_json("ledger/summary.json", {"file": path.name, "problem": str(error)})
            return
        same = ledger.on_the_same_days(known, entry.trial)
        self.save_csv("ledger/trials.csv", ledger.tabulate(same))
        self.save_json("ledger/summary.json", {"file": path.name, **self._summary(entry, same, daily)})
        self.log_tags({ledger.TAG: entry.tag(path)})

    def _trial(self, daily: pd.DataFrame | None) -> Trial:
        predictions = self.load_table("signal/predictions.parquet")
        summary = self.load_json("data/summary.json")
        rank_ic = None
        if self.has("ranking/estimates.parquet"):
            found = float(self.load_table("ranking/estimates.parquet").loc["RankIC", "value"])
            rank_ic = found if math.isfinite(found) else None
        days = predictions.index.get_level_values("datetime")
        return Trial(
            time=datetime.now().astimezone().isoformat(timespec="seconds"),
            what=_digest(predictions["score"], daily),
            fingerprint=str(summary["fingerprint"]),
            universe=str(summary["universe"]),
            first=f"{days.min():%Y-%m-%d}",
            last=f"{days.max():%Y-%m-%d}",
            run_id=str(self.recorder.id),
            name=str(self.recorder.name or ""),
            user=user(),
            rank_ic=rank_ic,
            ratio=None if daily is None else _ratio(daily),
        )

    def _summary(self, entry: Entry, same: list[Entry], daily: pd.DataFrame | None) -> dict[str, Any]:
        found: dict[str, Any] = {"entry": entry.number, "hash": entry.hash, "trials": len(same)}
        ratios = np.array([each.trial.ratio for each in same if each.trial.ratio is not None])
        if daily is None or not len(ratios) or entry.trial.ratio is None:
            return found
        year = math.sqrt(float(self.load_json("backtest/setup.json")["days_per_year"]))
        variance = float(ratios.var(ddof=1)) if len(ratios) > 1 else 0.0
        return found | {
            "traded": len(ratios),
            "ratio": entry.trial.ratio * year,
            "luck": expected_maximum_sharpe(variance, len(ratios)) * year,
            "deflated": deflated_sharpe_ratio(_after_cost(daily), ratios),
        }


def _after_cost(daily: pd.DataFrame) -> Floats:
    """Daily returns after cost, over the index where there is one."""
    series = series_of(daily, per_year=1.0)  # which daily returns do not ask for
    return series.get("excess_with_cost", series["portfolio_with_cost"]).daily


def _ratio(daily: pd.DataFrame) -> float | None:
    shape = moments(_after_cost(daily))
    return shape.mean / shape.std if shape.std > 0 else None


def _digest(scores: pd.Series, daily: pd.DataFrame | None) -> str:
    """Of what was looked at: which stocks were scored how on which days, and what trading them earned."""
    content = hashlib.sha256(pd.util.hash_pandas_object(scores.sort_index()).to_numpy().tobytes())
    if daily is not None:
        content.update(np.ascontiguousarray(_after_cost(daily)).tobytes())
    return content.hexdigest()[:32]


def user() -> str:
    """Who looks: the name of the account, empty where it has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container may know no name of its user
        return ""
