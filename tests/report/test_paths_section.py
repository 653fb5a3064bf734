"""The section of paths, on tables that are written down."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from qlib_ext.report import figures, html, plotly_charts, verdict
from qlib_ext.report.sections.paths import Paths
from qlib_ext.tracking.artifacts import RunArtifacts

TRADED = {
    "annualised_return": [0.10, 0.02, -0.01],
    "annualised_excess_return": [0.05, -0.03, -0.06],
    "sharpe_ratio": [0.6, 0.1, -0.1],
    "information_ratio": [0.4, -0.3, -0.5],
    "max_drawdown": [-0.3, -0.2, -0.25],
}
CHOICE = {"measure": "return over the index", "days": 500, "probability": 0.46, "slope": -0.2, "loss": 0.7,
          "configurations": 3, "blocks": 16}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., RunArtifacts]:
    def made(traded: bool = True) -> RunArtifacts:
        (tmp_path / "paths").mkdir()
        index = pd.Index([1, 2, 3], name="path")
        table = pd.DataFrame({"IC": 0.02, "RankIC": [0.05, 0.01, -0.02], "RankICIR": 0.3}, index=index)
        table = table.assign(**TRADED) if traded else table
        table.to_csv(tmp_path / "paths" / "paths.csv")
        splits = pd.DataFrame(
            {
                "folds": ["1 2", "1 3", "2 3"],
                "run_id": ["<b>a", "b", "c"],
                "trained": [True, False, True],
                "in_order": [False, False, True],
                "minutes": 1.5,
                "psi": 0.2,
                "RankIC/train": 0.2,
                "RankIC/valid": 0.04,
                "RankIC/test": 0.03,
            },
            index=pd.Index([1, 2, 3], name="split"),
        )
        splits.to_csv(tmp_path / "paths" / "splits.csv")
        (tmp_path / "paths" / "overfitting.json").write_text(json.dumps(CHOICE if traded else {}))
        if traded:
            days = pd.bdate_range("2016-01-04", periods=5)
            wealth = pd.DataFrame({name: [1.0, 1.01, 1.02, 1.0, 0.99] for name in "123"}, index=days)
            wealth.to_parquet(tmp_path / "paths" / "wealth.parquet")
        return RunArtifacts(tmp_path, tags={"combinatorial": "3 folds, 2 of them scored at a time"})

    return made


def text(page: str) -> str:
    return re.sub(r"<[^>]+>", " ", re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL))


def test_every_chart_is_drawn_on_the_page_and_as_a_picture(run: Callable[..., RunArtifacts]) -> None:
    made = run()
    page, charts = Paths().render(made), Paths().charts(made)
    assert {*charts} == {"paths_rank_ic", "paths_ratio", "paths_wealth", "splits_rank_ic"}
    for name, chart in charts.items():
        assert f'id="chart-{name}"' in page
        assert plotly_charts.description(chart)["traces"]
        assert figures.to_png(figures.drawn(chart))[:4] == b"\x89PNG"
        assert chart.caption.endswith(".")
    assert "<b>a" not in page


def test_it_says_what_the_models_know_and_how_far_paths_differ(run: Callable[..., RunArtifacts]) -> None:
    said = text(Paths().render(run()))
    assert "3 models (3 folds, 2 of them scored at a time), each trained anew" in said
    assert "2 of them learned of days after those that they score" in said
    assert "RankIC is above zero on 2 of 3 paths, from −0.0200 to 0.0500" in said
    assert "the return over the index a year, after cost, from −6.0% to +5.0%" in said
    assert "with a probability of 46%" in said
    (row,) = re.findall(r"Over the index a year\s+((?:\S+\s+){7}\d of \d)", said)
    # mean, deviation, lowest, quartiles, highest
    assert row.split() == ["−1.3%", "+5.7%", "−6.0%", "−4.5%", "−3.0%", "+1.0%", "+5.0%", "1", "of", "3"]
    assert re.search(rf"Drawdown\s+(?:\S+\s+){{7}}{html.NONE}", said), "no share of it is above zero"
    assert "500 days in 16 blocks" in said
    assert "taken from an earlier run" in said


def test_without_a_backtest_there_are_ics_alone(run: Callable[..., RunArtifacts]) -> None:
    made = run(traded=False)
    assert {*Paths().charts(made)} == {"paths_rank_ic", "splits_rank_ic"}
    said = text(Paths().render(made))
    assert "Sharpe" not in said
    assert "overfitting" not in said


def test_the_page_warns_first_that_nobody_could_have_traded_so(tmp_path: Path) -> None:
    assert verdict._cross_validated(RunArtifacts(tmp_path)) == []
    (again,) = verdict._cross_validated(RunArtifacts(tmp_path, tags={"combinatorial": "6 folds"}))
    assert (again.kind, "nobody could have traded so" in again.text) == ("warning", True)
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "runs.json").write_text(json.dumps([{"in_order": False}, {"in_order": True}]))
    (remark,) = verdict._cross_validated(RunArtifacts(tmp_path))
    assert remark.kind == "warning"
    assert "1 of its 2 models learned of days after those that they score" in remark.text
