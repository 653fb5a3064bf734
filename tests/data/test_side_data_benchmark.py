"""The benchmark of side data measures what it says."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "side_data.py"


@pytest.fixture(scope="module")
def benchmark_() -> Iterator[types.ModuleType]:
    spec = importlib.util.spec_from_file_location("side_data", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["side_data"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["side_data"]


def test_made_stocks_are_in_as_many_concepts_as_it_says(benchmark_: types.ModuleType) -> None:
    spells = benchmark_.made_spells(800, 20, 1000, 3)
    for day in (0, 374, 375, 799):
        assert (spells.matrix(day, np.arange(20)).sum(axis=1) >= 2).all()  # two of three may be the same
        assert spells.matrix(day, np.arange(20)).sum() > 55


def test_every_day_is_gathered_on_the_device(
    benchmark_: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []

    class Gather:
        def __init__(self, *_: Any) -> None:
            pass

        def __call__(self, day: int, columns: torch.Tensor) -> None:
            seen.append((day, len(columns)))

    monkeypatch.setattr(benchmark_, "ConceptGather", Gather)
    present = np.ones((50, 4), dtype=bool)
    present[:10] = False
    found = benchmark_.milliseconds_a_day(None, present, torch.device("cpu"), repeats=5)
    assert found > 0
    assert seen == [(10, 4), (10, 4), (19, 4), (29, 4), (39, 4), (49, 4)]


def test_it_tells_every_source_and_whether_a_day_is_quick(
    benchmark_: types.ModuleType,
    store: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    arguments = ["--store", str(store.root), "--universe", "few", "--device", "cpu"]
    monkeypatch.setattr(benchmark_, "LIMIT_MS", 1e6)
    assert benchmark_.main(arguments) == 0
    text = capsys.readouterr().out
    assert "10 stocks, 200 days; gathered on cpu" in text
    assert "trailing median of the traded value" in text
    assert "clusters of trailing return correlations" in text
    assert "made: 300 stocks x 100 concepts" in text
    monkeypatch.setattr(benchmark_, "LIMIT_MS", 0.0)
    assert benchmark_.main(arguments) == 1
