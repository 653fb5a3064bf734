"""The handler of daily bars beside macro figures, under the dataset, on stores with everything that changes later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.features.side_data.macro import Macro
from qlib_ext.market.store import QlibStore

SERIES = {"cpi": "relative_change", "unemp": ["level", "change"]}
RISE = {"class": "qlib_ext.data.processors.rise_or_fall.RiseOrFall", "kwargs": {"source": "NEXT_RETURN"}}
T = 10


def releases(calendar: pd.DatetimeIndex) -> pd.DataFrame:
    """Two monthly series with revisions, from half a year before the bars on."""
    draw = np.random.default_rng(4)
    rows = []
    for month in pd.period_range(calendar[0] - pd.DateOffset(months=6), calendar[-1], freq="M"):
        day = month.end_time.normalize() + pd.Timedelta(days=12)
        for series, value in (("cpi", 100 + draw.normal()), ("unemp", 5 + draw.normal())):
            rows.append((series, str(month), value, day))
            rows.append((series, str(month), value + 0.1 * draw.normal(), day + pd.Timedelta(days=30)))
    return pd.DataFrame(rows, columns=["series", "period", "value", "release_date"])


def with_macro(store: QlibStore, table: pd.DataFrame) -> QlibStore:
    (store.root / "side").mkdir(exist_ok=True)
    table.to_parquet(store.root / "side" / "macro.parquet", index=False)
    return store


@pytest.fixture(scope="module")
def us(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> QlibStore:
    store = tiny.write(tmp_path_factory.mktemp("us") / "store")
    return with_macro(store, releases(tiny.calendar))


@pytest.fixture
def make(us: QlibStore, use: Callable[..., None], tiny: Any) -> Callable[..., DailyPanelDataset]:
    """A dataset of the store that Qlib reads, which is `us` unless a test reads another."""
    use(us)

    def of(
        features: dict[str, Any] | None = None, handler: dict[str, Any] | None = None, **changes: Any
    ) -> DailyPanelDataset:
        fit_start, fit_end = tiny.dates("train")
        bars = {
            "lookback_days": T,
            "macro": {"class": "qlib_ext.features.side_data.macro.Macro", "kwargs": {"series": SERIES}},
        }
        kwargs = {
            "instruments": "few",
            "features": {
                "class": "qlib_ext.features.daily_bars.DailyBars",
                "kwargs": bars | (features or {}),
            },
            "fit_start_time": fit_start,
            "fit_end_time": fit_end,
            "infer_processors": [RISE],
        }
        arguments = {
            "handler": {
                "class": "qlib_ext.data.handlers.panel.PanelHandler",
                "kwargs": kwargs | (handler or {}),
            },
            "segments": {name: list(tiny.dates(name)) for name in tiny.segments},
        }
        return DailyPanelDataset(**(arguments | changes))

    return of


class TestFeatures:
    def test_panels_hold_bars_and_what_was_published(self, make: Any, us: QlibStore) -> None:
        dataset = make()
        features = dataset.handler.features
        names = ("open", "high", "low", "close", "volume", "cpi relative_change", "unemp", "unemp change")
        assert features.names == names
        close = us.read(["close"], dataset.instruments)[0]
        published = Macro(series=SERIES).load(us)
        panels = dataset.panels("test")
        for position in (0, 17, len(panels) - 1):
            panel = panels[position]
            assert panel.features.shape == (len(panel), T, len(names))
            assert torch.isfinite(panel.features).all()
            day = us.calendar.get_loc(panel.date)
            for name in published.names:
                i = names.index(name)
                values = published.values[day - T + 1 : day + 1, published.names.index(name)]
                shown = panel.features[0, :, i] * features.scale[0, i] + features.median[0, i]
                np.testing.assert_allclose(shown, values, rtol=1e-3, atol=1e-5)
                assert (panel.features[..., i] == panel.features[:1, :, i]).all()  # one market, one figure
            stock = int(panel.instruments[0])
            change = np.log(close[day, stock] / close[day - 1, stock])
            if np.isfinite(change):
                shown = panel.features[0, -1, 3] * features.scale[0, 3] + features.median[0, 3]
                assert float(shown) == pytest.approx(change, abs=1e-5)

    def test_labels_are_the_next_return_and_its_direction(self, make: Any, us: QlibStore) -> None:
        dataset = make()
        panel = dataset.panels("valid")[3]
        close = us.read(["close"], dataset.instruments)[0]
        day = us.calendar.get_loc(panel.date)
        returns = (close[day + 1] / close[day] - 1)[panel.instruments.numpy()]
        np.testing.assert_allclose(panel.raw_labels["NEXT_RETURN"], returns, atol=1e-6)
        there = np.isfinite(returns)
        np.testing.assert_array_equal(panel.labels["RISE"][there], returns[there] > 0)

    def test_as_a_table(self, make: Any) -> None:
        dataset = make(table_labels=["NEXT_RETURN"])
        table = dataset.prepare("train", col_set=["feature", "label"], data_key="learn")
        assert table["feature"].shape[1] == T * 8
        assert table["feature"].columns[-1] == "UNEMP CHANGE0"

    def test_without_macro(self, make: Any) -> None:
        dataset = make({"macro": None})
        assert dataset.panels("test")[0].features.shape[2] == 5
        assert "macro" not in dataset.describe()


class TestLookAhead:
    @pytest.mark.parametrize("t", [125, 170])
    def test_bars_releases_and_members_after_t_change_nothing_up_to_t(
        self, t: int, make: Any, tiny: Any, us: QlibStore, use: Any, tmp_path: Path
    ) -> None:
        before = make()
        spells = tiny.memberships["few"].copy()
        spells.loc[(spells["start"] <= tiny.calendar[t]) & (spells["end"] > tiny.calendar[t + 2]), "end"] = (
            tiny.calendar[t + 2]
        )
        spells = spells[spells["start"] <= tiny.calendar[t]]
        moved = replace(tiny.moved(slice(t + 1, None)), memberships=dict(tiny.memberships) | {"few": spells})
        table = releases(tiny.calendar)
        later = table["release_date"] > tiny.calendar[t]
        table.loc[later, "value"] *= 1.7
        use(with_macro(moved.write(tmp_path / "store"), table))
        first = tiny.day(0)
        segments = {"segments": {"all": [first, tiny.day(t + 2)]}, "purge": False}
        after = make(**segments)
        np.testing.assert_array_equal(before.handler.features.median, after.handler.features.median)
        np.testing.assert_array_equal(before.handler.features.scale, after.handler.features.scale)
        use(us)
        same = make(**segments)
        for ours, theirs in zip(same.panels("all"), after.panels("all"), strict=True):
            codes = [
                [data.instruments[i] for i in panel.instruments]
                for data, panel in ((same, ours), (after, theirs))
            ]
            if ours.date <= tiny.calendar[t]:
                assert codes[0] == codes[1]
                assert torch.equal(ours.features, theirs.features), ours.date
            else:
                assert not torch.equal(ours.features[: len(theirs)], theirs.features[: len(ours)])

    def test_a_line_is_told(self, make: Any) -> None:
        macro = {
            "class": "qlib_ext.features.side_data.macro.Macro",
            "kwargs": {"series": SERIES, "fill": "linear"},
        }
        described = make({"fill": "linear", "form": "level", "macro": macro}).describe()
        assert len(described["look_ahead"]) == 3
        assert sum(note.startswith("LOOK-AHEAD: ") for note in described["notes"]) == 3
        assert described["fill"] == {"method": "linear", "limit_days": 5}
        assert described["macro"]["reads_future"]

    def test_the_default_has_nothing_to_tell(self, make: Any) -> None:
        described = make().describe()
        assert described["look_ahead"] == []
        assert not any("LOOK-AHEAD" in note for note in described["notes"])


class TestSplit:
    def test_shares_of_the_days_in_their_order(self, make: Any, tiny: Any) -> None:
        dataset = make(
            handler={"fit_start_time": None, "fit_end_time": None}, segments={"split": [0.7, 0.15, 0.15]}
        )
        described = dataset.describe()
        assert described["split"] == [0.7, 0.15, 0.15]
        asked = {name: (x["asked_start"], x["asked_end"]) for name, x in described["segments"].items()}
        assert asked == {
            "train": (tiny.day(0), tiny.day(139)),
            "valid": (tiny.day(140), tiny.day(169)),
            "test": (tiny.day(170), tiny.day(199)),
        }
        assert described["segments"]["train"]["purged_days"] == 2  # the labels reach two days ahead
        assert f"{dataset.handler.fit_end_time:%Y-%m-%d}" == tiny.day(139)

    def test_the_range_of_the_handler_counts(self, make: Any, tiny: Any) -> None:
        dataset = make(
            handler={"fit_start_time": None, "fit_end_time": None, "start_time": tiny.day(100)},
            segments={"split": [0.5, 0.25, 0.25]},
        )
        assert dataset.describe()["segments"]["train"]["asked_start"] == tiny.day(100)
        assert dataset.describe()["segments"]["valid"]["asked_start"] == tiny.day(150)

    @pytest.mark.parametrize(
        ("split", "message"),
        [
            ([0.7, 0.3], r"`segments.split` must be the shares of train, valid, test, found \[0.7, 0.3\]"),
            ([0.7, 0.2, 0.2], "must make 1 together"),
            ([1.0, 0.0, 0.0], r"must lie in \(0, 1\), found 1.0"),
        ],
    )
    def test_shares_that_do_not_fit(self, split: list[float], message: str, make: Any) -> None:
        with pytest.raises(UserError, match=message):
            make(segments={"split": split})

    def test_too_few_days(self, make: Any, tiny: Any) -> None:
        with pytest.raises(UserError, match="gives `test` none of the 2 trading days"):
            make(handler={"end_time": tiny.day(1)}, segments={"split": [0.7, 0.29, 0.01]})


class TestCache:
    def test_a_second_run_takes_what_was_prepared_and_other_figures_are_other_data(
        self, make: Any, tiny: Any, use: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("qlib_ext.market.store.UNSETTLED_SECONDS", 0.0)
        store = with_macro(tiny.write(tmp_path / "store"), releases(tiny.calendar))
        use(store)
        first = make(cache=tmp_path / "cache")
        entries = sorted((tmp_path / "cache" / "panels").iterdir())
        assert len(entries) == 1
        second = make(cache=tmp_path / "cache")
        assert sorted((tmp_path / "cache" / "panels").iterdir()) == entries
        for ours, theirs in zip(first.panels("test"), second.panels("test"), strict=True):
            assert torch.equal(ours.features, theirs.features)
        table = releases(tiny.calendar)
        with_macro(store, table.assign(value=table["value"] + 1))
        third = make(cache=tmp_path / "cache")
        assert len(list((tmp_path / "cache" / "panels").iterdir())) == 2
        assert third.identity() != second.identity()


def test_where_the_handler_does_not_say_features_are_fitted_on_train(make: Any) -> None:
    said, silent = make(), make(handler={"fit_start_time": None, "fit_end_time": None})
    first, last = silent.segments["train"]
    assert (silent.handler.fit_start_time, silent.handler.fit_end_time) == (first, last)
    assert said.segments == silent.segments


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                {"features": {"macro": {"class": "qlib_ext.features.side_data.macro.Macro"}}},
                "`macro.series` must name the series",
            ),
            ({"handler": {"fit_end_time": None}}, "must be given both or not at all"),
        ],
    )
    def test_an_argument(self, arguments: dict[str, Any], message: str, make: Any) -> None:
        with pytest.raises(UserError, match=message):
            make(**arguments)

    def test_a_store_without_macro(self, make: Any, store: QlibStore, use: Any) -> None:
        use(store)
        with pytest.raises(UserError, match=r"no side/macro.*qlib-ext data sample --region us"):
            make()
