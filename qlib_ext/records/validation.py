"""What the scores of the days of validation are worth: all that a search may choose by."""

from __future__ import annotations

import hashlib
import inspect
import math
from typing import Any

import numpy as np
import pandas as pd
from qlib.data.dataset.handler import DataHandlerLP

from qlib_ext.checks import UserError, at_least, brief, instance, integer, one_of
from qlib_ext.data.spec import DatasetSpec
from qlib_ext.metrics.cross_section import icir, pearson, spearman
from qlib_ext.metrics.top_list import top_excess
from qlib_ext.records.base import Record
from qlib_ext.records.signal import as_predictions

SEGMENT = "valid"
DAILY = "validation/daily.parquet"
DIGEST = "validation_digest"  # a tag
TOPK, COST_BPS = 50, 10.0
DAYS_PER_YEAR = 252
FIGURES = ("rank_ic", "rank_icir", "ic", "icir", "excess_return", "information_ratio")


class ValidationRecord(Record):
    """Predict the segment `valid` and measure the scores; no other segment is asked for.

    Writes `validation/daily.parquet`, by day: `ic`, `rank_ic` and `excess`, what the highest scored stocks earn over all
    stocks after cost (`qlib_ext.metrics.top_list.top_excess`). Logs `validation/<figure>` of each figure in `FIGURES`, and
    sets the tag `validation_digest`, which is equal for equal scores.

    Parameters
    ----------
    recorder, model, dataset
        Given by Qlib.
    label
        Raw label.
    topk, cost_bps
        As in `top_excess`.

    Raises
    ------
    UserError
        If an argument is out of its range, the model scores the test segment alone, or no score has a label.

    Notes
    -----
    `information_ratio` is of a year of 252 days.
    """

    makes = (DAILY,)
    of_model = True

    def __init__(
        self,
        recorder: Any,
        model: Any,
        dataset: Any,
        label: str = "RETURN",
        topk: int = TOPK,
        cost_bps: float = COST_BPS,
    ):
        super().__init__(recorder)
        self.model = model
        self.dataset = dataset
        self.label = instance("label", label, str)
        self.topk = integer("topk", topk, 1)
        self.cost_bps = at_least("cost_bps", cost_bps, 0)

    def check_before(self, spec: DatasetSpec) -> None:
        """Segment and label, against those of the dataset."""
        spec.require_segment(SEGMENT, "ValidationRecord")
        spec.require_raw_label("label", self.label)

    def _generate(self) -> None:
        if "segment" not in inspect.signature(self.model.predict).parameters:
            raise UserError(
                f"a search needs a model that scores the segment `{SEGMENT}`, found {type(self.model).__name__}, whose "
                "`predict` takes no `segment`"
            )
        predictions = as_predictions(self.model.predict(self.dataset, segment=SEGMENT))["score"]
        labels = self.dataset.prepare(SEGMENT, col_set="label", data_key=DataHandlerLP.DK_R)
        one_of("label", self.label, [*labels])
        daily = measured(predictions, labels[self.label], self.topk, self.cost_bps)
        self.save_table(DAILY, daily)
        self.log_metrics({f"validation/{name}": value for name, value in figures(daily).items()})
        self.log_tags({DIGEST: digest(predictions)})


def measured(scores: pd.Series, label: pd.Series, topk: int, cost_bps: float) -> pd.DataFrame:
    """By day `ic`, `rank_ic` and `excess` of scores, both indexed (datetime, instrument)."""
    both = pd.DataFrame({"score": scores, "label": label.reindex(scores.index)}).sort_index()
    if not both.notna().all(axis=1).any():
        raise UserError(
            f"scores of `{SEGMENT}` must have labels, found {len(both)} scores from {brief(both.index[:1].tolist())} and no "
            "day with both: check the segment against the store"
        )
    score, ret = (both[name].unstack("instrument") for name in ("score", "label"))
    found = {
        "ic": pearson(score, ret),
        "rank_ic": spearman(score, ret),
        "excess": top_excess(score, ret, topk, cost_bps),
    }
    return pd.DataFrame(found, index=score.index)


def figures(daily: pd.DataFrame) -> dict[str, float]:
    """What a search may choose by, by name; NaN where it is not defined."""
    excess = daily["excess"].dropna().to_numpy()
    deviation = float(excess.std(ddof=1)) if len(excess) > 1 else 0.0
    ratio = float(excess.mean()) / deviation if deviation > 0 else math.nan
    known = {name: daily[name].to_numpy() for name in ("ic", "rank_ic")}
    return {
        "rank_ic": _mean(known["rank_ic"]),
        "rank_icir": icir(known["rank_ic"]),
        "ic": _mean(known["ic"]),
        "icir": icir(known["ic"]),
        "excess_return": _mean(excess),
        "information_ratio": ratio * math.sqrt(DAYS_PER_YEAR),
    }


def digest(scores: pd.Series) -> str:
    """Equal for equal scores of equal stocks and days."""
    content = pd.util.hash_pandas_object(scores.sort_index()).to_numpy().tobytes()
    return hashlib.sha256(content).hexdigest()[:32]


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan
