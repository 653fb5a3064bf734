from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from qlib_ext.market.importing.import_settings import ImportSettings
from qlib_ext.market.store import QlibStore

PATH = Path(__file__).parents[3] / "benchmarks" / "import_scale.py"
SPAN = ("2020-01-02", "2020-03-31")


@pytest.fixture
def benchmark_(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("import_scale", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "import_scale", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "in_a_fresh_process", lambda work, *given: work(*given))
    return module


class TestImportScale:
    def test_the_market_is_imported_whole(self, benchmark_: types.ModuleType, tmp_path: Path) -> None:
        rows = benchmark_.make_file(tmp_path / "market.parquet", 5, *SPAN)
        seconds, gigabytes = benchmark_.import_file(tmp_path / "market.parquet", tmp_path / "store")
        assert seconds > 0
        assert gigabytes > 0
        store = QlibStore(tmp_path / "store")
        assert store.instruments() == ["SH600000", "SH600001", "SH600002", "SZ000001", "SZ000002"]
        assert np.isfinite(store.read(["close", "vwap"], store.instruments())).all()
        assert rows == len(store.calendar) * 5
        settings = ImportSettings.load(tmp_path / "store")
        assert (settings.adjustment, settings.volume_unit, settings.amount_unit) == ("factor", 100, 1000)

    def test_it_says_what_it_needed(
        self, benchmark_: types.ModuleType, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ["--stocks", "4", "--start", SPAN[0], "--end", SPAN[1]]
        assert benchmark_.main([*arguments, "--gigabytes", "1e6", "--seconds", "1e6"]) == 0
        assert "4 stocks, 232 rows" in capsys.readouterr().out
        assert benchmark_.main([*arguments, "--gigabytes", "1e-9"]) == 1

    def test_days_without_trading(
        self, benchmark_: types.ModuleType, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert benchmark_.main(["--start", "2020-01-04", "--end", "2020-01-05"]) == 2
        assert "must have trading days between them" in capsys.readouterr().err
