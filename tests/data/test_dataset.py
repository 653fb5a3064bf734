from __future__ import annotations

import json
import logging
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from qlib.data.dataset.handler import DataHandlerLP

from qlib_ext.checks import UserError
from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.market.store import QlibStore, StoreError
from tests.data.conftest import alpha360

Make = Callable[..., DailyPanelDataset]


def dates(tiny: Any, *positions: int) -> list[str]:
    return [tiny.day(position) for position in positions]


class TestSegments:
    def test_days_are_those_between_the_dates_that_hold_stocks(
        self, dataset: DailyPanelDataset, tiny: Any
    ) -> None:
        members = tiny.members()
        for name, (first, last) in tiny.segments.items():
            purged = dataset.purged_days[name]
            expected = [day for day in tiny.calendar[first : last + 1] if members[day]]
            assert list(dataset.panels(name).dates) == expected[: len(expected) - purged]

    def test_segments_may_be_in_any_order_and_of_any_name(self, make_dataset: Make, tiny: Any) -> None:
        dataset = make_dataset(segments={"later": dates(tiny, 150, 170), "before": dates(tiny, 20, 149)})
        assert dataset.purged_days == {"later": 0, "before": 2}
        assert dataset.panels("before").dates[-1] == tiny.calendar[147]

    def test_dates_may_be_what_yaml_makes_of_them(self, make_dataset: Make, tiny: Any) -> None:
        given = {"test": [tiny.calendar[160].date(), tiny.calendar[180].to_pydatetime()]}
        assert len(make_dataset(segments=given).panels("test")) == 21

    def test_a_segment_beyond_the_store_uses_what_is_there_and_says_so(
        self, make_dataset: Make, tiny: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, logger="qlib_ext"):
            dataset = make_dataset(
                segments={"train": ["2007-01-01", tiny.day(119)], "test": [tiny.day(160), "2030-01-01"]}
            )
        asked = [
            f"`train` asks for 2007-01-01 to {tiny.day(119)}",
            f"`test` asks for {tiny.day(160)} to 2030-01-01",
        ]
        given = [
            f"{tiny.day(0)} to {tiny.day(119)} (120 days)",
            f"{tiny.day(160)} to {tiny.day(199)} (40 days)",
        ]
        assert dataset.notes == [
            f"segment {a}; the store gives {g}" for a, g in zip(asked, given, strict=True)
        ]
        assert [record.message for record in caplog.records] == dataset.notes
        assert dataset.describe()["segments"]["train"]["asked_start"] == "2007-01-01"

    def test_a_holiday_at_an_end_is_no_note(self, make_dataset: Make, tiny: Any) -> None:
        end = tiny.calendar[-1] + pd.Timedelta(days=4)
        assert make_dataset(segments={"test": [tiny.day(160), end]}).notes == []

    def test_the_handlers_range_limits_segments(self, make_dataset: Make, tiny: Any) -> None:
        dataset = make_dataset({"end_time": tiny.day(179)})
        assert dataset.panels("test").dates[-1] == tiny.calendar[179]
        assert len(dataset.prepare("test", col_set="label", data_key="raw")) == len(
            dataset.panels("test").index()
        )
        with pytest.raises(
            UserError, match=f"segment `test` .* holds no day .*{tiny.day(0)} to {tiny.day(150)}"
        ):
            make_dataset({"end_time": tiny.day(150)})

    def test_statistics_of_other_days_than_train_are_a_note(self, make_dataset: Make, tiny: Any) -> None:
        (note,) = make_dataset({"fit_end_time": tiny.day(130)}).notes
        assert note.startswith(f"features are normalised by statistics of {tiny.day(0)} to {tiny.day(130)}")
        assert "`valid`" in note


