"""From the cache or fresh: the same bits, wherever one looks; and never those of another store."""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
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
from qlib_ext.data.cache import PanelCache
from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.data.handlers.panel import PanelHandler
from qlib_ext.data.processors.cross_section_norm import CrossSectionNorm
from qlib_ext.features.alpha360 import Alpha360
from qlib_ext.market.store import QlibStore
from tests.data.conftest import alpha360

Make = Callable[..., DailyPanelDataset]
EXPRESSIONS = "qlib_ext.features.expressions.Expressions"
NORM = "qlib_ext.data.processors.cross_section_norm.CrossSectionNorm"


class OnesOwn(CrossSectionNorm):
    """A processor whose code no key of the cache knows."""

    per_day = True


class OnesOwnFeatures(Alpha360):
    """A feature set whose code no key of the cache knows."""


class Whole(CrossSectionNorm):
    """A processor that wants the whole table."""

    def __call__(self, df: pd.DataFrame) -> pd.DataFrame:
        return super().__call__(df)


def entries(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "panels").iterdir()) if (cache / "panels").exists() else []


def scores(dataset: DailyPanelDataset) -> list[torch.Tensor]:
    torch.manual_seed(0)
    width = dataset.handler.features.lookback_days * len(dataset.handler.features.names)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(width, 8), torch.nn.Linear(8, 1))
    panels = dataset.panels("test")
    with torch.no_grad():
        return [network(panels[position].features.contiguous()) for position in range(0, len(panels), 5)]


