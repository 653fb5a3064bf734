"""docs/metrics.md: what it names is there, and what is there it names."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ")
]
ROWS = [row for row in ROWS if row[0] != "metric"]
NAMED = [name for row in ROWS for name in re.findall(r"`([a-z_]+\.[a-z_0-9]+)`", row[2])]
COMPLETE = (
    "cross_section",
    "moments",
    "decay",
    "quantiles",
    "stability",
    "precision",
    "top_list",
    "ndcg",
    "classification",
    "calibration",
    "significance",
    "risk",
    "drawdowns",
    "distribution",
    "relative",
    "rolling",
    "periods",
    "bootstrap",
    "holdings",
    "costs",
    "factors",
    "diversity",
    "components",
    "attribution",
    "risk_forecast",
)
SHAPES = {
    "matrix",
    "same_shape",
    "present",
    "daily_series",
    "same_days",
    "check_drawing",
    "checked_returns",
}  # argument checks, no metrics


@pytest.mark.parametrize("name", NAMED)
def test_what_it_names_is_there(name: str) -> None:
    module, function = name.split(".")
    assert callable(getattr(importlib.import_module(f"qlib_ext.metrics.{module}"), function))


@pytest.mark.parametrize("module", COMPLETE)
def test_it_names_all_that_is_there(module: str) -> None:
    found = importlib.import_module(f"qlib_ext.metrics.{module}")
    functions = {
        name
        for name, value in vars(found).items()
        if inspect.isfunction(value) and value.__module__ == found.__name__ and not name.startswith("_")
    }
    assert {f"{module}.{name}" for name in functions - SHAPES} <= {*NAMED}


def test_the_tests_that_it_names_are_there() -> None:
    tests = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "metrics").glob("test_*.py")
    )
    named = re.findall(r"`([Tt]est_?\w+)`", PAGE)
    assert named
    for name in named:
        assert re.search(rf"(def|class) {name}\b", tests), name


def test_every_row_is_whole() -> None:
    assert len(ROWS) >= 30
    for row in ROWS:
        assert len(row) == 4, row
        assert all(cell.strip(" |") for cell in row), row
