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
from qlib_ext.data.handlers.panel import PanelHandler
from qlib_ext.data.processors.momentum_line import MomentumLine
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.market.store import QlibStore, StoreError
from tests.data.conftest import alpha360, handler_kwargs
from tests.data.untradable import untradable

LABELS = ["RETURN", "NEXT_RETURN", "MOMENTUM", "MOMENTUM_PERSISTENCE"]


@pytest.fixture(scope="module")
def make(qlib_reads_the_store: None, tiny: Any) -> Callable[..., PanelHandler]:
    def of(**changes: Any) -> PanelHandler:
        return PanelHandler(**(handler_kwargs(tiny) | changes))

    return of


@pytest.fixture(scope="module")
def handler(make: Callable[..., PanelHandler]) -> PanelHandler:
    return make()


class TestRows:
    def test_a_row_is_a_member_with_a_close(self, handler: PanelHandler, tiny: Any) -> None:
        index = handler.fetch(col_set="label").index
        assert index.names == ["datetime", "instrument"]
        assert list(index) == [(day, code) for day, codes in tiny.members().items() for code in codes]

    def test_a_range_limits_the_rows_and_not_what_labels_know(
        self, handler: PanelHandler, make: Callable[..., PanelHandler], tiny: Any
    ) -> None:
        part = make(start_time=tiny.day(30), end_time=tiny.day(60))
        expected = handler.fetch(slice(tiny.day(30), tiny.day(60)), col_set="label")
        pd.testing.assert_frame_equal(part.fetch(col_set="label"), expected)


class TestLabels:
    def test_raw_labels_are_those_of_qlib(
        self, handler: PanelHandler, qlib_table: Callable[..., pd.DataFrame]
    ) -> None:
        found = handler.fetch(col_set="label", data_key=DataHandlerLP.DK_R)
        expected = qlib_table()["label"].reindex(found.index)
        assert list(found.columns) == LABELS
        pd.testing.assert_frame_equal(found[LABELS[:2]], expected[LABELS[:2]], rtol=1e-6)

    def test_returns_against_a_plain_loop(self, handler: PanelHandler, tiny: Any) -> None:
        found = handler.fetch(col_set="label")
        close = pd.DataFrame(tiny.bars["close"].astype(np.float32), tiny.calendar, tiny.codes)
        for (day, code), row in found.iloc[::5].iterrows():
            t = tiny.calendar.get_loc(day)
            p = dict(enumerate(close[code]))
            assert row["RETURN"] == pytest.approx(
                p.get(t + 2, np.nan) / p.get(t + 1, np.nan) - 1, abs=1e-6, nan_ok=True
            )
            assert row["NEXT_RETURN"] == pytest.approx(p.get(t + 1, np.nan) / p[t] - 1, abs=1e-6, nan_ok=True)

    def test_raw_and_inference_labels_are_one_table(self, handler: PanelHandler) -> None:
        raw, infer = (handler.fetch(col_set="label", data_key=key) for key in ("raw", "infer"))
        pd.testing.assert_frame_equal(raw, infer)

    def test_training_sees_the_ranked_return_and_the_rest_as_it_is(self, handler: PanelHandler) -> None:
        raw, learn = (handler.fetch(col_set="label", data_key=key) for key in ("raw", "learn"))
        pd.testing.assert_frame_equal(raw[LABELS[1:]], learn[LABELS[1:]])
        ranks = raw["RETURN"].groupby("datetime").rank(pct=True)
        np.testing.assert_allclose(learn["RETURN"], (ranks - 0.5) * 3.46, rtol=1e-5, atol=1e-6)

    def test_labels_and_processors_of_ones_own(self, make: Callable[..., PanelHandler]) -> None:
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

    def test_how_far_the_default_labels_look(self, handler: PanelHandler) -> None:
        assert handler.horizon_days == 2


