"""Market values and concepts as the dataset hands them out."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from qlib.data.dataset.handler import DataHandlerLP

from qlib_ext.checks import UserError
from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.market.store import QlibStore

Make = Callable[..., DailyPanelDataset]
MARKET_VALUE = {
    "class": "qlib_ext.features.side_data.market_value.SideMarketValue",
    "kwargs": {"limit_days": 5},
}
CONCEPTS = {"class": "qlib_ext.features.side_data.concepts.SideConcepts", "kwargs": {"name": "theme"}}
STATUS = {
    "class": "qlib_ext.features.side_data.market_status.IndexStatus",
    "kwargs": {"indices": ["SH000300"], "windows": [5, 20]},
}
FALLBACKS = {
    "market_value": {"class": "qlib_ext.features.side_data.market_value.FirstAvailable"},
    "concepts": {"class": "qlib_ext.features.side_data.concepts.FirstAvailable"},
}


def size_of(day: int, stock: int) -> float | None:
    """The number in the file for a day and a column of the store; stocks 0 and 5 have none."""
    return None if stock in (0, 5) or (day + stock) % 3 == 0 else 100.0 * stock + day


@pytest.fixture(scope="module")
def sided(tiny: Any, tmp_path_factory: pytest.TempPathFactory, qlib_reads_the_store: None) -> QlibStore:
    """The tiny store with market values and themes: a stock is `even` or `odd`, and `late` from day 150 on."""
    store = tiny.write(tmp_path_factory.mktemp("sided") / "store")
    (store.root / "side").mkdir()
    rows = [
        (tiny.calendar[day], code, size_of(day, stock))
        for day in range(len(tiny.calendar))
        for stock, code in enumerate(tiny.codes)
        if size_of(day, stock) is not None
    ]
    pd.DataFrame(rows, columns=["datetime", "instrument", "market_value"]).to_parquet(
        store.root / "side" / "market_value.parquet"
    )
    themes = [
        (code, tiny.calendar[0], None, "odd" if stock % 2 else "even")
        for stock, code in enumerate(tiny.codes)
        if stock != 6
    ]
    themes += [(code, tiny.calendar[150], tiny.calendar[170], "late") for code in tiny.codes[:4]]
    pd.DataFrame(themes, columns=["instrument", "start", "end", "theme"]).to_parquet(
        store.root / "side" / "theme.parquet"
    )
    return store


@pytest.fixture
def with_side(sided: QlibStore, make_dataset: Make, use: Callable[[Any], None]) -> DailyPanelDataset:
    use(sided)
    return make_dataset(market_value=MARKET_VALUE, concepts=CONCEPTS, market_status=STATUS)


def test_the_workflow_of_the_page_is_one(make_dataset: Make) -> None:
    page = (Path(__file__).parents[2] / "docs" / "data" / "side-data.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```yaml\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    config = yaml.safe_load(text)["dataset"]
    assert config["class"] == "qlib_ext.data.dataset.DailyPanelDataset"
    panel = make_dataset(**config["kwargs"]).panels("test")[0]
    assert panel.market_value is not None
    assert panel.concepts is not None


class TestPanels:
    def test_market_values_are_the_newest_and_the_median_where_there_is_none(
        self, with_side: DailyPanelDataset, tiny: Any
    ) -> None:
        column = {code: i for i, code in enumerate(tiny.codes)}
        for name in tiny.segments:
            for panel in with_side.panels(name):
                day = tiny.calendar.get_loc(panel.date)
                stocks = [column[with_side.instruments[i]] for i in panel.instruments]
                known = [
                    next(
                        (
                            size
                            for back in range(3)
                            if (size := size_of(day - back, stock)) is not None and day >= back
                        ),
                        np.nan,
                    )
                    for stock in stocks
                ]
                expected = np.where(np.isnan(known), np.nanmedian(known), known)
                assert panel.market_value is not None
                assert panel.market_value.dtype == torch.float32
                np.testing.assert_array_equal(panel.market_value, expected.astype(np.float32))

    def test_concepts_are_those_of_the_day(self, with_side: DailyPanelDataset, tiny: Any) -> None:
        column = {code: i for i, code in enumerate(tiny.codes)}
        for name in tiny.segments:
            for panel in with_side.panels(name):
                day = tiny.calendar.get_loc(panel.date)
                stocks = [column[with_side.instruments[i]] for i in panel.instruments]
                expected = [
                    [
                        stock % 2 == 0 and stock != 6,
                        stock < 4 and 150 <= day <= 170,
                        stock % 2 == 1,
                    ]
                    for stock in stocks
                ]
                assert panel.concepts is not None
                assert panel.concepts.dtype == torch.float32
                np.testing.assert_array_equal(panel.concepts, np.array(expected, dtype=np.float32))

    def test_the_market_is_that_of_the_day_normalised_by_the_training_days(
        self, with_side: DailyPanelDataset, tiny: Any
    ) -> None:
        first, last = tiny.segments["train"]
        close = pd.Series(tiny.bars["close"][:, tiny.codes.index("SH000300")])
        returns = close.pct_change()
        fitted = returns.iloc[first : last + 1].dropna()
        scale = 1.4826 * (fitted - fitted.median()).abs().median()
        expected = ((returns - fitted.median()) / scale).clip(-3, 3).fillna(0.0)
        seen = 0
        for name in tiny.segments:
            for panel in with_side.panels(name):
                day = tiny.calendar.get_loc(panel.date)
                assert panel.market_status is not None
                assert panel.market_status.shape == (9,)
                assert panel.market_status[0].item() == pytest.approx(expected[day], abs=1e-3)
                seen += 1
        assert seen > 150
        assert with_side.arguments.num_market == 9
        assert [(name, x.shape) for name, x in with_side.statistics().items()] == [
            ("windows.median", (60, 6)),
            ("windows.scale", (60, 6)),
            ("market_status.median", (9,)),
            ("market_status.scale", (9,)),
        ]

    def test_the_markets_statistics_are_kept_and_fitted_anew_as_those_of_the_windows(
        self, with_side: DailyPanelDataset, tiny: Any, tmp_path: Path, use: Callable[[Any], None]
    ) -> None:
        before = with_side.statistics()
        use(tiny.moved(slice(0, None)).write(tmp_path / "store"))
        with_side.arguments = dataclasses.replace(with_side.arguments, market_value=None, concepts=None)
        for init_type, kept in ((DataHandlerLP.IT_LS, True), (DataHandlerLP.IT_FIT_SEQ, False)):
            with_side.setup_data(handler_kwargs={"init_type": init_type})
            for name, values in with_side.statistics().items():
                assert np.array_equal(values, before[name]) is kept, name

    def test_features_and_labels_stay_as_they_are(
        self, with_side: DailyPanelDataset, sided: QlibStore, make_dataset: Make
    ) -> None:
        plain = make_dataset()
        for ours, theirs in zip(with_side.panels("test"), plain.panels("test"), strict=True):
            assert theirs.market_value is theirs.concepts is theirs.market_status is None
            assert torch.equal(ours.features, theirs.features)
            torch.testing.assert_close(ours.labels, theirs.labels, rtol=0, atol=0, equal_nan=True)

    def test_a_store_without_side_data_falls_back(
        self, make_dataset: Make, store: QlibStore, use: Callable[[Any], None]
    ) -> None:
        dataset = make_dataset(**FALLBACKS)
        found = dataset.describe()
        assert found["market_value"]["source"] == "trailing median of the traded value"
        assert found["concepts"]["source"] == "clusters of trailing return correlations"
        assert found["concepts"]["count"] == 30
        panel = dataset.panels("test")[0]
        assert panel.market_value is not None
        assert (panel.market_value > 0).all()
        assert panel.concepts is not None
        assert panel.concepts.shape == (len(panel), 30)

    def test_no_concepts_at_all(self, make_dataset: Make) -> None:
        dataset = make_dataset(concepts={"class": "qlib_ext.features.side_data.concepts.NoConcepts"})
        assert dataset.panels("test")[0].concepts is None
        assert dataset.describe()["concepts"] == {"class": "NoConcepts", "source": "none"}


class TestDescription:
    def test_it_names_source_and_fingerprint_and_how_much_is_known(
        self, with_side: DailyPanelDataset, sided: QlibStore
    ) -> None:
        found = with_side.describe()
        assert json.loads(json.dumps(found)) == found
        assert str(sided.root) not in json.dumps(found)
        assert found["market_value"]["class"] == "SideMarketValue"
        assert found["market_value"]["source"] == "side/market_value.parquet"
        assert len(found["market_value"]["fingerprint"]) == 16
        assert found["concepts"]["source"] == "side/theme.parquet"
        assert found["concepts"]["count"] == 3
        present = with_side.handler.panel.present
        column = list(with_side.instruments)
        without = present[:, [column.index("SH600000"), column.index("SH600005")]].sum() / present.sum()
        assert found["market_value"]["coverage"] == pytest.approx(1 - without, abs=0.01)
        theme = present[:, column.index("SH600006")].sum() / present.sum()
        assert found["concepts"]["coverage"] == pytest.approx(1 - theme, abs=1e-4)

    def test_sparse_side_data_are_a_note(
        self, sided: QlibStore, make_dataset: Make, use: Callable[[Any], None]
    ) -> None:
        use(sided)
        daily = {"class": MARKET_VALUE["class"], "kwargs": {"limit_days": 0}}
        (note,) = make_dataset(market_value=daily).notes
        assert note.startswith("market_value: known for 5")
        assert note.endswith("% of the stocks and days; the others have the median of the day")

    def test_what_stands_in_is_a_note(self, make_dataset: Make) -> None:
        notes = make_dataset(**FALLBACKS).notes
        assert notes[0] == (
            "market values: trailing median of the traded value, since there is no side/market_value.parquet or .csv"
        )
        assert notes[1].startswith(
            "concepts: clusters of trailing return correlations, since there is no side/concepts"
        )


class TestIdentity:
    def test_without_sources_it_is_as_it_was(self, dataset: DailyPanelDataset) -> None:
        """Runs of before can be resumed: not a key is new."""
        assert not {"market_value", "concepts", "market_status", "side"} & set(dataset.identity())

    def test_side_data_that_nobody_reads_do_not_change_it(
        self, dataset: DailyPanelDataset, sided: QlibStore, make_dataset: Make, use: Callable[[Any], None]
    ) -> None:
        use(sided)
        assert make_dataset().identity() == dataset.identity()

    @pytest.mark.parametrize(
        ("file", "key"), [("market_value.parquet", "market_value"), ("theme.parquet", "concepts")]
    )
    def test_other_side_data_are_another_identity(
        self,
        file: str,
        key: str,
        with_side: DailyPanelDataset,
        sided: QlibStore,
        make_dataset: Make,
        tiny: Any,
        tmp_path: Path,
        use: Callable[[Any], None],
    ) -> None:
        other = tiny.write(tmp_path / "store")
        (other.root / "side").mkdir()
        for path in (sided.root / "side").iterdir():
            frame = pd.read_parquet(path)
            (frame.iloc[:-1] if path.name == file else frame).to_parquet(other.root / "side" / path.name)
        before = with_side.identity()
        use(other)
        after = make_dataset(market_value=MARKET_VALUE, concepts=CONCEPTS, market_status=STATUS).identity()
        assert {name for name in before if before[name] != after[name]} == {key}

    def test_another_source_or_argument_is_another_identity(
        self, with_side: DailyPanelDataset, make_dataset: Make
    ) -> None:
        found = [
            make_dataset(market_value=market_value, concepts=CONCEPTS).identity()
            for market_value in (
                None,
                {"class": MARKET_VALUE["class"], "kwargs": {"limit_days": 6}},
                {"class": "qlib_ext.features.side_data.market_value.Uniform"},
            )
        ]
        texts = {
            json.dumps(identity, sort_keys=True, default=str) for identity in [with_side.identity(), *found]
        }
        assert len(texts) == 4


class TestErrors:
    def test_a_missing_table_stops_before_anything_is_loaded(
        self, make_dataset: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(QlibStore, "read", lambda *args, **kwargs: pytest.fail("bars were read"))
        with pytest.raises(
            UserError,
            match=r"`market_value` \(SideMarketValue\) does not fit the store .*: there is no side/market_value",
        ):
            make_dataset(market_value=MARKET_VALUE)
        with pytest.raises(
            UserError, match=r"`concepts` \(SideConcepts\) .*; bring a table in \(`qlib-ext data side-data"
        ):
            make_dataset(concepts=CONCEPTS)
        other = {**STATUS, "kwargs": {"indices": ["SH000905"]}}
        with pytest.raises(
            UserError,
            match=r"`market_status` \(IndexStatus\) does not fit the store .*: it has no bars of SH000905; of indices it "
            r"has SH000300; name indices that it has in `indices`",
        ):
            make_dataset(market_status=other)

    def test_sources_are_checked(self, make_dataset: Make) -> None:
        with pytest.raises(UserError, match=r"`market_value.class` must be a MarketValue"):
            make_dataset(market_value=CONCEPTS)
        with pytest.raises(UserError, match=r"`concepts.kwargs` has no place for `names`"):
            make_dataset(concepts={"class": CONCEPTS["class"], "kwargs": {"names": "theme"}})


class TestPickling:
    def test_it_travels_without_side_data_and_finds_them_again(self, with_side: DailyPanelDataset) -> None:
        with_side.panels("test")
        content = pickle.dumps(with_side)
        assert len(content) < 30_000
        again = pickle.loads(content)
        again.setup_data(handler_kwargs={"init_type": DataHandlerLP.IT_LS})
        assert again.identity() == with_side.identity()
        for ours, theirs in zip(with_side.panels("test"), again.panels("test"), strict=True):
            assert torch.equal(ours.market_value, theirs.market_value)
            assert torch.equal(ours.concepts, theirs.concepts)
            assert torch.equal(ours.market_status, theirs.market_status)

    def test_set_up_on_another_store_it_takes_what_is_there(
        self, make_dataset: Make, sided: QlibStore, use: Callable[[Any], None]
    ) -> None:
        dataset = make_dataset(**FALLBACKS)
        use(sided)
        dataset.setup_data(handler_kwargs={"init_type": DataHandlerLP.IT_FIT_SEQ})
        assert dataset.describe()["market_value"]["source"] == "side/market_value.parquet"
        assert dataset.panels("test")[0].market_value.max() > 100


class TestOnTheDevice:
    def test_spells_are_held_once_for_all_segments(self, with_side: DailyPanelDataset) -> None:
        held = {id(with_side._side.concepts(torch.device("cpu"))) for _ in with_side.segments}
        assert len(held) == 1
