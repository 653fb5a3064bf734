from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from qlib.data.dataset.handler import DataHandler, DataHandlerLP

from qlib_ext.checks import UserError
from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.data.handlers.alpha360_panel import Alpha360Panel
from qlib_ext.data.handlers.panel import require
from qlib_ext.data.processors.momentum_line import MomentumLine
from qlib_ext.market.store import QlibStore, StoreError

LABELS = ["RETURN", "NEXT_RETURN", "MOMENTUM", "MOMENTUM_PERSISTENCE"]


@pytest.fixture(scope="module")
def make(qlib_reads_the_store: None, tiny: Any) -> Callable[..., Alpha360Panel]:
    fit_start, fit_end = tiny.dates("train")

    def of(**changes: Any) -> Alpha360Panel:
        arguments = {"instruments": "few", "fit_start_time": fit_start, "fit_end_time": fit_end}
        return Alpha360Panel(**(arguments | changes))

    return of


@pytest.fixture(scope="module")
def handler(make: Callable[..., Alpha360Panel]) -> Alpha360Panel:
    return make()


class TestRows:
    def test_a_row_is_a_member_with_a_close(self, handler: Alpha360Panel, tiny: Any) -> None:
        index = handler.fetch(col_set="label").index
        assert index.names == ["datetime", "instrument"]
        assert list(index) == [(day, code) for day, codes in tiny.members().items() for code in codes]

    def test_a_range_limits_the_rows_and_not_what_labels_know(
        self, handler: Alpha360Panel, make: Callable[..., Alpha360Panel], tiny: Any
    ) -> None:
        part = make(start_time=tiny.day(30), end_time=tiny.day(60))
        expected = handler.fetch(slice(tiny.day(30), tiny.day(60)), col_set="label")
        pd.testing.assert_frame_equal(part.fetch(col_set="label"), expected)


class TestLabels:
    def test_raw_labels_are_those_of_qlib(
        self, handler: Alpha360Panel, qlib_table: Callable[..., pd.DataFrame]
    ) -> None:
        found = handler.fetch(col_set="label", data_key=DataHandlerLP.DK_R)
        expected = qlib_table()["label"].reindex(found.index)
        assert list(found.columns) == LABELS
        pd.testing.assert_frame_equal(found[LABELS[:2]], expected[LABELS[:2]], rtol=1e-6)

    def test_returns_against_a_plain_loop(self, handler: Alpha360Panel, tiny: Any) -> None:
        found = handler.fetch(col_set="label")
        close = pd.DataFrame(tiny.bars["close"].astype(np.float32), tiny.calendar, tiny.codes)
        for (day, code), row in found.iloc[::5].iterrows():
            t = tiny.calendar.get_loc(day)
            p = dict(enumerate(close[code]))
            assert row["RETURN"] == pytest.approx(
                p.get(t + 2, np.nan) / p.get(t + 1, np.nan) - 1, abs=1e-6, nan_ok=True
            )
            assert row["NEXT_RETURN"] == pytest.approx(p.get(t + 1, np.nan) / p[t] - 1, abs=1e-6, nan_ok=True)

    def test_raw_and_inference_labels_are_one_table(self, handler: Alpha360Panel) -> None:
        raw, infer = (handler.fetch(col_set="label", data_key=key) for key in ("raw", "infer"))
        pd.testing.assert_frame_equal(raw, infer)

    def test_training_sees_the_ranked_return_and_the_rest_as_it_is(self, handler: Alpha360Panel) -> None:
        raw, learn = (handler.fetch(col_set="label", data_key=key) for key in ("raw", "learn"))
        pd.testing.assert_frame_equal(raw[LABELS[1:]], learn[LABELS[1:]])
        ranks = raw["RETURN"].groupby("datetime").rank(pct=True)
        np.testing.assert_allclose(learn["RETURN"], (ranks - 0.5) * 3.46, rtol=1e-5, atol=1e-6)

    def test_labels_and_processors_of_ones_own(self, make: Callable[..., Alpha360Panel]) -> None:
        own = make(
            labels={"WEEK": "Ref($close, -6) / Ref($close, -1) - 1"},
            infer_processors=[MomentumLine(name="LINE", horizon_days=1)],
            learn_processors=[
                {
                    "class": "qlib_ext.data.processors.cross_section_norm.CrossSectionNorm",
                    "kwargs": {"columns": ["WEEK"], "method": "zscore"},
                }
            ],
        )
        assert own.horizon_days == 6
        assert list(own.fetch(col_set="label").columns) == ["WEEK", "LINE", "LINE_PERSISTENCE"]
        learn = own.fetch(col_set="label", data_key="learn")["WEEK"].groupby("datetime")
        counted = learn.count() > 1
        np.testing.assert_allclose(learn.std()[counted], 1, rtol=1e-4)
        np.testing.assert_allclose(learn.mean()[counted], 0, atol=1e-5)

    def test_how_far_the_default_labels_look(self, handler: Alpha360Panel) -> None:
        assert handler.horizon_days == 2


