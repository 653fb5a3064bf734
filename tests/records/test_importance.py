"""Permutation importance on a little market, held against plain loops and against LightGBM's own."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import qlib
import scipy.stats
from qlib.contrib.model.gbdt import LGBModel
from qlib.data.dataset.handler import DataHandlerLP

from qlib_ext.checks import UserError
from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.lookahead.provider import unrecorded
from qlib_ext.market.synthetic.sample import SampleMarket
from qlib_ext.metrics.significance import bootstrap_mean
from qlib_ext.model.multi_task import MultiTaskModel
from qlib_ext.records.importance import ImportanceRecord, key_of, members_of, shuffled
from qlib_ext.records.signal import as_predictions

FEATURES = {"MOVE": "$close / Ref($close, 1) - 1", "TURN": "$volume / Ref($volume, 1)", "SAME": "$close * 0"}
SEGMENTS = {
    "train": ("2015-03-02", "2015-04-30"),
    "valid": ("2015-05-04", "2015-05-29"),
    "test": ("2015-06-08", "2015-06-30"),
}
DATASET: dict[str, Any] = {
    "handler": {
        "class": "qlib_ext.data.handlers.panel.PanelHandler",
        "kwargs": {
            "instruments": "csi300",
            "features": {
                "class": "qlib_ext.features.expressions.Expressions",
                "kwargs": {"expressions": FEATURES, "lookback_days": 3},
            },
            "fit_start_time": "2015-03-02",
            "fit_end_time": "2015-04-30",
            "learn_processors": [
                {
                    "class": "qlib_ext.data.processors.cross_section_norm.CrossSectionNorm",
                    "kwargs": {"columns": ["RETURN"]},
                }
            ],
        },
    },
    "segments": SEGMENTS,
}


class Linear:
    """A score of two days of the moves, and nothing else."""

    weights: Mapping[str, float] = {"MOVE_LAG0": -1.0, "MOVE_LAG2": 0.5}

    def predict(self, dataset: Any) -> pd.Series:
        table = dataset.prepare("test", col_set="feature", data_key=DataHandlerLP.DK_I)
        return sum(
            (weight * table[name] for name, weight in self.weights.items()), start=0.0 * table.iloc[:, 0]
        )


class ByTheSegment(Linear):
    """Scores that follow from other days too."""

    def predict(self, dataset: Any) -> pd.Series:
        scores = super().predict(dataset)
        return scores - scores.sum()


class OnDisk(ImportanceRecord):
    """The record on a folder, without a run."""

    root: Path
    logged: Mapping[str, float]

    def load_table(self, path: str) -> pd.DataFrame:
        return pd.read_parquet(self.root / path)

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        self.logged = metrics

    def _log(self, path: str, write: Callable[[Path], Any]) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        write(self.root / path)


@dataclasses.dataclass
class Left:
    """What a record left."""

    features: pd.DataFrame
    groups: pd.DataFrame | None
    daily: pd.DataFrame
    summary: Any
    logged: Mapping[str, float]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DailyPanelDataset:
    root = tmp_path_factory.mktemp("market") / "sample"
    SampleMarket(seed=3, stocks=24, start="2015-02-02", end="2015-07-31").write(root)
    qlib.init(provider_uri=str(root), region="cn", kernels=1, logging_level=40)
    return DailyPanelDataset(**DATASET)


@pytest.fixture
def measured(dataset: DailyPanelDataset, tmp_path: Path) -> Callable[..., Left]:
    def measure(model: Any, **kwargs: Any) -> Left:
        record = OnDisk(recorder=None, model=model, dataset=dataset, **{"days": 5, **kwargs})
        record.root = tmp_path
        (tmp_path / "signal").mkdir(exist_ok=True)
        as_predictions(model.predict(dataset)).to_parquet(tmp_path / "signal" / "predictions.parquet")
        record._generate()
        folder = tmp_path / "importance"
        groups = folder / "groups.csv"
        left = Left(
            pd.read_csv(folder / "features.csv", index_col=0),
            pd.read_csv(groups, index_col=0) if groups.is_file() else None,
            pd.read_parquet(folder / "daily.parquet"),
            json.loads((folder / "summary.json").read_text(encoding="utf-8")),
            record.logged,
        )
        groups.unlink(missing_ok=True)
        return left

    return measure


class TestPermutation:
    def test_equal_to_plain_loops(self, dataset: DailyPanelDataset, measured: Callable[..., Left]) -> None:
        left = measured(Linear(), repeats=2, seed=4, groups={"both": ["MOVE", "TURN"]})
        for (segment, day), row in left.daily.iterrows():
            panels = dataset.panels(segment)
            panel = panels[list(panels.dates).index(day)]
            windows, truth = panel.features.numpy(), panel.raw_labels["RETURN"].numpy()

            def rank_ic(windows: np.ndarray, truth: np.ndarray = truth) -> float:
                known = [i for i, value in enumerate(truth) if not np.isnan(value)]
                score = [np.float32(-windows[i][2][0] + np.float32(0.5) * windows[i][0][0]) for i in known]
                return scipy.stats.spearmanr(score, [truth[i] for i in known]).statistic

            assert row["rank_ic"] == pytest.approx(rank_ic(windows), abs=1e-12)
            for name, key in (("feature/MOVE", "MOVE"), ("group/both", "MOVE\nTURN")):
                drops = []
                for repeat in range(2):
                    draw = np.random.default_rng([4, day.toordinal(), repeat, zlib.crc32(key.encode())])
                    other = windows.copy()
                    for i, j in enumerate(draw.permutation(len(windows))):
                        other[i, :, 0] = windows[j, :, 0]
                    drops.append(rank_ic(windows) - rank_ic(other))
                assert row[name] == pytest.approx(np.mean(drops), abs=1e-12)
        assert len(left.daily.loc["valid"]) == len(left.daily.loc["test"]) == 5

    def test_what_the_model_does_not_read_is_worth_exactly_nothing(
        self, measured: Callable[..., Left]
    ) -> None:
        left = measured(Linear())
        assert (left.daily["feature/TURN"] == 0).all()
        assert (left.daily["feature/MOVE"] != 0).all()
        assert left.features.loc["TURN"].tolist() == [0.0] * 6

    def test_what_all_stocks_share_is_not_measured(self, measured: Callable[..., Left]) -> None:
        assert measured(Linear()).features.loc["SAME"].isna().all()

    def test_means_and_intervals_are_those_of_the_days(self, measured: Callable[..., Left]) -> None:
        left = measured(Linear())
        for segment in ("valid", "test"):
            drops = left.daily.loc[segment, "feature/MOVE"]
            row = left.features.loc["MOVE"]
            assert row[segment] == pytest.approx(drops.mean())
            low, high = bootstrap_mean(drops)
            assert (row[f"{segment}_low"], row[f"{segment}_high"]) == (
                pytest.approx(low),
                pytest.approx(high),
            )
            found = left.summary["segments"][segment]
            assert found["rank_ic"] == pytest.approx(left.daily.loc[segment, "rank_ic"].mean())
            beyond = int((left.features[f"{segment}_low"] > 0).sum())
            assert left.logged[f"importance/{segment}/beyond_chance"] == beyond

    def test_the_same_again_whatever_is_measured_beside_it(self, measured: Callable[..., Left]) -> None:
        one = measured(Linear(), groups={"both": ["TURN", "MOVE"]})
        other = measured(Linear(), groups={})
        columns = ["rank_ic", "feature/MOVE", "feature/TURN"]
        pd.testing.assert_frame_equal(one.daily[columns], other.daily[columns], check_exact=True)
        another = measured(Linear(), seed=1)
        assert not np.array_equal(one.daily["feature/MOVE"], another.daily["feature/MOVE"])
        assert np.array_equal(one.daily["rank_ic"], another.daily["rank_ic"])

    def test_what_is_drawn_follows_from_seed_day_and_feature_alone(self) -> None:
        day = pd.Timestamp("2015-05-04")
        drawn = [
            shuffled(50, *key)
            for key in (
                (0, day, 0, "A"),
                (0, day, 0, "A"),
                (1, day, 0, "A"),
                (0, day, 1, "A"),
                (0, day, 0, "B"),
                (0, day + pd.Timedelta(days=1), 0, "A"),
            )
        ]
        assert np.array_equal(drawn[0], drawn[1])
        assert sorted(drawn[0]) == [*range(50)]
        assert all(not np.array_equal(drawn[0], other) for other in drawn[2:])

    def test_days_are_spread_over_those_that_have_labels(
        self, dataset: DailyPanelDataset, measured: Callable[..., Left]
    ) -> None:
        left = measured(Linear(), days=3)
        for segment in ("valid", "test"):
            days = dataset.panels(segment).dates
            assert [*left.daily.loc[segment].index] == [days[0], days[round((len(days) - 1) / 2)], days[-1]]
            assert left.summary["segments"][segment]["of_days"] == len(days)
        assert left.summary["scored_days"] == (1 + 3) * 6
        every = measured(Linear(), days=1000)
        assert len(every.daily) == len(dataset.days["valid"]) + len(dataset.days["test"])


class TestGroups:
    def test_a_group_of_one_is_its_feature(self, measured: Callable[..., Left]) -> None:
        left = measured(Linear(), groups={"alone": ["MOV*"], "both": ["MOVE", "TURN"]})
        assert left.groups is not None
        assert left.groups["features"].to_dict() == {"alone": 1, "both": 2}
        assert left.groups.loc["alone", "valid"] == left.features.loc["MOVE", "valid"]
        assert left.summary["in_no_group"] == ["SAME"]
        assert left.summary["groups"] == {"alone": ["MOVE"], "both": ["MOVE", "TURN"]}

    def test_a_set_without_families_has_no_groups(self, measured: Callable[..., Left]) -> None:
        left = measured(Linear())
        assert left.groups is None
        assert left.summary["in_no_group"] == []

    def test_names_and_patterns(self) -> None:
        features = ["ROC5", "ROC10", "Mean($close, 2*3)", "MA5"]
        groups = {"trend": ["MA5", "ROC*"], "own": ["Mean($close, 2*3)"]}
        assert members_of(groups, features) == {
            "trend": ("ROC5", "ROC10", "MA5"),
            "own": ("Mean($close, 2*3)",),
        }
        assert key_of(("A", "B")) == "A\nB"

    @pytest.mark.parametrize(
        ("groups", "message"),
        [
            ({"trend": ["ROC7"]}, r"`groups.trend` must name features .* found 'ROC7' \(did you mean ROC5"),
            ({"trend": ["X*"]}, r"found 'X\*'"),
        ],
    )
    def test_of_no_feature(self, groups: dict[str, list[str]], message: str) -> None:
        with pytest.raises(UserError, match=message):
            members_of(groups, ["ROC5", "MA5"])


class TestModels:
    def test_gain_and_splits_are_the_boosters_own(
        self, dataset: DailyPanelDataset, measured: Callable[..., Left]
    ) -> None:
        model = LGBModel(
            num_boost_round=5, num_leaves=7, min_data_in_leaf=5, num_threads=1, verbosity=-1, seed=0
        )
        with unrecorded():
            model.fit(dataset, verbose_eval=0)
        left = measured(model, groups={"both": ["MOVE", "TURN"]})
        columns = dataset.handler.features.column_names()
        assert left.groups is not None
        for column, kind in (("gain", "gain"), ("splits", "split")):
            own = dict(zip(columns, model.model.feature_importance(kind), strict=True))
            for name in FEATURES:
                expected = sum(value for lag, value in own.items() if lag.startswith(f"{name}_LAG"))
                assert left.features.loc[name, column] == pytest.approx(expected)
            assert left.groups.loc["both", column] == pytest.approx(sum(own.values()))
        assert left.features["gain"].sum() > 0

    def test_a_network(self, dataset: DailyPanelDataset, measured: Callable[..., Left]) -> None:
        model = MultiTaskModel(
            backbone={"class": "qlib_ext.model.backbones.lstm.LSTM", "kwargs": {"hidden_size": 4}},
            tasks={"score": {"label": "RETURN", "loss": {"class": "qlib_ext.model.losses.mse.MSE"}}},
            balancer={"class": "qlib_ext.model.balancers.single_task.SingleTask"},
            checkpoint_dir=None,
            device="cpu",
        )
        model.initialise(dataset)
        left = measured(model)
        assert "gain" not in left.features
        assert (left.daily[["feature/MOVE", "feature/TURN"]] != 0).all().all()
        labels = dataset.prepare("test", col_set="label", data_key=DataHandlerLP.DK_R)["RETURN"]
        scores = as_predictions(model.predict(dataset))["score"]
        for day, row in left.daily.loc["test"].iterrows():
            both = pd.DataFrame({"score": scores.loc[day], "label": labels.loc[day]}).dropna()
            assert row["rank_ic"] == pytest.approx(both.corr("spearman").loc["score", "label"])

    def test_one_that_scores_a_day_by_other_days_too(self, measured: Callable[..., Left]) -> None:
        with pytest.raises(
            UserError, match=r"ByTheSegment scores 2015-06-\d\d alone .* leave ImportanceRecord out"
        ):
            measured(ByTheSegment())


class TestBefore:
    @pytest.fixture
    def record(self) -> Callable[..., ImportanceRecord]:
        return lambda **kwargs: ImportanceRecord(recorder=None, model=None, dataset=None, **kwargs)

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"days": 1}, "`days` must be at least 2, found 1"),
            ({"repeats": 0}, "`repeats` must be at least 1, found 0"),
            ({"seed": -1}, "`seed` must be at least 0, found -1"),
            ({"label": 3}, "`label` must be a str"),
            (
                {"groups": ["ROC5"]},
                r"`groups` must be a mapping from names to lists of features, found \['ROC5'\]",
            ),
            ({"groups": {"trend": "ROC5"}}, "`groups.trend` must be a list of names, found 'ROC5'"),
            ({"groups": {"trend": []}}, "`groups.trend` must name at least one feature, found none"),
        ],
    )
    def test_arguments(
        self, kwargs: dict[str, Any], message: str, record: Callable[..., ImportanceRecord]
    ) -> None:
        with pytest.raises(UserError, match=message):
            record(**kwargs)

    @pytest.mark.parametrize(
        ("kwargs", "left_out", "message"),
        [
            ({"label": "RETRUN"}, None, r"`label` must be one of .* \(did you mean RETURN"),
            ({"groups": {"a": ["MOVES"]}}, None, r"`groups.a` must name .* \(did you mean MOVE"),
            ({}, "valid", "`segments` must hold `valid`, which ImportanceRecord needs"),
        ],
    )
    def test_against_the_dataset(
        self,
        kwargs: dict[str, Any],
        left_out: str | None,
        message: str,
        dataset: DailyPanelDataset,
        record: Callable[..., ImportanceRecord],
    ) -> None:
        segments = {name: days for name, days in SEGMENTS.items() if name != left_out}
        spec = DailyPanelDataset.spec(**{**DATASET, "segments": segments})
        with pytest.raises(UserError, match=message):
            record(**kwargs).check_before(spec)