def assert_equal(first: DailyPanelDataset, second: DailyPanelDataset) -> None:
    """Whatever can be asked of a dataset has the same answer, bit for bit."""
    ours, theirs = first.handler.panel, second.handler.panel
    assert ours.calendar.equals(theirs.calendar)
    assert ours.calendar.dtype == theirs.calendar.dtype
    for name in ("fields", "instruments", "missing_fields"):
        assert getattr(ours, name) == getattr(theirs, name)
    for name in ("values", "members", "present", "listed", "padded"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    for name in ("median", "scale"):
        found, expected = (getattr(x.handler.features, name) for x in (first, second))
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    assert first.label_names == second.label_names
    assert json.dumps(first.identity()) == json.dumps(second.identity())
    assert json.dumps(first.describe()) == json.dumps(second.describe())
    for segment in first.segments:
        days, others = first.panels(segment), second.panels(segment)
        assert days.dates.equals(others.dates)
        for position in range(0, len(days), 13):
            day, other = days[position], others[position]
            assert torch.equal(day.features, other.features)
            assert torch.equal(day.instruments, other.instruments)
            for labels, theirs in ((day.labels, other.labels), (day.raw_labels, other.raw_labels)):
                assert list(labels) == list(theirs)
                for name in labels:
                    np.testing.assert_array_equal(labels[name], theirs[name])
        pd.testing.assert_frame_equal(first.coverage(segment), second.coverage(segment))
    for key in ("raw", "infer", "learn"):
        tables = (x.handler.fetch(data_key=key, col_set="label") for x in (first, second))
        pd.testing.assert_frame_equal(*tables, check_exact=True)
    tables = (x.prepare("test", data_key="learn") for x in (first, second))
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert all(map(torch.equal, scores(first), scores(second)))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def no_bars(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and bars can be read no more."""

    def forbid() -> None:
        monkeypatch.setattr(QlibStore, "read", lambda *_, **__: pytest.fail("bars were read"))

    return forbid


@pytest.fixture
def own_store(store: QlibStore, tmp_path: Path, use: Callable[[Path], None]) -> Path:
    """A store to be changed, which Qlib reads."""
    shutil.copytree(store.root, tmp_path / "store")
    use(tmp_path / "store")
    return tmp_path / "store"


def formulas(normalise: str, number: int) -> dict[str, Any]:
    kwargs: dict[str, Any] = {"lookback_days": 3, "normalise": normalise}
    kwargs["expressions"] = {
        f"{normalise}{days}": f"Mean($close, {days}) / $close" for days in range(2, number)
    }
    return {"class": "qlib_ext.features.expressions.Expressions", "kwargs": kwargs}


SETTINGS: dict[str, dict[str, Any]] = {
    "formulas, whose rows are made in the file": {
        "features": {
            "class": "qlib_ext.features.union.Union",
            "kwargs": {"members": [formulas("robust", 5), formulas("day", 4), formulas("zscore", 4)]},
        }
    },
    "as it comes": {},
    "a range": {"start_time": "2018-02-01", "end_time": "2018-09-14"},
    "other fields and windows": alpha360(fields=["volume", "close"], lookback_days=7),
    "other labels": {
        "labels": {"WEEK": "Ref($close, -6) / Ref($close, -1) - 1", "MEAN": "Mean($close, 5) / $close"},
        "infer_processors": [],
        "learn_processors": [{"class": NORM, "kwargs": {"columns": ["WEEK"], "method": "zscore"}}],
    },
    "no processors": {"infer_processors": [], "learn_processors": []},
}


class TestSameBits:
    @pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
    def test_from_the_cache_or_fresh(
        self,
        settings: dict[str, Any],
        make_dataset: Make,
        cache: Path,
        no_bars: Callable[[], None],
        tiny: Any,
    ) -> None:
        changes: dict[str, Any] = {}
        if "start_time" in settings:
            changes["segments"] = {
                "train": [tiny.day(30), tiny.day(110)],
                "test": [tiny.day(160), tiny.day(180)],
            }
        if "labels" in settings:
            changes["table_labels"] = ["WEEK"]
        without = make_dataset(settings, **changes)
        writing = make_dataset(settings, cache=cache, **changes)
        no_bars()
        reading = make_dataset(settings, cache=cache, **changes)
        assert len(entries(cache)) == 1
        assert isinstance(reading.handler.padded.base, np.memmap)
        assert_equal(without, writing)
        assert_equal(without, reading)

    def test_without_vwap(
        self, make_dataset: Make, cache: Path, tiny: Any, tmp_path: Path, use: Callable[[Any], None]
    ) -> None:
        use(tiny.without("vwap").write(tmp_path / "store"))
        first, second = (make_dataset(cache=cache) for _ in range(2))
        assert second.handler.panel.missing_fields == ("vwap",)
        assert second.notes == first.notes != []
        assert_equal(first, second)

    def test_the_same_data_elsewhere_share_an_entry(
        self, make_dataset: Make, cache: Path, own_store: Path, tmp_path: Path, use: Callable[[Path], None]
    ) -> None:
        make_dataset(cache=cache)
        own_store.rename(tmp_path / "moved")
        use(tmp_path / "moved")
        assert make_dataset(cache=cache).store.root == tmp_path / "moved"
        assert len(entries(cache)) == 1


OTHERS: dict[str, Any] = {
    "instruments": "all",
    "fit_end_time": "2018-05-01",
    "fit_start_time": "2018-01-03",
    "start_time": "2018-01-02",
    "end_time": "2018-09-20",
    "features": alpha360(fields=["close", "open", "high", "low", "volume", "vwap"])["features"],
    "labels": {"RETURN": "Ref($close, -1) / $close - 1"},
    "infer_processors": [],
    "learn_processors": [{"class": NORM, "kwargs": {"method": "zscore"}}],
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, qlib_reads_the_store: None, make_dataset: Make) -> Path:
    """A cache that has an entry of the settings as they come."""
    cache = tmp_path_factory.mktemp("shared")
    make_dataset(cache=cache)
    return cache


class TestKey:
    @pytest.mark.parametrize("name", OTHERS)
    def test_another_setting_is_another_entry(
        self, name: str, make_dataset: Make, shared: Path, tiny: Any
    ) -> None:
        before = entries(shared)
        make_dataset({name: OTHERS[name]}, cache=shared, segments={"test": list(tiny.dates("valid"))})
        assert len(entries(shared)) == len(before) + 1

    @pytest.mark.parametrize("kwargs", [{"lookback_days": 30}, {"optional_fields": []}])
    def test_another_setting_of_the_features_too(
        self, kwargs: dict[str, Any], make_dataset: Make, shared: Path
    ) -> None:
        before = entries(shared)
        make_dataset(alpha360(**kwargs), cache=shared)
        assert len(entries(shared)) == len(before) + 1

    def test_segments_need_no_other(self, make_dataset: Make, shared: Path, tiny: Any) -> None:
        before = entries(shared)
        make_dataset(cache=shared, segments={"test": list(tiny.dates("valid"))}, purge=False, benchmark=None)
        assert entries(shared) == before

    def test_processors_of_another_order_are_others(self, make_dataset: Make, shared: Path) -> None:
        before = entries(shared)
        norms = [{"class": NORM, "kwargs": {"method": method}} for method in ("zscore", "rank")]
        for learn in (norms, norms[::-1]):
            make_dataset({"learn_processors": learn}, cache=shared)
        assert len(entries(shared)) == len(before) + 2


def touch_bin(root: Path) -> Path:
    path = root / "features" / "sh600003" / "open.day.bin"
    content = bytearray(path.read_bytes())
    content[400] ^= 1
    path.write_bytes(content)
    return path


def touch_universe(root: Path) -> Path:
    path = root / "instruments" / "few.txt"
    path.write_text(path.read_text().replace("SH600008", "SH600010"))
    return path


def touch_calendar(root: Path) -> Path:
    path = root / "calendars" / "day.txt"
    text = path.read_text()
    first = text.splitlines()[0]
    path.write_text(text.replace(first, str(np.datetime64(first) - 1)))
    return path


class TestAChangedStore:
    @pytest.mark.parametrize("touch", [touch_bin, touch_universe, touch_calendar])
    def test_is_never_read_from_the_cache(
        self, touch: Callable[[Path], Path], make_dataset: Make, cache: Path, own_store: Path
    ) -> None:
        before = make_dataset(cache=cache)
        times = {path: path.stat() for path in own_store.rglob("*") if path.is_file()}
        path = touch(own_store)
        assert path.stat().st_size == times[path].st_size
        os.utime(path, ns=(times[path].st_atime_ns, times[path].st_mtime_ns))
        after = make_dataset(cache=cache)
        assert len(entries(cache)) == 2
        assert after.fingerprint == QlibStore(own_store).fingerprint() != before.fingerprint
        assert_equal(after, make_dataset())

    def test_nor_is_one_of_other_side_data(self, make_dataset: Make, cache: Path, own_store: Path) -> None:
        """Its fingerprint is that of the bars alone; those of the tables that features read are in the key."""
        (own_store / "side").mkdir()
        store = QlibStore(own_store)
        codes = store.instruments()
        spells = pd.DataFrame({"instrument": codes, "start": store.calendar[0], "end": pd.NaT})
        values = pd.DataFrame(
            {"datetime": store.calendar[5], "instrument": codes, "pe": np.arange(len(codes))}
        )
        features = ["side.valuation.pe", "CSNeutralize($close, industry)", "IsMissing(side.valuation.pe)"]
        settings = {"features": {"class": EXPRESSIONS, "kwargs": {"expressions": features}}}
        for count, (price, groups) in enumerate([(1.0, 2), (1.0, 3), (2.0, 3)], 1):
            values.assign(pe=values["pe"] * price).to_parquet(own_store / "side" / "valuation.parquet")
            names = [f"group {i % groups}" for i in range(len(codes))]
            spells.assign(industry=names).to_parquet(own_store / "side" / "industry.parquet")
            fresh, writing, reading = (make_dataset(settings, cache=x) for x in (None, cache, cache))
            assert len(entries(cache)) == count
            assert_equal(fresh, writing)
            assert_equal(fresh, reading)
            assert set(fresh.describe()["side_data"]) == {"valuation", "industry"}

    def test_while_it_is_read_is_not_written_to_the_cache(
        self,
        make_dataset: Make,
        cache: Path,
        own_store: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        read = QlibStore.read

        def interrupted(*given: Any, **more: Any) -> np.ndarray:
            bars = read(*given, **more)
            touch_bin(own_store)
            return bars

        with monkeypatch.context() as patch:
            patch.setattr(QlibStore, "read", interrupted)
            make_dataset(cache=cache)
        assert "was changed while it was read, so nothing is cached" in caplog.text
        assert entries(cache) == []
        assert_equal(make_dataset(cache=cache), make_dataset())


class TestWhereItCannotServe:
    @pytest.mark.parametrize("cache", [None, "off", False])
    def test_off_is_off(self, cache: Any, make_dataset: Make, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.chdir(tmp_path)
        make_dataset(cache=cache)
        make_dataset({"cache": cache})
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("cache", [True, "", 3])
    def test_what_is_no_directory_is_refused(self, cache: Any, make_dataset: Make) -> None:
        with pytest.raises(UserError, match="`cache` must be a directory, or off for none, found"):
            make_dataset(cache=cache)

    def test_a_handler_that_is_made_already_has_its_own(
        self, make_dataset: Make, cache: Path, tiny: Any
    ) -> None:
        fit = dict(zip(("fit_start_time", "fit_end_time"), tiny.dates("train"), strict=True))
        handler = PanelHandler("few", **fit, cache=cache)
        assert len(entries(cache)) == 1
        assert DailyPanelDataset(handler, {"test": tiny.dates("test")}).handler is handler
        with pytest.raises(
            UserError, match="`cache` must be given to the handler where that is made already"
        ):
            DailyPanelDataset(handler, {"test": tiny.dates("test")}, cache=cache)

    def test_a_directory_that_cannot_be_written_is_a_warning(
        self, make_dataset: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "file").write_text("")
        with caplog.at_level(logging.WARNING, logger="qlib_ext"):
            dataset = make_dataset(cache=tmp_path / "file" / "cache")
        assert len([x for x in caplog.records if "cannot be written" in x.message]) == 1
        assert_equal(dataset, make_dataset())

    @pytest.mark.parametrize(
        ("kind", "message"),
        [
            (OnesOwn, "no key can hold .*OnesOwn"),
            (Whole, "Whole does not say `per_day`"),
        ],
    )
    def test_processors_that_it_knows_nothing_of(
        self, kind: type, message: str, make_dataset: Make, cache: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        dataset = make_dataset({"learn_processors": [kind()]}, cache=cache)
        assert not cache.exists()
        assert re.search(f"the panel cache is not used: .*{message}", caplog.text)
        fresh = make_dataset()
        np.testing.assert_array_equal(
            dataset.handler.label_planes()["RETURN"], fresh.handler.label_planes()["RETURN"]
        )

    def test_features_that_it_knows_nothing_of(
        self, make_dataset: Make, cache: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        make_dataset({"features": OnesOwnFeatures()}, cache=cache)
        assert not cache.exists()
        assert re.search("the panel cache is not used: no key can hold .*OnesOwnFeatures", caplog.text)

    def test_a_damaged_entry_is_made_again(
        self, make_dataset: Make, cache: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        first = make_dataset(cache=cache)
        (entry,) = (cache / "panels").iterdir()
        os.truncate(entry / "0.npy", 1000)
        assert_equal(make_dataset(cache=cache), first)
        assert "is damaged, so it is made again" in caplog.text
        caplog.clear()
        assert_equal(make_dataset(cache=cache), first)
        assert "is damaged" not in caplog.text


class TestPickling:
    def test_a_dataset_with_a_cache_travels_light_and_uses_it_where_it_arrives(
        self, make_dataset: Make, cache: Path, no_bars: Callable[[], None]
    ) -> None:
        dataset = make_dataset(cache=cache)
        pickled = pickle.dumps(dataset)
        assert len(pickled) < 30_000
        no_bars()
        again = pickle.loads(pickled)
        again.setup_data(handler_kwargs={"init_type": DataHandlerLP.IT_LS})
        assert_equal(again, dataset)

    def test_statistics_fitted_elsewhere_are_kept_and_not_cached(
        self, make_dataset: Make, cache: Path, tiny: Any, tmp_path: Path, use: Callable[[Any], None]
    ) -> None:
        dataset = make_dataset(cache=cache)
        pickled = pickle.dumps(dataset)
        use(tiny.moved(slice(0, None)).write(tmp_path / "store"))
        for _ in range(2):  # with and without an entry of the other store
            again = pickle.loads(pickled)
            again.setup_data(handler_kwargs={"init_type": DataHandlerLP.IT_LS})
            np.testing.assert_array_equal(again.handler.features.scale, dataset.handler.features.scale)
            assert again.fingerprint != dataset.fingerprint
            fresh = make_dataset(cache=cache)
            np.testing.assert_array_equal(again.handler.panel.values, fresh.handler.panel.values)
        assert len(entries(cache)) == 2


def test_the_fingerprint_of_a_dataset_is_that_of_the_data_it_read(
    make_dataset: Make, cache: Path, own_store: Path
) -> None:
    """Also where the store is another one by the time it is asked for."""
    dataset = make_dataset(cache=cache)
    expected = QlibStore(own_store).fingerprint()
    touch_bin(own_store)
    assert dataset.fingerprint == expected
    assert PanelCache(cache).look(own_store).fingerprint != expected
