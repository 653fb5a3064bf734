from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.market.importing.import_bars import import_bars
from qlib_ext.market.importing.import_settings import ImportSettings
from qlib_ext.market.store import QlibStore

DAYS = ["2000-01-03", "2000-01-04", "2000-01-05", "2000-01-06", "2000-01-07"]
US = ImportSettings(region="us", benchmarks=("qqq",))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for code, first in (("aapl", 1), ("brk.b", 2), ("con", 0), ("qqq", 0)):
        days = DAYS[first:]
        table = pd.DataFrame(
            {"Date": days, "Open": 1.0, "High": 2.0, "Low": 0.5, "Close": 1.5, "Volume": 100}
        )
        table.to_csv(folder / f"{code}.csv", index=False)
    return folder


class TestStore:
    def test_what_is_written(self, source: Path, tmp_path: Path) -> None:
        done = import_bars(source, tmp_path / "deep" / "store", US)
        store = QlibStore(tmp_path / "deep" / "store")
        assert done.store.fingerprint() == store.fingerprint()
        assert store.calendar.strftime("%Y-%m-%d").tolist() == DAYS
        assert store.instruments() == ["AAPL", "BRK.B", "CON", "QQQ"]
        assert store.universes() == ["all", "stocks"]
        assert store.membership("all")["instrument"].tolist() == ["AAPL", "BRK.B", "CON", "QQQ"]
        stocks = store.membership("stocks")
        assert stocks["instrument"].tolist() == ["AAPL", "BRK.B", "CON"]
        assert stocks["start"].dt.strftime("%Y-%m-%d").tolist() == [DAYS[1], DAYS[2], DAYS[0]]
        assert (stocks["end"] == store.calendar[-1]).all()
        np.testing.assert_array_equal(
            store.read(["close"], ["BRK.B"])[0, :, 0], [np.nan, np.nan, 1.5, 1.5, 1.5]
        )
        np.testing.assert_array_equal(store.read(["change"], ["CON"])[0, :, 0], [np.nan, 0, 0, 0, 0])

    def test_the_options_stay_with_it(self, source: Path, tmp_path: Path) -> None:
        done = import_bars(source, tmp_path / "store", US)
        assert ImportSettings.load(tmp_path / "store") == done.bars.settings
        content = json.loads((tmp_path / "store" / "import.json").read_text(encoding="utf-8"))
        assert (content["source"], tuple(content["notes"])) == (str(source), done.notes)
        said = json.loads((tmp_path / "store" / "universes.json").read_text(encoding="utf-8"))
        rule = "every instrument of the source but QQQ, from its first bar to its last"
        assert said == {"stocks": {"size": None, "rule": rule}}

    def test_the_same_import_has_the_same_fingerprint(self, source: Path, tmp_path: Path) -> None:
        stores = [import_bars(source, tmp_path / name, US).store for name in ("a", "b")]
        assert stores[0].fingerprint() == stores[1].fingerprint()

    def test_another_universe(self, source: Path, tmp_path: Path) -> None:
        store = import_bars(source, tmp_path / "s", ImportSettings(region="us", universe="mine")).store
        assert store.universes() == ["all", "mine"]
        assert store.membership("mine")["instrument"].tolist() == ["AAPL", "BRK.B", "CON", "QQQ"]

    def test_a_benchmark_without_bars(self, source: Path, tmp_path: Path) -> None:
        settings = ImportSettings(region="us", benchmarks=("QQQQ",))
        with pytest.raises(UserError, match=r"found none of QQQQ \(did you mean QQQ\?\)"):
            import_bars(source, tmp_path / "s", settings)
        assert not (tmp_path / "s").exists()


class TestTarget:
    def test_a_store_is_replaced_only_when_asked(self, source: Path, tmp_path: Path) -> None:
        out = tmp_path / "store"
        before = import_bars(source, out, US).store.fingerprint()
        (out / "side").mkdir()
        (out / "side" / "market_value.csv").write_text("dear")
        (out / "instruments" / "csi300.txt").write_text("AAPL\t2000-01-03\t2000-01-04\n")
        (out / "calendars" / "day_future.txt").write_text("2000-01-10\n")
        with pytest.raises(
            UserError, match="holds a store already: `--replace` makes it anew, `qlib-ext data update`"
        ):
            import_bars(source, out, US)
        (source / "con.csv").unlink()
        second = import_bars(source, out, US, replace=True)
        assert second.store.instruments() == ["AAPL", "BRK.B", "QQQ"]
        assert second.store.fingerprint() != before
        assert (out / "side" / "market_value.csv").read_text() == "dear"
        assert second.notes[-1] == (
            "the store that was replaced held more, which is gone: calendars/day_future.txt, instruments/csi300.txt"
        )
        assert import_bars(source, out, US, replace=True).notes == second.notes[:-1]

    def test_anything_else_is_never_replaced(self, source: Path, tmp_path: Path) -> None:
        for replace in (False, True):
            with pytest.raises(UserError, match=r"found something else at .*; nothing was written"):
                import_bars(source, source, US, replace=replace)
            (tmp_path / "file").touch()
            with pytest.raises(UserError, match="found a file at"):
                import_bars(source, tmp_path / "file", US, replace=replace)
        assert len(list(source.iterdir())) == 4

    def test_a_source_in_the_store_that_it_would_replace(self, source: Path, tmp_path: Path) -> None:
        out = tmp_path / "store"
        import_bars(source, out, US)
        inside = source.rename(out / "raw")
        with pytest.raises(UserError, match="lies in the store that it would replace"):
            import_bars(inside, out, US, replace=True)
        assert len(list(inside.iterdir())) == 4

    @pytest.mark.parametrize("replace", [False, True])
    def test_an_error_leaves_what_was_there(
        self, source: Path, tmp_path: Path, replace: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "store"
        before = import_bars(source, out, US).store.fingerprint() if replace else None

        def fail(*_: Any, **__: Any) -> None:
            raise RuntimeError("killed")

        monkeypatch.setattr(ImportSettings, "save", fail)
        with pytest.raises(RuntimeError, match="killed"):
            import_bars(source, out, US, replace=replace)
        assert (QlibStore(out).fingerprint() if replace else None) == before
        left = [path.name for path in tmp_path.iterdir() if path.name not in ("source", "store")]
        assert all(name.endswith(".lock") for name in left)
