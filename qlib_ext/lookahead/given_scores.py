"""What can be said of scores that were given: they cannot be made again, but they may be too good to be forecasts."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from qlib.data.dataset import DatasetH

from qlib_ext.lookahead.findings import Check, Finding, Result
from qlib_ext.market.store import QlibStore
from qlib_ext.metrics.cross_section import Floats, spearman
from qlib_ext.model.given_scores import GivenScores
from qlib_ext.tracking.artifacts import RunArtifacts, stored

AUDIT = "lookahead/audit.json"
AHEAD_DAYS = 5
TOO_GOOD = 0.3  # mean daily RankIC; good signals of daily bars lie between 0.02 and 0.08
CANNOT = (
    "look-ahead inside these scores cannot be audited: they were given ({called}), and what they were made from cannot be "
    "made again on another market. Whether a score dated t was known at the close of t is for whoever made it to say"
)


def look(model: GivenScores, dataset: DatasetH, store: QlibStore) -> Result:
    """The audit of the run that made the scores, or where they are of a file, whether forecasts can be so good.

    A RankIC against returns of later days beyond `TOO_GOOD`, of the scores or of their changes from day to day, is an alarm.

    Parameters
    ----------
    model
        The scores.
    dataset
        With the segment `test`.
    store
        Whose closes they are held against.
    """
    kept = None if model.run is None else _of_run(model)
    if kept is not None:
        return kept
    score = model.predict(dataset)["score"].unstack("instrument")
    days = store.calendar.get_indexer(score.index)
    values = score.to_numpy(dtype=float)
    returns = [_returns(store, days, [*score.columns], ahead) for ahead in range(AHEAD_DAYS + 1)]
    same, *later = [_mean(spearman(values, each)) for each in returns]
    changes = np.full_like(values, np.nan)
    changes[1:] = np.diff(values, axis=0)
    moved = [_mean(spearman(changes, each)) for each in returns[1:]]
    findings = [
        Finding(
            "scores-too-good",
            f"{what} rank the stocks as their return {ahead} day{'s' if ahead > 1 else ''} later does",
            f"{score.index[0]:%Y-%m-%d}",
            0,
            f"mean RankIC {ic:.2f}, beyond {TOO_GOOD:g}",
        )
        for what, found in (("scores", later), ("changes of the scores", moved))
        for ahead, ic in enumerate(found, start=1)
        if abs(ic) > TOO_GOOD
    ]
    facts = {
        "store": store.root.name,
        "universe": str(getattr(dataset.handler, "instruments", "")),
        "first": f"{score.index[0]:%Y-%m-%d}",
        "last": f"{score.index[-1]:%Y-%m-%d}",
        "changed_markets": 0,
        "changed": [],
        "given": model.called,
    }
    told = ", ".join(f"{ic:.3f}" for ic in later)
    beside = (
        f"mean RankIC of the scores with the return of their own day {same:.3f}, with those of the {AHEAD_DAYS} days after "
        f"{told}; beyond {TOO_GOOD:g} there is an alarm"
    )
    what = f"given scores beside the returns of the {AHEAD_DAYS} days after ({len(score):,} days)"
    return Result(
        facts,
        0,
        tuple(findings),
        (Check("plausibility", what),),
        (CANNOT.format(called=model.called), beside),
    )


def _of_run(model: GivenScores) -> Result | None:
    """The audit that the run keeps; None where it keeps none."""
    client, run = model.found_run()
    if not stored(client, run.info.run_id, [AUDIT]):
        return None
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = RunArtifacts.download(client, run.info.run_id, [AUDIT], Path(folder)).json(
            AUDIT
        )
    return Result.from_json(found, f"of the run {run.info.run_id}, whose scores these are")


def _returns(store: QlibStore, days: np.ndarray, codes: list[str], ahead: int) -> Floats:
    """`[D, S]`: from the close of the day before to that of the day, `ahead` days after each of `days`."""
    close = store.read(["close"], codes)[0].astype(float)
    whole = np.full_like(close, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        whole[1:] = close[1:] / close[:-1] - 1
    place = days + ahead
    inside = place < len(whole)
    found = np.full((len(days), len(codes)), np.nan)
    found[inside] = whole[place[inside]]
    return found


def _mean(values: pd.Series | Floats) -> float:
    there = np.asarray(values)[~np.isnan(values)]
    return float(there.mean()) if len(there) else 0.0