class TestStretches:
    """A training with a hole, in which the test lies, as in a split of a cross-validation."""

    @pytest.fixture
    def holed(self, make_dataset: Make, tiny: Any) -> DailyPanelDataset:
        train = [dates(tiny, 10, 60), dates(tiny, 120, 180)]
        segments = {"train": train, "test": dates(tiny, 64, 110)}
        handler = {"fit_start_time": None, "fit_end_time": None}
        return make_dataset(handler, segments=segments, judging=True)

    def test_panels_and_tables_have_its_days_alone(self, holed: DailyPanelDataset, tiny: Any) -> None:
        members = tiny.members()
        expected = [day for k in (*range(10, 61), *range(120, 181)) if members[day := tiny.calendar[k]]]
        assert [*holed.panels("train").dates] == expected
        for key in (DataHandlerLP.DK_L, DataHandlerLP.DK_I):
            table = holed.prepare("train", col_set=["feature", "label"], data_key=key)
            days = table.index.unique("datetime")
            assert {*days} <= {*expected}
            assert len(days) > 0.9 * len(expected)
            assert table.index.is_unique

    def test_features_are_fitted_without_the_hole(self, holed: DailyPanelDataset, tiny: Any) -> None:
        fitted = tiny.calendar[holed.handler.fit_days()]
        assert [*fitted] == [tiny.calendar[k] for k in (*range(10, 61), *range(120, 181))]
        panel = holed.handler.panel
        bars = panel.field("close")
        today = np.where(panel.present, bars, np.nan)[1:]
        ratio = (bars[:-1] / today)[holed.handler.fit_days()[1:]]  # of yesterday's close to today's
        place = holed.handler.features.names.index("close")
        assert holed.handler.features.median[-2, place] == pytest.approx(np.nanmedian(ratio), rel=1e-6)
        assert holed.notes == []

    def test_it_says_what_it_is_made_of(self, holed: DailyPanelDataset, tiny: Any) -> None:
        told = holed.describe()["segments"]
        assert told["train"]["stretches"] == [dates(tiny, 10, 60), dates(tiny, 120, 180)]
        assert "stretches" not in told["test"]
        assert len(holed.identity()["fit"]) == 4

    def test_fitted_days_are_named_once(self, make_dataset: Make, tiny: Any) -> None:
        with pytest.raises(UserError, match="`fit_spans` takes the place of"):
            make_dataset({"fit_spans": [dates(tiny, 0, 10)]})
        with pytest.raises(UserError, match="`fit_spans` must be in the order of time"):
            make_dataset(
                {
                    "fit_start_time": None,
                    "fit_end_time": None,
                    "fit_spans": [dates(tiny, 9, 20), dates(tiny, 3, 5)],
                }
            )


class TestPurge:
    def test_labels_of_a_segment_read_no_day_of_the_next(self, dataset: DailyPanelDataset, tiny: Any) -> None:
        assert dataset.purged_days == {"train": 2, "valid": 2, "test": 0}
        for name, following in (("train", "valid"), ("valid", "test")):
            last = tiny.calendar.get_loc(dataset.panels(name).dates[-1])
            first = tiny.calendar.get_loc(dataset.panels(following).dates[0])
            assert last + dataset.handler.horizon_days == first - 1

    @pytest.mark.parametrize(("gap", "purged"), [(0, 2), (1, 1), (2, 0), (30, 0)])
    def test_only_where_labels_reach_that_far(
        self, gap: int, purged: int, make_dataset: Make, tiny: Any
    ) -> None:
        segments = {"train": dates(tiny, 0, 100), "test": dates(tiny, 101 + gap, 199)}
        dataset = make_dataset(segments=segments)
        assert dataset.purged_days == {"train": purged, "test": 0}
        assert len(dataset.panels("train")) == 101 - purged

    def test_a_longer_label_purges_more(self, make_dataset: Make) -> None:
        dataset = make_dataset({"labels": {"RETURN": "Ref($close, -6) / Ref($close, -1) - 1"}})
        assert dataset.purged_days == {"train": 6, "valid": 6, "test": 0}

    def test_not_on_request(self, make_dataset: Make) -> None:
        dataset = make_dataset(purge=False)
        assert dataset.purged_days == {"train": 0, "valid": 0, "test": 0}
        assert [len(dataset.panels(name)) for name in dataset.segments] == [120, 40, 40]

    def test_a_segment_of_which_nothing_is_left_is_an_error(self, make_dataset: Make, tiny: Any) -> None:
        segments = {"train": dates(tiny, 0, 1), "test": dates(tiny, 2, 199)}
        with pytest.raises(
            UserError, match="segment `train` has 2 days, and the labels of all of them reach"
        ):
            make_dataset(segments=segments)
        assert len(make_dataset(segments=segments, purge=False).panels("train")) == 2


