"""What the score is made of: how much worse it ranks where a feature is shuffled among the stocks of a day."""

from __future__ import annotations

import fnmatch
import logging
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from qlib_ext.checks import LARGEST_SEED, UserError, brief, counted, instance, integer, nearest, words
from qlib_ext.data.panel import DailyPanel, DailyPanels
from qlib_ext.data.spec import DatasetSpec
from qlib_ext.features.base import FeatureSet
from qlib_ext.metrics.bootstrap import overlapping_block, span_of
from qlib_ext.metrics.cross_section import Floats, spearman
from qlib_ext.metrics.significance import Interval, bootstrap_mean
from qlib_ext.model.day_scores import DayScores, Scores
from qlib_ext.model.plain_weights import booster_of
from qlib_ext.records.base import Record
from qlib_ext.terminal import shown_progress

logger = logging.getLogger(__name__)

FOLDER = "importance"
SEGMENTS = ("valid", "test")
RANK_IC = ""  # among the keys of features, of which none is empty
SAME_SCORE = 1e-4  # times the spread of a day's scores: the same but for rounding

Groups = dict[str, tuple[str, ...]]  # group -> features


class ImportanceRecord(Record):
    r"""Permutation importance of each feature and of groups of features, on validation and on test.

    Source: Breiman (2001), "Random Forests", Machine Learning 45, Section 10. A feature is shuffled among the stocks of a
    day, each stock's whole window of it with all its lags, and the trained model scores the day again:

    .. math:: \text{drop}_d = \text{RankIC}_d - \frac{1}{R} \sum_{r=1}^{R} \text{RankIC}_d(\text{feature shuffled})

    The importance is the mean drop over days, with its 95% interval from the stationary bootstrap of days. The features of a
    group are shuffled together, so that none of them stands in for another. Nothing is trained or chosen by it; the test
    segment is read once the training is over.

    Writes under `importance/`:

    `features.csv`, `groups.csv`
        By feature and by group: `valid`, `valid_low`, `valid_high`, `test`, `test_low`, `test_high`; of a group the number
        of its `features`. Of a LightGBM model its `gain` and `splits` too, summed over lags and features. NaN for a feature
        that all stocks of a day share, which shuffling leaves as it is. No `groups.csv` where there are none.
    `daily.parquet`
        By segment and day: `rank_ic`, and the drop of each feature, `feature/<name>`, and group, `group/<name>`.
    `summary.json`
        Settings, days, RankIC of these days with interval, and what it cost.

    Logs `importance/<segment>/beyond_chance`, the number of features whose interval lies above zero.

    Parameters
    ----------
    recorder, model, dataset
        Given by Qlib.
    label
        Raw label that the RankIC is against.
    days
        Days of each segment that are scored, spread evenly; all where there are fewer.
    repeats
        How many times R each day is shuffled.
    groups
        Group -> features, or patterns of them such as `ROC*`. By default the families that the feature set knows of; an
        empty mapping for none.
    seed
        Of the shuffling. What is drawn follows from it, the day and the feature alone.

    Raises
    ------
    UserError
        If an argument is out of its range, a group names no feature, or the model scores a day alone in another way than
        with all days of the test segment.
    """

    needs = ("signal/predictions.parquet",)
    makes = tuple(f"{FOLDER}/{name}" for name in ("features.csv", "daily.parquet", "summary.json"))
    may_make = (f"{FOLDER}/groups.csv",)
    asks = ("panels",)
    of_model = True

    def __init__(
        self,
        recorder: Any,
        model: Any,
        dataset: Any,
        label: str = "RETURN",
        days: int = 60,
        repeats: int = 1,
        groups: Mapping[str, Sequence[str]] | None = None,
        seed: int = 0,
    ):
        super().__init__(recorder)
        self.model = model
        self.dataset = dataset
        self.label = instance("label", label, str)
        self.days = integer("days", days, 2)
        self.repeats = integer("repeats", repeats, 1)
        self.groups = None if groups is None else _checked_groups(groups)
        self.seed = integer("seed", seed, 0, LARGEST_SEED)

    def check_before(self, spec: DatasetSpec) -> None:
        """Segments, label and groups, against those of the dataset."""
        for segment in SEGMENTS:
            spec.require_segment(segment, "ImportanceRecord")
        spec.require_raw_label("label", self.label)
        if self.groups and spec.features is not None:
            members_of(self.groups, spec.features)

    def _generate(self) -> None:
        scores = DayScores(self.model, self.dataset)
        features = self.dataset.handler.features
        families = features.families() if self.groups is None else self.groups
        groups = members_of(families, [*features.feature_places()])
        columns: Groups = {f"feature/{name}": (name,) for name in features.feature_places()}
        columns |= {f"group/{name}": members for name, members in groups.items()}
        units = {key_of(members): places_of(features, members) for members in columns.values()}
        panels = {segment: scores.panels(segment) for segment in SEGMENTS}
        chosen = {segment: chosen_days(each, self.label, self.days) for segment, each in panels.items()}
        cost = self._cost(len(units), {segment: len(days) for segment, days in chosen.items()})
        self._check_scores(scores, panels["test"], chosen["test"])
        daily = self._daily(scores, panels, chosen, units)
        drops = {name: daily[key_of(members)] for name, members in columns.items()}
        daily = pd.DataFrame({"rank_ic": daily[RANK_IC], **drops})
        table = self._table(daily, {name: units[key_of(members)] for name, members in columns.items()})
        self._save(daily, table, groups, cost)

    def _cost(self, units: int, days: Mapping[str, int]) -> dict[str, int]:
        """What is about to be done, said before it begins."""
        scored = (1 + units * self.repeats) * sum(days.values())
        epoch = sum(len(self.dataset.days[name]) for name in ("train", "valid") if name in self.dataset.days)
        logger.info(
            "permutation importance: %s scored, as many as %.1f evaluations of train and validation",
            counted(scored, "day"),
            scored / max(1, epoch),
        )
        return {"scored_days": scored, "evaluation_days": epoch}

    def _check_scores(self, scores: DayScores, panels: DailyPanels, days: np.ndarray) -> None:
        """A day that is scored alone must have the scores that the run has."""
        panel = panels[int(days[0])]
        codes = np.asarray(panels.instruments, dtype=object)[panel.instruments.cpu().numpy()]
        rows = pd.MultiIndex.from_product([[panel.date], codes], names=["datetime", "instrument"])
        kept = self.load_table("signal/predictions.parquet")["score"].reindex(rows)
        before, again = kept.to_numpy(dtype=float), scores.of(panel)(panel.features).astype(float)
        room = SAME_SCORE * float(np.nanstd(before)) if np.isfinite(before).any() else 0.0
        if not np.allclose(before, again, rtol=0.0, atol=room, equal_nan=True):
            raise UserError(
                f"{type(self.model).__name__} scores {panel.date:%Y-%m-%d} alone in another way than with the other days of "
                "the test segment, so what a changed feature does cannot be told from what that does: leave "
                "ImportanceRecord out of the workflow"
            )

    def _daily(
        self,
        scores: DayScores,
        panels: Mapping[str, DailyPanels],
        chosen: Mapping[str, np.ndarray],
        units: Mapping[str, Sequence[int]],
    ) -> pd.DataFrame:
        """RankIC of each day, and how far it drops where the places of a unit are shuffled."""
        total, done, rows = sum(map(len, chosen.values())), 0, {}
        with shown_progress() as progress:
            for segment, days in chosen.items():
                for position in days:
                    panel = panels[segment][int(position)]
                    rows[segment, panel.date] = self._of_day(scores.of(panel), panel, units)
                    done += 1
                    if progress is not None:
                        progress(done, total, "permutation importance")
        index = pd.MultiIndex.from_tuples([*rows], names=["segment", "datetime"])
        return pd.DataFrame([*rows.values()], index=index)

    def _of_day(
        self, score: Scores, panel: DailyPanel, units: Mapping[str, Sequence[int]]
    ) -> dict[str, float]:
        changed = panel.features.clone()
        keys, found = [RANK_IC], [score(changed)]
        for key, places in units.items():
            where = [*places]
            values = panel.features[:, :, where]  # [N, T, places]
            for repeat in range(self.repeats):
                order = torch.from_numpy(shuffled(len(panel), self.seed, panel.date, repeat, key))
                others = values[order.to(values.device)]
                if not torch.equal(others, values):
                    changed[:, :, where] = others
                    keys.append(key)
                    found.append(score(changed))
            changed[:, :, where] = values
        rank_ic = rank_ics(found, panel.raw_labels[self.label].cpu().numpy())
        drops = pd.Series(rank_ic[0] - rank_ic[1:], keys[1:]).groupby(level=0).mean()
        return {RANK_IC: float(rank_ic[0]), **drops.reindex([*units]).to_dict()}

    def _table(self, daily: pd.DataFrame, columns: Mapping[str, Sequence[int]]) -> pd.DataFrame:
        """Mean drops with their intervals; and what a booster made of the places."""
        table = pd.DataFrame(index=[*columns])
        for segment in SEGMENTS:
            drops = daily.loc[segment]
            table[segment] = [drops[name].mean() for name in columns]
            ends = [self._interval(drops[name], segment) for name in columns]
            table[f"{segment}_low"] = [low for low, _ in ends]
            table[f"{segment}_high"] = [high for _, high in ends]
        booster = booster_of(self.model)
        if booster is not None:
            # its columns are all lags of the first name, then those of the next
            names = len(self.dataset.handler.features.names)
            for column, kind in (("gain", "gain"), ("splits", "split")):
                by_place = np.reshape(booster.feature_importance(kind), (names, -1)).sum(axis=1)
                table[column] = [by_place[[*places]].sum() for places in columns.values()]
        return table

    def _interval(self, values: pd.Series, segment: str) -> Interval:
        """Of the mean over the chosen days, of which several may lie within the return of one label."""
        span = span_of(self.label, self.dataset.handler.label_days())
        apart = max(1, len(self.dataset.days[segment]) // len(values))
        block = overlapping_block(int(values.notna().sum()), -(-span // apart))
        return bootstrap_mean(values, block_days=block)

    def _save(
        self, daily: pd.DataFrame, table: pd.DataFrame, groups: Groups, cost: Mapping[str, int]
    ) -> None:
        kinds = {"feature": table.index.str.startswith("feature/")}
        kinds["group"] = ~kinds["feature"]
        by_kind = {kind: table[rows].copy() for kind, rows in kinds.items()}
        for kind, part in by_kind.items():
            part.index = pd.Index([name.removeprefix(f"{kind}/") for name in part.index], name=kind)
        by_kind["group"].insert(0, "features", [len(members) for members in groups.values()])
        self.save_csv(f"{FOLDER}/features.csv", by_kind["feature"])
        if groups:
            self.save_csv(f"{FOLDER}/groups.csv", by_kind["group"])
        self.save_table(f"{FOLDER}/daily.parquet", daily)
        segments = {}
        for segment in SEGMENTS:
            rank_ic = daily.loc[segment, "rank_ic"]
            low, high = self._interval(rank_ic, segment)
            segments[segment] = {
                "days": len(rank_ic),
                "of_days": len(self.dataset.days[segment]),
                "start": f"{rank_ic.index[0]:%Y-%m-%d}",
                "end": f"{rank_ic.index[-1]:%Y-%m-%d}",
                "rank_ic": rank_ic.mean(),
                "rank_ic_low": low,
                "rank_ic_high": high,
            }
        grouped = {name for members in groups.values() for name in members}
        self.save_json(
            f"{FOLDER}/summary.json",
            {
                "label": self.label,
                "repeats": self.repeats,
                "seed": self.seed,
                "segments": segments,
                "groups": groups,
                "in_no_group": [name for name in by_kind["feature"].index if groups and name not in grouped],
                **cost,
            },
        )
        beyond = {segment: int((by_kind["feature"][f"{segment}_low"] > 0).sum()) for segment in SEGMENTS}
        self.log_metrics({f"{FOLDER}/{segment}/beyond_chance": count for segment, count in beyond.items()})


def members_of(groups: Mapping[str, Sequence[str]], features: Sequence[str]) -> Groups:
    """The features of each group, each once, in the order of the features.

    Parameters
    ----------
    groups
        Group -> names, or patterns in the manner of a shell (`ROC*`).
    features
        All there are.

    Raises
    ------
    UserError
        If a name or pattern is that of no feature.
    """
    found: Groups = {}
    for group, named in groups.items():
        members: set[str] = set()
        for name in named:
            fits = {name} if name in features else {*fnmatch.filter(features, name)}
            if not fits:
                raise UserError(
                    f"`groups.{group}` must name features of the dataset, or patterns of them such as `ROC*`, found "
                    f"{brief(name)}{nearest(name, features)}"
                )
            members |= fits
        found[group] = tuple(name for name in features if name in members)
    return found


def key_of(members: Sequence[str]) -> str:
    """What features are called by that are shuffled together: a group of one is that feature, and measured once."""
    return "\n".join(members)


def places_of(features: FeatureSet, members: Sequence[str]) -> tuple[int, ...]:
    """Where features stand among the names of their set."""
    places = features.feature_places()
    return tuple(place for name in members for place in places[name])


def chosen_days(panels: DailyPanels, label: str, number: int) -> np.ndarray:
    """Positions of `number` days of a segment that have two labels or more, spread evenly; all where there are fewer."""
    labelled = np.flatnonzero((~np.isnan(panels.raw_matrix(label))).sum(axis=1) >= 2)
    if not len(labelled):
        first, last = panels.dates[[0, -1]]
        raise UserError(
            f"`label` must be there for two stocks of some day from {first:%Y-%m-%d} to {last:%Y-%m-%d}, found none of "
            f"{label}: take longer segments"
        )
    return labelled[np.unique(np.linspace(0, len(labelled) - 1, number).round().astype(int))]


def shuffled(stocks: int, seed: int, day: pd.Timestamp, repeat: int, name: str) -> np.ndarray:
    """A permutation of the stocks of a day, `[N]` int64: the same for the same arguments, whatever was drawn before."""
    key = [seed, day.toordinal(), repeat, zlib.crc32(name.encode())]
    return np.random.default_rng(key).permutation(stocks)


def rank_ics(scores: Sequence[np.ndarray], truth: np.ndarray) -> Floats:
    """RankIC of each of several scores `[N]` of one day."""
    return spearman(np.stack(scores), np.broadcast_to(truth, (len(scores), len(truth))))


def _checked_groups(groups: Any) -> Groups:
    if not isinstance(groups, Mapping) or not all(isinstance(name, str) for name in groups):
        raise UserError(f"`groups` must be a mapping from names to lists of features, found {brief(groups)}")
    found = {name: words(f"groups.{name}", members) for name, members in groups.items()}
    for name, members in found.items():
        if not members:
            raise UserError(f"`groups.{name}` must name at least one feature, found none")
    return found
