"""The benchmark measures what it says: its parts, in this process and on the small market."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "data_prep.py"


@pytest.fixture(scope="module")
def benchmark_() -> Iterator[types.ModuleType]:
    spec = importlib.util.spec_from_file_location("data_prep", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["data_prep"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["data_prep"]


@pytest.fixture(scope="module")
def job(benchmark_: types.ModuleType, store: Any, tiny: Any) -> Any:
    return benchmark_.Job(str(store.root), "few", tiny.day(0), tiny.day(199), tiny.day(119))


@pytest.fixture(scope="module")
def qlibs(
    benchmark_: types.ModuleType, job: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict, Path]:
    """What Qlib's side found, and the folder with its table."""
    folder = tmp_path_factory.mktemp("qlib")
    return benchmark_.measure_qlib(job, str(folder)), folder


@pytest.fixture
def table(qlibs: tuple[dict, Path]) -> Iterator[np.ndarray]:
    """Qlib's table, to be spoilt; it is put back afterwards."""
    written = np.load(qlibs[1] / "table.npy", mmap_mode="r+")
    before = written.copy()
    yield written
    written[:] = before
    written.flush()


class TestComparison:
    def test_the_sides_agree(
        self, benchmark_: types.ModuleType, job: Any, qlibs: tuple[dict, Path], tiny: Any
    ) -> None:
        found = benchmark_.compare(job, str(qlibs[1]))
        assert found["largest_difference"] < 2e-4
        assert found["rows_shared"] == sum(map(len, tiny.members().values()))
        assert found["rows_only_ours"] == 0
        alone = qlibs[0]["table_rows"] - found["rows_shared"]
        assert alone > 50
        assert found["rows_only_qlib"] == found["rows_only_qlib_without_close"] == alone
        assert found["rows_only_qlib_all_zero"] == alone

    @pytest.mark.parametrize(("wrong", "difference"), [(10.0, 10.0), (np.nan, np.inf)])
    def test_one_wrong_number_is_found_wherever_it_stands(
        self,
        wrong: float,
        difference: float,
        benchmark_: types.ModuleType,
        job: Any,
        qlibs: tuple[dict, Path],
        table: np.ndarray,
    ) -> None:
        days, codes, names = (np.load(qlibs[1] / f"{part}.npy") for part in ("days", "instruments", "names"))
        for row, column in ((0, 359), (len(table) - 1, 0), (700, 100)):
            before = table[row, column]
            table[row, column] += wrong
            found = benchmark_.compare(job, str(qlibs[1]))
            assert found["largest_difference"] == pytest.approx(difference, abs=1e-3)
            assert found["where"] == f"{names[column]} of {codes[row]} on {str(days[row])[:10]}"
            table[row, column] = before

    def test_a_row_that_is_missing_is_found(
        self, benchmark_: types.ModuleType, job: Any, qlibs: tuple[dict, Path], tmp_path: Path
    ) -> None:
        for part in ("days", "instruments", "table"):
            np.save(tmp_path / f"{part}.npy", np.load(qlibs[1] / f"{part}.npy")[3:])
        np.save(tmp_path / "names.npy", np.load(qlibs[1] / "names.npy"))
        assert benchmark_.compare(job, str(tmp_path))["rows_only_ours"] == 3


class TestCommand:
    @pytest.fixture
    def arguments(
        self, job: Any, tmp_path: Path, benchmark_: types.ModuleType, monkeypatch: Any
    ) -> list[str]:
        monkeypatch.setattr(benchmark_, "in_a_fresh_process", lambda work, *given: work(*given))
        dates = ["--start", job.start, "--end", job.end, "--fit-end", job.fit_end]
        return ["--store", job.store, "--universe", "few", *dates, "--json", str(tmp_path / "found.json")]

    @pytest.fixture
    def bars_of_leisure(self, benchmark_: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        """Time and memory of this process are no test's matter."""
        monkeypatch.setattr(benchmark_, "SECONDS", 1e9)
        monkeypatch.setattr(benchmark_, "GIGABYTES", 1e9)

    @pytest.mark.usefixtures("bars_of_leisure")
    def test_it_prints_and_writes_what_it_found(
        self, arguments: list[str], benchmark_: types.ModuleType, capsys: Any, tmp_path: Path
    ) -> None:
        assert benchmark_.main(arguments) == 0
        printed = capsys.readouterr().out
        assert "largest difference" in printed
        assert "MISSED" not in printed
        found = json.loads((tmp_path / "found.json").read_text())
        assert set(found) == {"job", "machine", "ours", "qlib", "comparison", "bars"}
        assert found["ours"]["checksum"] == pytest.approx(
            found["qlib"]["checksum"], abs=1e-3
        )  # the same first batch
        assert all(bar["met"] for bar in found["bars"])

    @pytest.mark.usefixtures("bars_of_leisure")
    def test_a_missed_bar_is_the_exit_status(
        self, arguments: list[str], benchmark_: types.ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: Any
    ) -> None:
        assert benchmark_.main([*arguments, "--ours-only"]) == 0
        monkeypatch.setattr(benchmark_, "GIGABYTES", 0.001)
        assert benchmark_.main([*arguments, "--ours-only"]) == 1
        assert "MISSED" in capsys.readouterr().out

    def test_what_cannot_be_measured_is_said(
        self, arguments: list[str], benchmark_: types.ModuleType, capsys: Any
    ) -> None:
        assert benchmark_.main([*arguments, "--ours-only", "--universe", "csi300"]) == 2
        assert "no universe `csi300`" in capsys.readouterr().out


def test_each_side_has_a_process_of_its_own(benchmark_: types.ModuleType) -> None:
    first, second = (benchmark_.in_a_fresh_process(os.getpid) for _ in range(2))
    assert len({first, second, os.getpid()}) == 3
