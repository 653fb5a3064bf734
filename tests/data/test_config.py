"""The arguments of a dataset alone, and what is known of it without data."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from qlib_ext.checks import UserError
from qlib_ext.data.config import DatasetConfig
from qlib_ext.data.dataset import DailyPanelDataset
from tests.data.conftest import alpha360, handler_kwargs

HANDLER = "qlib_ext.data.handlers.panel.PanelHandler"


@pytest.fixture
def arguments(tiny: Any) -> dict[str, Any]:
    return {
        "handler": {"class": HANDLER, "kwargs": handler_kwargs(tiny)},
        "segments": {name: list(tiny.dates(name)) for name in tiny.segments},
        "benchmark": "SH000300",
    }


class TestArguments:
    def test_no_store_is_needed_to_check_them(
        self, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(DatasetConfig, "open_store", lambda self: pytest.fail("a store was opened"))
        config = DatasetConfig.of(**arguments, table_labels=["RETURN"])
        assert config.table_labels == ("RETURN",)
        assert list(config.segments) == ["train", "valid", "test"]
        assert config.sources == {}

    def test_they_stay_as_they_are(self, arguments: dict[str, Any]) -> None:
        config = DatasetConfig.of(**arguments)
        with pytest.raises(dataclasses.FrozenInstanceError):
            config.purge = False  # type: ignore[misc]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"benchmrk": "SH000300"},
                r"no place for `benchmrk` \(did you mean benchmark\?\); DailyPanelDataset takes handler, segments,",
            ),
            ({"shares": (0.5, 0.25, 0.25)}, "no place for `shares`"),
            ({"handler": "alpha360"}, "`handler` must be a mapping with `class`"),
            ({"segments": {"split": [0.5, 0.5], "test": []}}, "makes all segments, found test beside it"),
            ({"purge": "yes"}, "`purge` must be a bool, found str"),
            ({"table_labels": "RETURN"}, "`table_labels` must be a list of names"),
            ({"record_fields": ["change", "change"]}, "`record_fields` must name each once"),
            ({"market_value": {"class": HANDLER}}, "`market_value.class` must be a MarketValue"),
        ],
    )
    def test_one_message_says_what_is_wrong(
        self, changes: dict[str, Any], message: str, arguments: dict[str, Any]
    ) -> None:
        with pytest.raises(UserError, match=message):
            DatasetConfig.of(**(arguments | changes))


class TestSpec:
    def test_it_is_what_the_dataset_will_be(self, arguments: dict[str, Any]) -> None:
        arguments["handler"]["kwargs"] |= alpha360(fields=["close", "volume"], lookback_days=7)
        spec, dataset = DailyPanelDataset.spec(**arguments), DailyPanelDataset(**arguments)
        panel = dataset.panels("test")[0]
        assert panel.features.shape[1:] == (spec.lookback_days, spec.num_features) == (7, 2)
        assert spec.labels == dataset.label_names
        assert spec.segments == dataset.segments
        assert (spec.universe, spec.benchmark) == (dataset.universe, dataset.benchmark)
        assert spec.store.root == dataset.store.root

    def test_nothing_is_loaded_for_it(
        self, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "qlib_ext.features.market_panel.MarketPanel.load", lambda *_, **__: pytest.fail("bars were read")
        )
        assert DatasetConfig.of(**arguments).spec().num_features == 6

    def test_what_a_split_makes_is_in_it(self, arguments: dict[str, Any], tiny: Any) -> None:
        spec = DatasetConfig.of(**arguments | {"segments": {"split": [0.5, 0.25, 0.25]}}).spec()
        assert spec.segments["train"] == (tiny.calendar[0], tiny.calendar[99])

    def test_a_label_that_will_not_be_there_is_named(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(UserError, match=r"`table_labels` must be one of .*, found 'RETRUN'"):
            DatasetConfig.of(**arguments, table_labels=["RETRUN"]).spec()