class TestErrors:
    @pytest.mark.parametrize(
        ("segments", "message"),
        [
            ({}, "`segments` must name at least one segment, found none"),
            (
                {"test": ["2018-05-01", "2018-04-01"]},
                "`test` must not end before it begins, found 2018-05-01 to",
            ),
            (
                {"train": ["2018-01-01", "2018-05-01"], "test": ["2018-05-01", "2018-06-01"]},
                "segments `train` and `test` overlap: give each its own days",
            ),
            ({"test": "2018-01-01"}, "segment `test` must be a pair of dates, found '2018-01-01'"),
            ({"test": ["2018-01-01"]}, "segment `test` must be a pair of dates"),
            (
                {"test": ["2018-01-01", "soon"]},
                r"`segments.test.*` must be a day such as 2014-12-31, found 'soon'",
            ),
            (
                {"test": ["2018-01-01", None]},
                r"segment `test` must have a first and a last day, found .*None",
            ),
            (
                {"test": ["2030-01-01", "2031-01-01"]},
                r"segment `test` .* holds no day of the universe `few` in the store .* \(2018-01-01 to 2018-10-05\)",
            ),
        ],
    )
    def test_of_segments(self, segments: dict[str, Any], message: str, make_dataset: Make) -> None:
        with pytest.raises(UserError, match=message):
            make_dataset(segments=segments)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"benchmark": "SH000905"}, r"no bars of the benchmark `SH000905` \(features/sh000905/\)"),
            ({"record_fields": ["factor"]}, r"no field `factor` \(features/\*/factor.day.bin\)"),
            ({"handler": {"instruments": "csi300"}}, "no universe `csi300` .*; it has all, few, ghosts"),
            (
                {"handler": alpha360(fields=["close", "money"])},
                r"no field `money` \(features/\*/money.day.bin\)",
            ),
        ],
    )
    def test_what_the_store_lacks_is_named_with_the_way_out(
        self, changes: dict[str, Any], message: str, make_dataset: Make, store: QlibStore
    ) -> None:
        with pytest.raises(StoreError, match=message) as error:
            make_dataset(**changes)
        assert str(store.root) in str(error.value)
        assert "QLIB_DATA" in str(error.value)
        assert "`qlib-ext data sample --out DIR`" in str(error.value)

    def test_a_missing_directory_is_named_with_the_way_out(
        self, make_dataset: Make, tmp_path: Path, use: Callable[[Path], None]
    ) -> None:
        use(tmp_path / "nowhere")
        with pytest.raises(StoreError, match=r"found no directory at `.*nowhere`") as error:
            make_dataset()
        assert "qlib-ext data sample --out DIR" in str(error.value)
        assert "qlib-ext data download --out DIR" in str(error.value)

    def test_the_store_is_checked_before_anything_is_loaded(
        self, make_dataset: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(QlibStore, "read", lambda *args: pytest.fail("bars were read"))
        with pytest.raises(StoreError, match="SH000905"):
            make_dataset(benchmark="SH000905")
        with pytest.raises(StoreError, match="csi300"):
            make_dataset({"instruments": "csi300"})

    def test_table_labels_must_be_labels(self, make_dataset: Make) -> None:
        with pytest.raises(
            UserError, match=r"`table_labels` must be one of .*, found 'RETURNS' \(did you mean RETURN"
        ):
            make_dataset(table_labels=["RETURNS"])

    def test_an_unknown_segment_is_named(self, dataset: DailyPanelDataset) -> None:
        with pytest.raises(UserError, match="`segment` must be one of train, valid, test, found 'tests'"):
            dataset.panels("tests")


class TestPrepare:
    def test_raw_labels_have_the_rows_that_are_scored(self, dataset: DailyPanelDataset) -> None:
        for name in dataset.segments:
            raw = dataset.prepare(name, col_set="label", data_key=DataHandlerLP.DK_R)
            assert list(raw.columns) == list(dataset.label_names)
            assert raw.index.equals(dataset.panels(name).index())

    def test_the_table_to_learn_from(self, dataset: DailyPanelDataset) -> None:
        learn = dataset.prepare("train", col_set=["feature", "label"], data_key=DataHandlerLP.DK_L)
        panels = dataset.panels("train")
        features = np.concatenate(
            [day.features.transpose(1, 2).reshape(len(day), -1).numpy() for day in panels]
        )
        label = np.concatenate([day.labels["RETURN"].numpy() for day in panels])
        there = ~np.isnan(label)
        assert 0 < (~there).sum() < 100
        assert list(learn["label"].columns) == ["RETURN"]
        assert learn.index.equals(panels.index()[there])
        np.testing.assert_array_equal(learn["feature"], features[there])
        np.testing.assert_allclose(learn["label", "RETURN"], label[there], rtol=1e-6)

    def test_parts_of_the_table_to_learn_from(self, dataset: DailyPanelDataset) -> None:
        whole = dataset.prepare("valid", col_set=["feature", "label"], data_key="learn")
        for part in ("feature", "label"):
            pd.testing.assert_frame_equal(
                dataset.prepare("valid", col_set=part, data_key="learn"), whole[part]
            )

    def test_the_labels_of_the_table_are_chosen(self, make_dataset: Make) -> None:
        dataset = make_dataset(table_labels=["MOMENTUM", "NEXT_RETURN"])
        label = dataset.prepare("train", col_set="label", data_key="learn")
        assert list(label.columns) == ["MOMENTUM", "NEXT_RETURN"]
        assert label.notna().all(axis=None)

    def test_the_table_to_predict_with(self, dataset: DailyPanelDataset) -> None:
        infer = dataset.prepare("test", col_set="feature", data_key=DataHandlerLP.DK_I)
        panels = dataset.panels("test")
        assert infer.index.equals(panels.index())
        for day in panels:
            expected = day.features.transpose(1, 2).reshape(len(day), -1)
            np.testing.assert_array_equal(infer.loc[day.date], expected)

    def test_several_at_once(self, dataset: DailyPanelDataset) -> None:
        both = dataset.prepare(["train", "valid"], col_set="label", data_key="learn")
        for name, label in zip(["train", "valid"], both, strict=True):
            pd.testing.assert_frame_equal(label, dataset.prepare(name, col_set="label", data_key="learn"))

    def test_dates_instead_of_a_name(self, dataset: DailyPanelDataset, tiny: Any) -> None:
        label = dataset.prepare(slice(tiny.day(118), tiny.day(121)), col_set="label", data_key="raw")
        assert list(label.index.unique("datetime")) == list(tiny.calendar[118:122])


class TestDescription:
    def test_it_says_what_the_run_is_made_of(
        self, dataset: DailyPanelDataset, tiny: Any, store: QlibStore
    ) -> None:
        found = dataset.describe()
        assert json.loads(json.dumps(found)) == found
        assert found["universe"] == "few"
        assert found["benchmark"] == dataset.benchmark == "SH000300"
        assert found["fingerprint"] == store.fingerprint()
        assert (found["store_start"], found["store_end"]) == (tiny.day(0), tiny.day(199))
        assert found["instruments"] == 10
        assert found["instruments_without_bars"] == 1
        assert found["missing_fields"] == found["notes"] == []
        assert found["label_horizon_days"] == 2
        assert str(store.root) not in json.dumps(found)
        members = tiny.members()
        for name, (first, last) in tiny.segments.items():
            purged = 0 if name == "test" else 2
            days = tiny.calendar[first : last + 1 - purged]
            assert found["segments"][name] == {
                "asked_start": tiny.day(first),
                "asked_end": tiny.day(last),
                "start": f"{days[0]:%Y-%m-%d}",
                "end": f"{days[-1]:%Y-%m-%d}",
                "days": len(days),
                "rows": sum(len(members[day]) for day in days),
                "purged_days": purged,
            }

    def test_coverage(self, dataset: DailyPanelDataset, tiny: Any) -> None:
        found = dataset.coverage("valid")
        members = tiny.members()
        spells = tiny.memberships["few"]
        with_bars = spells[spells["instrument"].isin(tiny.codes)]
        for day, row in found.iterrows():
            assert row["scored"] == len(members[day])
            assert row["members"] == ((with_bars["start"] <= day) & (day <= with_bars["end"])).sum()
        assert list(found.index) == list(dataset.panels("valid").dates)
        assert found.index.name == "datetime"
        assert (found["scored"] < found["members"]).any()

    def test_a_missing_optional_field_is_told(
        self, make_dataset: Make, tiny: Any, tmp_path: Path, use: Callable[[Any], None]
    ) -> None:
        use(tiny.without("vwap").write(tmp_path / "store"))
        dataset = make_dataset()
        assert dataset.describe()["missing_fields"] == ["vwap"]
        assert dataset.notes == ["the store has no `vwap`: its features are 0, as under Qlib's processors"]
        vwap = dataset.handler.features.names.index("vwap")
        assert all((day.features[:, :, vwap] == 0).all() for day in dataset.panels("test"))


class TestIdentity:
    def test_equal_data_elsewhere_have_an_equal_identity(
        self,
        dataset: DailyPanelDataset,
        make_dataset: Make,
        store: QlibStore,
        tmp_path: Path,
        use: Callable[[Path], None],
    ) -> None:
        before = json.dumps(dataset.identity(), sort_keys=True)
        shutil.copytree(store.root, tmp_path / "elsewhere")
        use(tmp_path / "elsewhere")
        assert json.dumps(make_dataset().identity(), sort_keys=True) == before

    def test_one_other_price_is_another_identity(
        self,
        dataset: DailyPanelDataset,
        make_dataset: Make,
        tiny: Any,
        tmp_path: Path,
        use: Callable[[Any], None],
    ) -> None:
        changed = {name: bars.copy() for name, bars in tiny.bars.items()}
        changed["open"][7, 0] += 0.01
        use(
            type(tiny)(tiny.calendar, tiny.codes, changed, tiny.memberships, tiny.segments).write(
                tmp_path / "s"
            )
        )
        found, before = make_dataset().identity(), dataset.identity()
        assert {key for key in found if found[key] != before[key]} == {"fingerprint"}

    @pytest.mark.parametrize(
        "changes",
        [
            {"handler": {"fit_end_time": "2018-05-01"}},
            {"handler": alpha360(lookback_days=30)},
            {"handler": {"labels": {"RETURN": "Ref($close, -1) / $close - 1"}}},
            {"handler": {"infer_processors": []}},
            {"handler": {"tradable_prices": "cn"}},
            {
                "handler": {
                    "learn_processors": [
                        {
                            "class": "qlib_ext.data.processors.cross_section_norm.CrossSectionNorm",
                            "kwargs": {"method": "zscore"},
                        }
                    ]
                }
            },
            {"purge": False},
            {"segments": {"train": ["2018-01-01", "2018-06-15"]}},
        ],
    )
    def test_whatever_changes_the_numbers_changes_it(
        self, changes: dict[str, Any], dataset: DailyPanelDataset, make_dataset: Make
    ) -> None:
        assert make_dataset(**changes).identity() != dataset.identity()


class TestPickling:
    @pytest.fixture
    def pickled(self, make_dataset: Make) -> bytes:
        dataset = make_dataset()
        dataset.panels("test")  # what it keeps at hand must not travel
        return pickle.dumps(dataset)

    def test_it_travels_without_data_and_finds_them_again(
        self, pickled: bytes, dataset: DailyPanelDataset, panel: Any
    ) -> None:
        assert len(pickled) < min(30_000, panel.values.nbytes)
        again = pickle.loads(pickled)
        again.setup_data(handler_kwargs={"init_type": DataHandlerLP.IT_LS})
        assert again.identity() == dataset.identity()
        for name in dataset.segments:
            for ours, theirs in zip(dataset.panels(name), again.panels(name), strict=True):
                assert ours.date == theirs.date
                assert torch.equal(ours.features, theirs.features)
                torch.testing.assert_close(ours.labels, theirs.labels, rtol=0, atol=0, equal_nan=True)

    def test_on_a_longer_store_it_keeps_what_it_was_fitted_to(
        self,
        pickled: bytes,
        dataset: DailyPanelDataset,
        tiny: Any,
        tmp_path: Path,
        use: Callable[[Any], None],
    ) -> None:
        other = tiny.moved(slice(0, None)).write(tmp_path / "store")
        use(other)
        again = pickle.loads(pickled)
        again.setup_data(handler_kwargs={"init_type": DataHandlerLP.IT_LS})
        assert again.fingerprint == other.fingerprint() != dataset.fingerprint
        np.testing.assert_array_equal(again.handler.features.scale, dataset.handler.features.scale)
        assert not torch.equal(again.panels("test")[0].features, dataset.panels("test")[0].features)

    def test_new_segments_are_checked_and_take_effect(self, make_dataset: Make, tiny: Any) -> None:
        dataset = make_dataset()
        before = dataset.panels("test")[0]
        dataset.config(segments={"test": dates(tiny, 170, 180)})
        dataset.setup_data()
        assert list(dataset.panels("test").dates) == list(tiny.calendar[170:181])
        assert len(dataset.prepare("test", col_set="label")) == len(dataset.panels("test").index())
        assert before.date == tiny.calendar[160]
        dataset.config(segments={"test": dates(tiny, 180, 170)})
        with pytest.raises(UserError, match="must not end before it begins"):
            dataset.setup_data()

    def test_set_up_on_other_data_it_forgets_the_old(
        self, make_dataset: Make, tiny: Any, tmp_path: Path, use: Callable[[Any], None]
    ) -> None:
        dataset = make_dataset()
        before = dataset.panels("test")[5]
        use(tiny.moved(slice(0, None)).write(tmp_path / "store"))
        dataset.setup_data(handler_kwargs={"init_type": DataHandlerLP.IT_FIT_SEQ})
        after, fresh = dataset.panels("test")[5], make_dataset().panels("test")[5]
        assert torch.equal(after.features, fresh.features)
        assert not torch.equal(after.features, before.features)
        for label in fresh.labels:
            torch.testing.assert_close(
                after.labels[label], fresh.labels[label], rtol=0, atol=0, equal_nan=True
            )
        assert not torch.equal(after.raw_labels["NEXT_RETURN"], before.raw_labels["NEXT_RETURN"])


class TestMarketInMemory:
    def test_it_is_held_once_for_all_segments(self, dataset: DailyPanelDataset) -> None:
        held = {
            dataset.panels(name, device).padded.data_ptr()
            for name in dataset.segments
            for device in ("cpu", torch.device("cpu"))
        }
        assert len(held) == 1
