from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import qlib
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qlib_ext.checks import UserError
from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.data.processors.cross_section_norm import CrossSectionNorm
from qlib_ext.data.processors.rise_or_fall import CLASS_NAMES, RiseOrFall, rise_class
from qlib_ext.market.synthetic.sample import SampleMarket
from qlib_ext.model.multi_task import MultiTaskModel

NAN = math.nan
PATH = "qlib_ext.data.processors.rise_or_fall.RiseOrFall"
LOSSES = "qlib_ext.model.losses"
TASKS = {
    "score": {"label": "RETURN", "loss": {"class": f"{LOSSES}.mse.MSE"}},
    "momentum": {
        "label": "MOMENTUM",
        "loss": {"class": f"{LOSSES}.pairwise.Pairwise", "kwargs": {"classification": True}},
    },
    "rise": {"label": "RISE", "loss": {"class": f"{LOSSES}.cross_entropy.CrossEntropy"}},
}


def naive_class(value: float) -> float:
    if math.isnan(value):
        return NAN
    return 1.0 if value > 0 else 0.0


def table(**columns: list[float]) -> pd.DataFrame:
    """The frame that a loader would deliver."""
    rows = len(next(iter(columns.values())))
    index = pd.MultiIndex.from_product(
        [[pd.Timestamp("2020-01-02")], [f"SH{i:06}" for i in range(rows)]], names=["datetime", "instrument"]
    )
    frame = pd.DataFrame(columns, index=index, dtype=np.float32)
    frame.columns = pd.MultiIndex.from_product([["label"], frame.columns])
    return frame


class TestClass:
    @given(arrays(np.float32, (5,), elements=st.floats(-1, 1, width=32) | st.just(NAN)))
    def test_as_the_definition_reads(self, returns: np.ndarray) -> None:
        found = rise_class(returns)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, [naive_class(value) for value in returns.tolist()])

    @pytest.mark.parametrize(
        ("value", "name"), [(0.1, "Rise"), (1e-30, "Rise"), (0.0, "Fall"), (-0.0, "Fall"), (-0.1, "Fall")]
    )
    def test_by_hand(self, value: float, name: str) -> None:
        assert CLASS_NAMES[int(rise_class(np.array([value]))[0])] == name


class TestProcessor:
    def test_adds_the_class_and_its_persistence(self) -> None:
        frame = table(
            RETURN=[0.1, -0.1, 0.0, NAN], RISE_LAST=[-0.2, NAN, 0.3, 0.1], OTHER=[1.0, 2.0, 3.0, 4.0]
        )
        before = frame.copy()
        found = RiseOrFall()(frame)["label"]
        assert list(found) == ["RETURN", "OTHER", "RISE", "RISE_PERSISTENCE"]
        np.testing.assert_array_equal(found["RISE"], [1, 0, 0, NAN])
        np.testing.assert_array_equal(found["RISE_PERSISTENCE"], [0, NAN, 1, 1])
        pd.testing.assert_series_equal(found["RETURN"], before["label"]["RETURN"])
        assert RiseOrFall().readonly()
        pd.testing.assert_frame_equal(frame, before)

    def test_names(self) -> None:
        processor = RiseOrFall(source="NEXT_RETURN", name="UP")
        assert processor.expressions()[1] == ["UP_LAST"]
        found = processor(table(NEXT_RETURN=[0.1], UP_LAST=[-0.1]))["label"]
        assert found["UP"].tolist() == [1]
        assert found["UP_PERSISTENCE"].tolist() == [0]

    def test_after_a_normalisation_it_would_be_another_label(self) -> None:
        """Why the page says where it stands: all rise, and half of the ranks are above the middle."""
        frame = table(RETURN=[0.1, 0.2, 0.3, 0.4], RISE_LAST=[0.1] * 4)
        assert RiseOrFall()(frame)["label"]["RISE"].tolist() == [1, 1, 1, 1]
        assert RiseOrFall()(CrossSectionNorm()(frame))["label"]["RISE"].tolist() == [0, 0, 1, 1]

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"RISE_LAST": [0.1]}, r"`source` must be a label of the handler \(RISE_LAST\), found 'RETURN'"),
            ({"RETURN": [0.1]}, "needs the label column RISE_LAST in group `label`, found none: add"),
        ],
    )
    def test_a_missing_column_is_named(self, columns: dict[str, list[float]], message: str) -> None:
        with pytest.raises(UserError, match=message):
            RiseOrFall()(table(**columns))

    def test_arguments(self) -> None:
        with pytest.raises(UserError, match="`source` must be a str, found int: 3"):
            RiseOrFall(source=3)  # type: ignore[arg-type]