class TestFetch:
    def test_features_are_gathered_for_the_rows_asked_for(self, handler: Alpha360Panel, tiny: Any) -> None:
        whole = handler.fetch(col_set="feature")
        assert whole.shape == (len(handler.fetch(col_set="label")), 360)
        assert set(whole.dtypes) == {np.dtype(np.float32)}
        assert np.isfinite(whole.to_numpy()).all()
        part = handler.fetch(slice(tiny.day(100), tiny.day(110)), col_set="feature")
        pd.testing.assert_frame_equal(part, whole.loc[tiny.day(100) : tiny.day(110)])

    def test_rows_in_any_order_get_their_own_features(self, handler: Alpha360Panel) -> None:
        whole = handler.fetch(col_set="feature")
        shuffled = np.random.default_rng(0).permutation(len(whole))
        pd.testing.assert_frame_equal(handler.feature_table(whole.index[shuffled]), whole.iloc[shuffled])

    @pytest.mark.parametrize("col_set", [DataHandler.CS_ALL, DataHandler.CS_RAW, ["feature", "label"]])
    def test_both(self, col_set: Any, handler: Alpha360Panel, tiny: Any) -> None:
        day = slice(tiny.day(100), tiny.day(100))
        both = handler.fetch(day, col_set=col_set)
        pd.testing.assert_frame_equal(both["feature"], handler.fetch(day, col_set="feature"))
        pd.testing.assert_frame_equal(both["label"], handler.fetch(day, col_set="label"))

    def test_anything_else_is_refused(self, handler: Alpha360Panel) -> None:
        with pytest.raises(UserError, match="`col_set` must be feature, label or both, found 'features'"):
            handler.fetch(col_set="features")


class TestErrors:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"fit_start_time": "2019-01-01", "fit_end_time": "2018-01-01"},
                "`fit_start_time` must not lie after",
            ),
            (
                {"fit_start_time": "2030-01-01", "fit_end_time": "2031-01-01"},
                "the days to fit on hold no stock",
            ),
            (
                {"instruments": "csi300"},
                r"no universe `csi300` \(instruments/csi300.txt\); it has all, few, ghosts",
            ),
            (
                {"instruments": "ghosts"},
                "has bars of no instrument that instruments/ghosts.txt names; Point QLIB_DATA",
            ),
            ({"fields": ["close", "turnover"]}, r"no field `turnover` \(features/\*/turnover.day.bin\)"),
            (
                {"labels": {}, "infer_processors": [], "learn_processors": []},
                "`labels` must name at least one label",
            ),
            ({"labels": {"RETURN": "Reff($close, -1)"}}, "is no Qlib expression"),
            ({"labels": {"RETURN": "$factor"}}, "needs the field `factor`; the panel has close, open"),
            (
                {"infer_processors": [{"class": "MomentumLine"}]},
                r"`infer_processors\[0\].class` must be a dotted class",
            ),
            (
                {"learn_processors": [{"class": "qlib_ext.checks.UserError"}]},
                r"learn_processors\[0\].class` must be a Processor",
            ),
            ({"lookback_days": 0}, "`lookback_days` must be at least 1, found 0"),
        ],
    )
    def test_one_message_says_what_is_wrong(
        self, changes: dict[str, Any], message: str, make: Callable[..., Alpha360Panel]
    ) -> None:
        with pytest.raises(UserError, match=message):
            make(**changes)

    def test_an_optional_field_may_be_missing(self, make: Callable[..., Alpha360Panel]) -> None:
        handler = make(fields=["close", "turnover"], optional_fields=["turnover"])
        assert handler.panel.missing_fields == ("turnover",)
        assert (handler.fetch(col_set="feature").filter(like="TURNOVER") == 0).all(axis=None)

    def test_a_field_that_only_others_have_is_missing(
        self,
        make: Callable[..., Alpha360Panel],
        store: QlibStore,
        tmp_path: Path,
        use: Callable[[Path], None],
    ) -> None:
        shutil.copytree(store.root, tmp_path / "store")
        for path in (tmp_path / "store" / "features").glob("*/open.day.bin"):
            if path.parent.name != "sh000300":
                path.unlink()
        use(tmp_path / "store")
        with pytest.raises(StoreError, match="has no `open` of any member of `few`; Point QLIB_DATA"):
            make()


class TestRequire:
    def test_all_that_is_missing_stands_in_one_message(self, store: QlibStore) -> None:
        with pytest.raises(StoreError) as error:
            require(
                store, universe="csi300", fields=["close", "amount"], instruments=["SH600000", "sh000903"]
            )
        message = str(error.value)
        assert str(store.root) in message
        assert "no universe `csi300`" in message
        assert "no field `amount`" in message
        assert "no bars of the benchmark `sh000903` (features/sh000903/)" in message
        assert "`qlib-ext data sample --out DIR`" in message
        assert "`close`" not in message
        assert "SH600000" not in message

    def test_a_field_of_a_single_stock_is_there(self, tiny: Any, tmp_path: Path) -> None:
        root = tiny.write(tmp_path / "store").root
        for path in (root / "features").glob("*/vwap.day.bin"):
            if path.parent.name != "sh600007":
                path.unlink()
        require(QlibStore(root), fields=["vwap"])
        (root / "features" / "sh600007" / "vwap.day.bin").unlink()
        with pytest.raises(StoreError, match="no field `vwap`"):
            require(QlibStore(root), fields=["vwap"])


def test_a_handler_may_be_given_ready_made(handler: Alpha360Panel, tiny: Any) -> None:
    dataset = DailyPanelDataset(handler, {"test": tiny.dates("test")})
    assert dataset.handler is handler
