"""A fold by itself: what its scores are worth on days that it trained on, chose by and scored, and how its features moved."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.checks import instance, integer
from qlib_ext.data.panel import DailyPanels
from qlib_ext.data.spec import DatasetSpec
from qlib_ext.features.base import FeatureSet
from qlib_ext.metrics.cross_section import pearson, spearman
from qlib_ext.metrics.drift import population_stability_index
from qlib_ext.model.day_scores import DayScores
from qlib_ext.model.ensemble.ensemble import Ensemble
from qlib_ext.model.ensemble.member_scores import combine_tables
from qlib_ext.records.base import Record
from qlib_ext.tracking.artifacts import RunArtifacts

SEGMENTS = ("train", "valid", "test")
SCORES = "fold/scores.parquet"


class FoldRecord(Record):
    """IC and RankIC of one model by segment, and how far its features have moved from training to test.

    Each segment is looked at on some days, spread evenly. Writes `fold/daily.parquet`, by segment and day: `ic` and `rank_ic`
    against the raw label; and `fold/drift.csv`, by feature, on the first, the middle and the newest day of the windows: `psi`,
    the population stability index of the test days beside those of training, and `shift`, how far its mean has moved, in
    standard deviations of the training. Logs `<segment>/RankIC` and `drift/psi`, the mean over features. Of an ensemble, the scores of its members are put together.

    Parameters
    ----------
    recorder, model, dataset
        Given by Qlib.
    label
        Raw label.
    days
        Days of each segment that are looked at; all where there are fewer.
    keep_scores
        Whether the scores of these days are kept in `fold/scores.parquet`; those of an ensemble's members are.

    Raises
    ------
    UserError
        If an argument is out of its range, or the dataset has no such label.
    """

    needs = ("signal/predictions.parquet",)
    makes = ("fold/daily.parquet", "fold/drift.csv")
    may_make = (SCORES,)
    asks = ("panels",)
    of_model = True

    def __init__(
        self,
        recorder: Any,
        model: Any,
        dataset: Any,
        label: str = "RETURN",
        days: int = 120,
        keep_scores: bool = False,
    ):
        super().__init__(recorder)
        self.model = model
        self.dataset = dataset
        self.label = instance("label", label, str)
        self.days = integer("days", days, 2)
        self.keep_scores = instance("keep_scores", keep_scores, bool)

    def check_before(self, spec: DatasetSpec) -> None:
        """Segments and label, against those of the dataset."""
        for segment in SEGMENTS:
            spec.require_segment(segment, "FoldRecord")
        spec.require_raw_label("label", self.label)

    def _generate(self) -> None:
        members = self._of_members() if isinstance(self.model, Ensemble) else None
        scores = DayScores(self.model, self.dataset)
        features = self.dataset.handler.features
        codes = np.asarray(self.dataset.instruments, dtype=object)
        rows, values, kept = {}, {}, {}
        for segment in SEGMENTS:
            panels = scores.panels(segment)
            chosen = spread(len(panels), self.days)
            if segment != "valid":
                values[segment] = values_of(panels, chosen, features)
            for panel in (panels[int(day)] for day in chosen):
                of_day = pd.Index(codes[panel.instruments.cpu().numpy()], name="instrument")
                if members is None:
                    score = scores.of(panel)(panel.features)
                else:
                    score = members.loc[segment, panel.date].reindex(of_day).to_numpy()
                truth = panel.raw_labels[self.label].cpu().numpy()[None]
                rows[segment, panel.date] = {
                    "ic": float(pearson(score[None], truth)[0]),
                    "rank_ic": float(spearman(score[None], truth)[0]),
                }
                kept[segment, panel.date] = pd.Series(score, index=of_day, name="score")
        index = pd.MultiIndex.from_tuples([*rows], names=["segment", "datetime"])
        daily = pd.DataFrame([*rows.values()], index=index)
        drift = drift_table(values["train"], values["test"])
        if self.keep_scores:
            self.save_table(SCORES, pd.concat(kept, names=["segment", "datetime"]).to_frame())
        self.save_table("fold/daily.parquet", daily)
        self.save_csv("fold/drift.csv", drift)
        means = daily["rank_ic"].groupby(level="segment").mean()
        self.log_metrics({f"{segment}/RankIC": means[segment] for segment in SEGMENTS})
        self.log_metrics({"drift/psi": drift["psi"].mean()})

    def _of_members(self) -> pd.Series:
        """What the members of an ensemble said of the days that they were looked at on, as one score."""
        parts = []
        for run in self.model.runs:
            with tempfile.TemporaryDirectory() as folder:
                kept = RunArtifacts.download(self.recorder.client, run["run_id"], [SCORES], Path(folder))
                parts.append(kept.table(SCORES))
        together = {
            segment: combine_tables([part.loc[segment] for part in parts], self.model.combiner)["score"]
            for segment in SEGMENTS
        }
        return pd.concat(together, names=["segment"])


def spread(days: int, number: int) -> np.ndarray:
    """Positions of `number` of so many days, spread evenly; all where there are fewer."""
    return np.unique(np.linspace(0, days - 1, number).round().astype(int))


def values_of(panels: DailyPanels, days: Sequence[int] | np.ndarray, features: FeatureSet) -> pd.DataFrame:
    """Features of all stocks of some days, on the first, the middle and the newest day of the windows.

    Where lags are features of their own, those of one feature stand in rows below each other.
    """
    places = features.feature_places()
    lags = max(map(len, places.values()))
    parts = []
    for day in days:
        windows = panels[int(day)].features  # [N, T, F]
        steps = sorted({0, windows.shape[1] // 2, windows.shape[1] - 1})
        seen = windows[:, steps].flatten(0, 1).cpu().numpy()  # [N * steps, F]
        parts.append(
            np.stack(
                [np.resize(seen[:, [*where]].T, (lags, len(seen))).ravel() for where in places.values()],
                axis=1,
            )
        )
    return pd.DataFrame(np.concatenate(parts), columns=[*places])


def drift_table(train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """By feature, `psi` and `shift` of the test days beside those of training."""
    psi = {name: population_stability_index(train[name], test[name]) for name in train}
    shift = {}
    for name in train:
        (before, deviation), (after, _) = _moments(train[name]), _moments(test[name])
        shift[name] = (after - before) / deviation if deviation > 0 and not math.isnan(after) else 0.0
    return pd.DataFrame({"psi": psi, "shift": shift}).rename_axis(index="feature")


def _moments(values: pd.Series) -> tuple[float, float]:
    """Mean and standard deviation of the numbers among `values`, the same in whatever order they come: exact sums."""
    numbers = values.dropna().to_numpy(np.float64)
    if not len(numbers):
        return math.nan, math.nan
    mean = math.fsum(numbers) / len(numbers)
    return mean, math.sqrt(math.fsum((numbers - mean) ** 2) / len(numbers))