class TestUnderTheHandler:
    @pytest.fixture(scope="class")
    def labels(
        self, make_dataset: Callable[..., DailyPanelDataset], qlib_reads_the_store: None
    ) -> pd.DataFrame:
        return make_dataset({"infer_processors": [{"class": PATH}]}).handler.fetch(col_set="label")

    def test_classes_are_those_of_a_plain_loop_over_the_prices(self, labels: pd.DataFrame, tiny: Any) -> None:
        close = pd.DataFrame(tiny.bars["close"].astype(np.float32), tiny.calendar, tiny.codes)
        assert labels["RISE"].notna().sum() > 1000
        for (day, code), row in labels.iloc[::7].iterrows():
            prices, t = [*close[code].tolist(), NAN, NAN], tiny.calendar.get_loc(day)
            np.testing.assert_array_equal(
                row["RISE"], naive_class(prices[t + 2] - prices[t + 1]), str((day, code))
            )
            known = prices[t] - prices[t - 1] if t else NAN
            np.testing.assert_array_equal(row["RISE_PERSISTENCE"], naive_class(known), str((day, code)))

    def test_the_raw_return_is_left_and_the_class_is_not_ranked(
        self, make_dataset: Callable[..., DailyPanelDataset]
    ) -> None:
        handler = make_dataset({"infer_processors": [{"class": PATH}]}).handler
        raw, trained = (handler.fetch(col_set="label", data_key=key) for key in ("infer", "learn"))
        np.testing.assert_array_equal(raw["RISE"], rise_class(raw["RETURN"].to_numpy()))
        np.testing.assert_array_equal(trained["RISE"], raw["RISE"])
        assert not np.allclose(trained["RETURN"], raw["RETURN"], equal_nan=True)

    def test_beside_the_momentum_line(self, make_dataset: Callable[..., DailyPanelDataset]) -> None:
        line = {"class": "qlib_ext.data.processors.momentum_line.MomentumLine"}
        labels = make_dataset({"infer_processors": [line, {"class": PATH}]}).handler.fetch(col_set="label")
        assert set(labels) >= {"RETURN", "MOMENTUM", "MOMENTUM_PERSISTENCE", "RISE", "RISE_PERSISTENCE"}
        assert not [name for name in labels if name.endswith("_LAST") or "_LINE" in name]


class TestAsATask:
    """Three tasks of two kinds on a small market: score, momentum, and rise-or-fall beside them."""

    @pytest.fixture(scope="class")
    def dataset(self, tmp_path_factory: pytest.TempPathFactory) -> DailyPanelDataset:
        root = tmp_path_factory.mktemp("market") / "sample"
        SampleMarket(seed=3, stocks=30, start="2015-01-01", end="2015-12-31").write(root)
        qlib.init(provider_uri=str(root), region="cn", kernels=1)
        line = {
            "class": "qlib_ext.data.processors.momentum_line.MomentumLine",
            "kwargs": {"lookback_days": 2, "length_days": 4, "points": 4},
        }
        handler = {
            "class": "qlib_ext.data.handlers.panel.PanelHandler",
            "kwargs": {
                "instruments": "csi300",
                "fit_start_time": "2015-06-01",
                "fit_end_time": "2015-06-30",
                "features": {
                    "class": "qlib_ext.features.alpha360.Alpha360",
                    "kwargs": {"lookback_days": 5},
                },
                "infer_processors": [line, {"class": PATH}],
                "learn_processors": [
                    {"class": "qlib_ext.data.processors.cross_section_norm.CrossSectionNorm"}
                ],
            },
        }
        segments = {
            "train": ("2015-06-01", "2015-06-30"),
            "valid": ("2015-07-01", "2015-07-14"),
            "test": ("2015-07-15", "2015-07-24"),
        }
        return DailyPanelDataset(handler=handler, segments=segments)

    @pytest.mark.parametrize(
        ("path", "kwargs"),
        [
            ("equal.EqualWeighting", {}),
            ("cqb.CQB", {"window": 1}),
            ("db_mtl.DBMTL", {"weight_decay": 1e-3}),
            ("cagrad.CAGrad", {}),
            ("torchjd.TorchJDAggregator", {"method": {"class": "torchjd.aggregation.UPGrad"}}),
            ("torchjd.TorchJDScalarizer", {"method": {"class": "torchjd.scalarization.FAMO"}}),
        ],
    )
    def test_trains_with_two_others(
        self, dataset: DailyPanelDataset, path: str, kwargs: dict[str, Any]
    ) -> None:
        model = MultiTaskModel(
            backbone={"class": "qlib_ext.model.backbones.lstm.LSTM", "kwargs": {"hidden_size": 4}},
            tasks=copy.deepcopy(TASKS),
            balancer={"class": f"qlib_ext.model.balancers.{path}", "kwargs": kwargs},
            trainer={"n_epochs": 3, "learning_rate": 1e-2},
            checkpoint_dir=None,
            device="cpu",
        )
        model.fit(dataset)
        for task in TASKS:
            losses = [record[f"train/loss/{task}"] for record in model.history]
            assert np.isfinite(losses).all()
            assert losses[-1] != losses[0]
        found = model.predict(dataset)
        names = ["score", *(f"momentum_{c}" for c in range(5)), "rise_0", "rise_1"]
        assert list(found) == names
        assert np.isfinite(found).all(axis=None)
        np.testing.assert_allclose(found[["rise_0", "rise_1"]].sum(axis=1), 1, rtol=1e-5)
        assert {"valid/accuracy/momentum", "valid/accuracy/rise"} <= set(model.history[0])
