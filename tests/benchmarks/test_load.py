"""How the figures of load become a table: the exponents above all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import load


@pytest.fixture
def table() -> pd.DataFrame:
    """Of three sizes: a step that grows with its square root, one linearly, one with its square."""
    rows = [
        {"case": "files", "size": size, "step": step, "seconds": (size / 12_500) ** power, "peak_mb": 100}
        for size in load.CASES["files"][0]
        for step, power in (("root", 0.5), ("linear", 1.0), ("square", 2.0))
    ]
    return pd.DataFrame(rows)


def test_the_exponent_is_the_slope_of_the_logarithms(table: pd.DataFrame) -> None:
    found = load.exponents(table).set_index("step")["exponent"]
    assert [*found.index] == ["root", "linear", "square"]
    np.testing.assert_allclose(found, [0.5, 1.0, 2.0])


def test_the_page_has_a_row_a_step_and_the_sums(table: pd.DataFrame) -> None:
    page = load.page(table)
    assert "| step, s | 12,500 | 25,000 | 50,000 | exponent |" in page
    assert "| square | 1.00 | 4.00 | 16.00 | 2.00 |" in page
    assert "| all | 3.00 | 7.41 | 22.00 |" in page
    assert "| peak memory, MB | 100 | 100 | 100 | 0.00 |" in page
    assert "Days of a report" not in page


def test_the_figures_that_are_kept_are_of_every_size() -> None:
    kept = pd.read_csv(Path(load.__file__).parents[1] / "reports" / "load" / load.CSV)
    sizes = {case: tuple(sorted(part["size"].unique())) for case, part in kept.groupby("case")}
    assert sizes == {case: sizes for case, (sizes, _) in load.CASES.items()}
    found = load.exponents(kept)
    assert not len(found[(found["exponent"] > load.LIMIT) & (found.iloc[:, -2] > load.SECONDS)])
