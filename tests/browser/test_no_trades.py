"""An account too small for one lot: the run goes through, and its report says that nothing was traded."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qlib_ext.config.build import build, locate
from qlib_ext.records.base import Record
from qlib_ext.workflow.read import read_workflow
from tests.browser.test_report import check_every_chart
from tests.records.conftest import model, place, run, workplace

__all__ = ["model", "place", "run", "workplace"]  # fixtures

ROOT = Path(__file__).parent.parent.parent
STRATEGY = {"class": "qlib_ext.strategy.topk_dropout.TopkDropout", "kwargs": {"topk": 8, "n_drop": 2}}
CHANGED: dict[str, dict[str, Any]] = {
    "BacktestRecord": {"strategy": STRATEGY, "backtest": {"account": 100.0}},
    "SweepRecord": {"topk": [4, 8]},
}


@pytest.fixture
def report(run: Any, workplace: Any, model: Any, tmp_path: Path) -> Path:
    """The report of the workflow's records, but for the audits of a store and of a task, which this run has not."""
    records = read_workflow(ROOT / "workflows" / "mimstocr_csi300.yaml", {})
    for config in records["task"]["record"]:
        name = config["class"].rpartition(".")[2]
        if name in ("QualityRecord", "LookaheadRecord"):
            continue
        kwargs = {**config.get("kwargs", {}), **CHANGED.get(name, {})}
        if name == "ReportRecord":
            kwargs["out_dir"] = str(tmp_path)
        takes = inspect.signature(locate(config["class"], name="record")).parameters
        given = {key: value for key, value in (("model", model), ("dataset", workplace)) if key in takes}
        build(
            {"class": config["class"], "kwargs": kwargs}, Record, name=name, recorder=run, **given
        ).generate()
    (page,) = tmp_path.glob("*/report.html")
    return page


def test_a_run_with_no_trades(report: Path, visit: Callable[..., Any]) -> None:
    opened = visit(report)
    opened.draw_all()
    check_every_chart(opened)
    assert "Summary" in opened.page.locator("h2").all_inner_texts()
    opened.check_quiet()
