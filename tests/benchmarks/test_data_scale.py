"""The benchmark measures what it says, keeps what it measured, and its lines are those of numpy."""

from __future__ import annotations

import csv
import importlib.util
import os
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "data_scale.py"


def load() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("data_scale", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["data_scale"] = module
    spec.loader.exec_module(module)
    return module


MODULE = load()


@pytest.fixture
def benchmark_() -> Iterator[types.ModuleType]:
    sys.modules["data_scale"] = MODULE
    yield MODULE
    del sys.modules["data_scale"]


@pytest.fixture
def here(benchmark_: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Work in this process, whose memory and time are no test's matter; the names of the work done."""
    done: list[str] = []

    def work(function: Callable[..., Any], *arguments: Any) -> Any:
        done.append(function.__name__)
        return function(*arguments)

    monkeypatch.setattr(benchmark_, "in_a_fresh_process", work)
    for bar in ("SECONDS", "GIGABYTES", "CACHED_SECONDS"):
        monkeypatch.setattr(benchmark_, bar, 1e9)
    return done


@pytest.fixture(scope="module")
def markets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("markets")


@pytest.fixture
def command(tmp_path: Path, markets: Path, benchmark_: types.ModuleType) -> Callable[..., int]:
    def run(*more: str) -> int:
        given = ["--markets", str(markets), "--out", str(tmp_path / "out"), "--years", "3"]
        return benchmark_.main([*given, *more])

    return run


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "scale.csv").open() as file:
        return list(csv.DictReader(file))


class TestCommand:
    def test_points_are_measured_once_and_shown(
        self, command: Callable[..., int], here: list[str], markets: Path, tmp_path: Path, capsys: Any
    ) -> None:
        assert command("--stocks", "20") == 0
        assert here == ["make_market", "measure", "measure", "measure"]
        assert command("--stocks", "20", "30") == 0
        assert here.count("measure") == 6  # the first point is kept
        assert "20 stocks, 3 years: there already" in capsys.readouterr().out
        rows = table(tmp_path / "out")
        assert [row["stocks"] for row in rows] == ["20", "30"]
        assert int(rows[1]["rows"]) > int(rows[0]["rows"]) > int(rows[0]["fitted_rows"]) > 2000
        assert rows[0]["instruments"] == "23"  # with the three indices
        page = (tmp_path / "out" / "README.md").read_text()
        assert "## The largest: 30 stocks, 3 years" in page
        assert "## Linear in stocks × days" in page
        assert (tmp_path / "out" / "scale.png").read_bytes().startswith(b"\x89PNG")
        assert not list(markets.glob("cache-*"))

        assert command("--stocks", "20", "30", "--again") == 0
        assert here.count("measure") == 12

    def test_points_of_other_code_are_measured_anew(
        self,
        command: Callable[..., int],
        here: list[str],
        benchmark_: types.ModuleType,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        command("--stocks", "20")
        monkeypatch.setattr(benchmark_, "code", lambda: "other")
        command("--stocks", "20")
        assert here.count("measure") == 6

    def test_a_missed_bar_is_the_exit_status(
        self,
        command: Callable[..., int],
        here: list[str],
        benchmark_: types.ModuleType,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        monkeypatch.setattr(benchmark_, "GIGABYTES", 0.001)
        assert command("--stocks", "20") == 1
        assert "MISSED" in (tmp_path / "out" / "README.md").read_text()

    def test_there_must_be_a_year_a_segment(self, command: Callable[..., int], capsys: Any) -> None:
        assert command("--stocks", "20", "--years", "2") == 2
        assert "`--years` must be at least 3, one a segment, found 2" in capsys.readouterr().out

    def test_a_cache_that_gives_another_batch_is_an_error(
        self,
        command: Callable[..., int],
        benchmark_: types.ModuleType,
        monkeypatch: pytest.MonkeyPatch,
        capsys: Any,
    ) -> None:
        sums = iter([1.0, 1.0, 2.0])

        def work(function: Callable[..., Any], *arguments: Any) -> Any:
            found = function(*arguments)
            return found if found is None else found | {"checksum": next(sums)}

        monkeypatch.setattr(benchmark_, "in_a_fresh_process", work)
        assert command("--stocks", "20") == 2
        assert "the cache gave another first batch" in capsys.readouterr().out.replace("\n", " ")

    def test_qlibs_table_is_measured_small_and_marked_as_extrapolated(
        self,
        command: Callable[..., int],
        here: list[str],
        benchmark_: types.ModuleType,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        real: dict[str, float] = {}

        def measure_qlib(root: str, years: int) -> dict[str, float]:
            """Qlib's own, once; the second size is twice the first in everything."""
            if not real:
                real.update(benchmark_measure(root, years))
                return dict(real)
            return {**{name: 2 * value for name, value in real.items()}, "rows": 2 * real["rows"]}

        benchmark_measure = benchmark_.measure_qlib
        monkeypatch.setattr(benchmark_, "measure_qlib", measure_qlib)
        monkeypatch.setattr(benchmark_, "QLIB_POINTS", ((20, 3), (30, 3)))
        assert command("--stocks", "20", "--qlib") == 0
        assert here.count("measure_qlib") == 2
        assert 10_000 < real["rows"] < 23 * 740
        assert (
            real["gigabytes"] >= real["imports_gigabytes"] > 0.1
        )  # so small a table may fit where imports were
        page = (tmp_path / "out" / "README.md").read_text()
        assert "## Qlib's own table" in page
        assert "That is an extrapolation over a factor of" in page
        assert command("--stocks", "20", "--qlib") == 0
        assert here.count("measure_qlib") == 2


class TestLine:
    @given(
        points=st.lists(
            st.tuples(st.floats(0, 1e3), st.floats(-1e3, 1e3)),
            min_size=3,
            max_size=20,
            unique_by=lambda p: p[0],
        )
    )
    def test_against_numpy(self, points: list[tuple[float, float]]) -> None:
        x, y = map(np.array, zip(*points, strict=True))
        if np.ptp(x) < 1e-3:
            return
        line = MODULE.Line.through(x.tolist(), y.tolist())
        slope, start = np.polyfit(x, y, 1)
        np.testing.assert_allclose([line.at(v) for v in x], start + slope * x, atol=1e-6)
        assert line.largest_residual == pytest.approx(np.abs(y - start - slope * x).max(), abs=1e-6)

    def test_a_line_is_a_line(self) -> None:
        line = MODULE.Line.through([1.0, 2.0, 5.0], [3.0, 5.0, 11.0])
        assert (line.start, line.slope, line.r_squared) == pytest.approx((1, 2, 1))
        assert line.largest_residual == pytest.approx(0, abs=1e-12)


def test_segments_are_the_workflows_for_16_years(benchmark_: types.ModuleType) -> None:
    assert benchmark_.segments(16) == {
        "train": ["2005-01-01", "2014-12-31"],
        "valid": ["2015-01-01", "2016-12-31"],
        "test": ["2017-01-01", "2020-12-31"],
    }
    for years in range(3, 17):
        days = [day for bounds in benchmark_.segments(years).values() for day in bounds]
        assert days == sorted(days)


def test_what_is_written_is_read(benchmark_: types.ModuleType, tmp_path: Path) -> None:
    point = benchmark_.Point(300, 4, 974, 303, 10, 5, 0.5, 0.25, 0.5, 0.25, 1.5, 0.125, 0.5, 0.25, 2.0, "abc")
    other = replace(point, stocks=1000, seconds=1.25)
    benchmark_.write(tmp_path / "points.csv", [point, other], benchmark_.Point)
    assert benchmark_.read(tmp_path / "points.csv", benchmark_.Point) == [point, other]
    assert benchmark_.read(tmp_path / "none.csv", benchmark_.Point) == []


def test_each_measurement_has_a_process_of_its_own(benchmark_: types.ModuleType) -> None:
    first, second = (benchmark_.in_a_fresh_process(os.getpid) for _ in range(2))
    assert len({first, second, os.getpid()}) == 3
