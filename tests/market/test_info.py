from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qlib_ext.market import info
from qlib_ext.market.info import store_info
from qlib_ext.market.store import QlibStore, StoreError, write_store
from qlib_ext.market.synthetic.sample import SampleMarket
from qlib_ext.market.universes.universes import Universe, write_universe

CALENDAR = pd.bdate_range("2020-01-01", periods=10)
CODES = ["SH600000", "SH600004", "SZ000001", "SZ000002"]


@pytest.fixture
def store(tmp_path: Path) -> QlibStore:
    """Four stocks: one suspended for two days, one listed late, one without volume, one as usual."""
    close = np.full((10, 4), 5.0)
    close[3:5, 0] = np.nan
    close[:6, 1] = np.nan
    volume = np.where(np.isnan(close), np.nan, 100.0)
    volume[:, 2] = np.nan
    volume[8, 3] = np.nan
    spells = pd.DataFrame(
        [("SH600000", 0, 9), ("SH600004", 8, 9), ("SH600999", 0, 4)], columns=["instrument", "start", "end"]
    )
    spells = spells.assign(start=CALENDAR[spells["start"]], end=CALENDAR[spells["end"]])
    return write_store(
        tmp_path / "store", CALENDAR, CODES, {"close": close, "volume": volume}, {"few": spells}
    )