class TestFetch:
    def test_features_are_gathered_for_the_rows_asked_for(self, handler: PanelHandler, tiny: Any) -> None:
        whole = handler.fetch(col_set="feature")
        assert whole.shape == (len(handler.fetch(col_set="label")), 360)
        assert set(whole.dtypes) == {np.dtype(np.float32)}
        assert np.isfinite(whole.to_numpy()).all()
        part = handler.fetch(slice(tiny.day(100), tiny.day(110)), col_set="feature")
        pd.testing.assert_frame_equal(part, whole.loc[tiny.day(100) : tiny.day(110)])

    def test_rows_in_any_order_get_their_own_features(self, handler: PanelHandler) -> None:
        whole = handler.fetch(col_set="feature")
        shuffled = np.random.default_rng(0).permutation(len(whole))
        pd.testing.assert_frame_equal(handler.feature_table(whole.index[shuffled]), whole.iloc[shuffled])

    @pytest.mark.parametrize("col_set", [DataHandler.CS_ALL, DataHandler.CS_RAW, ["feature", "label"]])
    def test_both(self, col_set: Any, handler: PanelHandler, tiny: Any) -> None:
        day = slice(tiny.day(100), tiny.day(100))
        both = handler.fetch(day, col_set=col_set)
        pd.testing.assert_frame_equal(both["feature"], handler.fetch(day, col_set="feature"))
        pd.testing.assert_frame_equal(both["label"], handler.fetch(day, col_set="label"))

    def test_anything_else_is_refused(self, handler: PanelHandler) -> None:
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
            (alpha360(fields=["close", "turnover"]), r"no field `turnover` \(features/\*/turnover.day.bin\)"),
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
            (alpha360(lookback_days=0), "`lookback_days` must be at least 1, found 0"),
        ],
    )
    def test_one_message_says_what_is_wrong(
        self, changes: dict[str, Any], message: str, make: Callable[..., PanelHandler]
    ) -> None:
        with pytest.raises(UserError, match=message):
            make(**changes)

    def test_an_optional_field_may_be_missing(self, make: Callable[..., PanelHandler]) -> None:
        handler = make(**alpha360(fields=["close", "turnover"], optional_fields=["turnover"]))
        assert handler.panel.missing_fields == ("turnover",)
        assert (handler.fetch(col_set="feature").filter(like="TURNOVER") == 0).all(axis=None)

    def test_a_field_that_only_others_have_is_missing(
        self,
        make: Callable[..., PanelHandler],
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


class TestTradablePrices:
    @pytest.fixture
    def traded(self, tiny: Any, tmp_path: Path, use: Callable[[Path], None]) -> None:
        use(untradable(tiny).write(tmp_path / "store"))

    def test_windows_change_and_neither_rows_nor_labels_do(
        self, traded: None, make: Callable[..., PanelHandler], tmp_path: Path
    ) -> None:
        cache = {"cache": tmp_path / "cache"}
        off, on = make(**cache), make(tradable_prices="cn", **cache)
        again = make(tradable_prices="cn", **cache)
        ours, theirs = (x.fetch(col_set="feature") for x in (on, off))
        assert ours.index.equals(theirs.index)
        assert not ours.equals(theirs)
        pd.testing.assert_frame_equal(on.fetch(col_set="label"), off.fetch(col_set="label"))
        pd.testing.assert_frame_equal(again.fetch(col_set="feature"), ours)
        assert off.notes() == []
        assert again.notes() == on.notes()
        assert any("no price at which nobody could trade" in note for note in on.notes())
        assert len(list((tmp_path / "cache" / "panels").iterdir())) == 2

    def test_the_mark_is_a_field(self, traded: None, make: Callable[..., PanelHandler]) -> None:
        mark = {
            "class": "qlib_ext.features.expressions.Expressions",
            "kwargs": {"expressions": {"TRADABLE": "$tradable"}, "normalise": "none", "lookback_days": 4},
        }
        both = {"class": "qlib_ext.features.union.Union"}
        both["kwargs"] = {"members": [alpha360(lookback_days=4)["features"], mark]}  # type: ignore[assignment]
        handler = make(features=both, tradable_prices="cn")
        table = handler.fetch(col_set="feature")
        assert set(np.unique(table["TRADABLE_LAG0"])) == {0.0, 1.0}
        with pytest.raises(StoreError, match="no field `tradable`"):
            make(features=both)

    def test_it_names_rules(self, make: Callable[..., PanelHandler]) -> None:
        assert make(tradable_prices="off", init_data=False).rules is None
        with pytest.raises(UserError, match="`tradable_prices` must name the exchange's rules, such as cn"):
            make(tradable_prices=True)
        with pytest.raises(UserError, match="`rules` must be one of cn, us"):
            make(tradable_prices="mars")

    def test_a_store_must_tell_who_traded(
        self, tiny: Any, tmp_path: Path, use: Callable[[Path], None], make: Callable[..., PanelHandler]
    ) -> None:
        use(tiny.without("low").write(tmp_path / "store"))
        only = alpha360(fields=["close", "volume"], optional_fields=[])
        with pytest.raises(StoreError, match="no field `low`"):
            make(tradable_prices="cn", **only)


class TestAgainstQlib:
    """Qlib's Alpha360 with RobustZScoreNorm(clip_outlier=True) and Fillna, on the same store."""

    def test_same_numbers(
        self, qlib_table: Callable[..., pd.DataFrame], dataset: DailyPanelDataset, panel: MarketPanel
    ) -> None:
        self.check(qlib_table()["feature"], dataset)
        theirs = qlib_table().index
        only_qlib = theirs.difference(dataset.handler.fetch(col_set="label").index)
        close = pd.DataFrame(panel.field("close"), panel.calendar, panel.instruments).stack(future_stack=True)
        assert len(only_qlib) > 50
        assert close.reindex(only_qlib).isna().all()  # Qlib alone has rows of members without a close

    @pytest.mark.filterwarnings("ignore:All-NaN slice")  # Qlib's, of the field that is not there
    def test_same_numbers_without_vwap(
        self,
        qlib_table: Callable[..., pd.DataFrame],
        make_dataset: Callable[..., DailyPanelDataset],
        tiny: Any,
        tmp_path: Any,
        use: Callable[[Any], None],
    ) -> None:
        expected = qlib_table(vwap=False)["feature"]
        use(tiny.without("vwap").write(tmp_path / "store"))
        dataset = make_dataset()
        self.check(expected, dataset)
        table = dataset.handler.fetch(col_set="feature")
        assert (table.filter(like="VWAP") == 0).all(axis=None)

    @staticmethod
    def check(expected: pd.DataFrame, dataset: DailyPanelDataset) -> None:
        table = dataset.handler.fetch(col_set="feature")
        assert len(table) > 1400
        assert table.index.isin(expected.index).all()
        assert list(table.columns) == list(expected.columns)
        difference = (table - expected.reindex(table.index)).abs()
        assert difference.max(axis=None) < 2e-4
        assert difference.mean(axis=None) < 1e-6
        for name in dataset.days:  # the day's window is the table's row
            panels = dataset.panels(name)
            for day in (panels[0], panels[len(panels) - 1]):
                theirs = table.loc[day.date].to_numpy().reshape(len(day), 6, 60).transpose(0, 2, 1)
                np.testing.assert_array_equal(day.features, theirs)


def test_a_handler_may_be_given_ready_made(handler: PanelHandler, tiny: Any) -> None:
    dataset = DailyPanelDataset(handler, {"test": tiny.dates("test")})
    assert dataset.handler is handler