class TestStoreInfo:
    def test_links_that_lead_out_are_told(self, store: QlibStore, tmp_path: Path) -> None:
        assert store_info(store.root).links_out == ()
        inside, outside = store.root / "features" / "sh600000", tmp_path / "elsewhere"
        (inside / "close.day.bin").rename(outside)
        (inside / "close.day.bin").symlink_to(outside)
        (inside / "other.day.bin").symlink_to("volume.day.bin")  # which stays in the store
        assert store_info(store.root).links_out == (f"features/sh600000/close.day.bin to {outside}",)

    def test_a_long_calendar_is_read_in_smaller_blocks(
        self, store: QlibStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = store_info(store.root)
        monkeypatch.setattr(info, "_CELLS_AT_ONCE", 25)  # two stocks of 10 days
        assert store_info(store.root).fields == whole.fields

    def test_fields(self, store: QlibStore) -> None:
        close, volume = store_info(store.root).fields
        # 10 + 4 + 10 + 10 days from a first to a last one, 2 of them suspended
        assert (close.name, close.instruments, close.share) == ("close", 4, 1.0)
        assert close.missing == pytest.approx(2 / 34)
        # the stock without a file does not count
        assert (volume.name, volume.instruments, volume.share) == ("volume", 3, 0.75)
        assert volume.missing == pytest.approx(3 / 24)

    def test_universes(self, store: QlibStore) -> None:
        everything, few = store_info(store.root).universes
        assert (everything.name, everything.codes, everything.least, everything.most) == ("all", 4, 3, 4)
        assert (few.codes, few.without_bars) == (3, 1)
        assert (few.first_day, few.last_day) == ("2020-01-01", "2020-01-14")
        # members by day: 2 on five days, 1 on three, 2 on two; with a close: 1, 1, 1, 0, 0, 1, 1, 1, 2, 2
        assert (few.least, few.median, few.most, few.median_with_close) == (1, 2, 2, 1)
        assert (few.size, few.rule, few.command) == (None, None, None)

    def test_what_is_said_of_a_universe(self, store: QlibStore) -> None:
        spells = store.membership("few")
        write_universe(store.root, Universe("mine", spells, 3, "by hand", "qlib-ext ..."))
        mine = store_info(store.root).universes[-1]
        assert (mine.name, mine.size, mine.rule, mine.command) == ("mine", 3, "by hand", "qlib-ext ...")

    def test_range_size_and_daily_sizes(self, store: QlibStore) -> None:
        found = store_info(store.root)
        assert (found.first_day, found.last_day, found.days) == ("2020-01-01", "2020-01-14", 10)
        paths = [path for path in store.root.rglob("*") if path.is_file()]
        assert (found.instruments, found.files, found.bytes) == (
            4,
            len(paths),
            sum(p.stat().st_size for p in paths),
        )
        assert found.daily["few"].tolist() == [2] * 5 + [1] * 3 + [2] * 2
        assert found.volume is None  # no factor

    def test_fingerprints_only_where_asked_for(self, store: QlibStore) -> None:
        assert store_info(store.root).fingerprint == store.fingerprint()
        found = store_info(store.root, fingerprint=False)
        assert (found.fingerprint, found.side_fingerprint) == (None, None)

    def test_it_is_json_without_nan(self, store: QlibStore) -> None:
        (store.root / "instruments" / "none.txt").write_text("")
        found = store_info(store.root).to_json()
        again = json.loads(json.dumps(found, allow_nan=False))
        assert again == found
        (none,) = [universe for universe in again["universes"] if universe["name"] == "none"]
        assert (none["codes"], none["first_day"], none["least"]) == (0, None, None)

    def test_progress_counts_up(self, store: QlibStore) -> None:
        seen: list[tuple[int, int, str]] = []
        store_info(store.root, progress=lambda done, total, what: seen.append((done, total, what)))
        assert seen == [(0, 4, "bars"), (0, 1, "fingerprint")]

    def test_many_stocks_are_looked_at_in_blocks(self, tmp_path: Path) -> None:
        draw = np.random.default_rng(0)
        close = np.where(draw.random((10, 300)) < 0.2, np.nan, 5.0)
        close[[0, -1]] = 5.0
        codes = [f"SH{600000 + k}" for k in range(300)]
        root = write_store(tmp_path / "s", CALENDAR, codes, {"close": close}, {}).root
        (field,) = store_info(root).fields
        assert field.missing == pytest.approx(np.isnan(close).mean())
        assert field.instruments == 300

    def test_a_sample_market(self, tmp_path: Path) -> None:
        store, _ = SampleMarket(seed=3, stocks=30, start="2014-01-01", end="2014-12-31").write(tmp_path / "m")
        found = store_info(store.root)
        shapes = {side.name: side.shape for side in found.side}
        assert shapes["market_value"] == "values"
        assert shapes["industry"] == "spells"
        assert len(str(found.side_fingerprint)) == 16
        assert found.import_settings is None
        assert found.sample is not None
        assert found.sample["seed"] == 3

    def test_any_other_store_is_not_synthetic(self, store: QlibStore) -> None:
        assert store_info(store.root).sample is None

    def test_side_data_that_cannot_be_read_are_said(self, store: QlibStore) -> None:
        (store.root / "side").mkdir()
        (store.root / "side" / "broken.csv").write_text("a,b\n1,2\n")
        (side,) = store_info(store.root).side
        assert (side.name, side.shape, side.bytes) == ("broken", None, 8)
        assert "broken.csv" in str(side.problem)
        (store.root / "side" / "broken.parquet").write_text("")
        (side,) = store_info(store.root).side
        assert "broken.parquet" in str(side.problem)

    @pytest.mark.parametrize("content", ["{", "[]"])
    def test_import_settings(self, store: QlibStore, content: str) -> None:
        path = store.root / "import.json"
        path.write_text('{"settings": {"region": "us"}}')
        assert store_info(store.root).import_settings == {"settings": {"region": "us"}}
        path.write_text(content)
        with pytest.raises(StoreError, match=r"import.json` must be"):
            store_info(store.root)

    def test_the_real_store(self, real_store: QlibStore) -> None:
        found = store_info(real_store.root, fingerprint=False)
        assert (found.days, found.instruments, found.volume) == (2674, 647, "raw")
        (csi300,) = [universe for universe in found.universes if universe.name == "csi300"]
        assert (csi300.codes, csi300.without_bars) == (682, 38)
        assert {field.name for field in found.fields} >= {"open", "close", "high", "low", "volume", "factor"}
