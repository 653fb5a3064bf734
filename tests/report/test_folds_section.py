"""The section of folds, and the marks of folds in other charts, on tables that are written down."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from qlib_ext.report import figures, plotly_charts
from qlib_ext.report.fold_marks import fold_marks
from qlib_ext.report.sections.folds import Folds
from qlib_ext.tracking.artifacts import RunArtifacts

PLAN = "rolling, train 5y, valid 1y, test 6m"
FOLD = {
    "run_id": "a" * 32,
    "trained": True,
    "minutes": 2.5,
    "train_start": "2009-01-05",
    "train_end": "2013-12-27",
    "valid_start": "2014-01-02",
    "valid_end": "2014-12-29",
    "test_start": "2015-01-05",
    "test_end": "2015-06-30",
    "days": 119,
    "IC": 0.03,
    "RankIC": 0.05,
    "RankIC/train": 0.2,
    "RankIC/valid": 0.06,
    "RankIC/test": 0.04,
    "psi": 0.1,
    "moved": 0.0,
}
LATER = {
    "trained": False,
    "test_start": "2015-07-01",
    "test_end": "2015-12-31",
    "RankIC": -0.01,
    "psi": 0.3,
    "moved": 0.5,
}
TRADED = {"return": 0.1, "excess_return": -0.02, "information_ratio": -0.4, "turnover": 0.3}


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., RunArtifacts]:
    def made(traded: bool = True) -> RunArtifacts:
        rows = [FOLD | (TRADED if traded else {}), FOLD | LATER | (TRADED if traded else {})]
        (tmp_path / "folds").mkdir()
        pd.DataFrame(rows, index=pd.Index([1, 2], name="fold")).to_csv(tmp_path / "folds" / "folds.csv")
        drift = pd.DataFrame(
            {"1": [0.05, 0.15], "2": [0.5, 0.1]}, index=pd.Index(["<b>A", "B"], name="feature")
        )
        drift.to_csv(tmp_path / "folds" / "drift.csv")
        return RunArtifacts(tmp_path, tags={"walk_forward": PLAN})

    return made


def text(page: str) -> str:
    return re.sub(r"<[^>]+>", " ", re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL))


def test_every_chart_is_drawn_on_the_page_and_as_a_picture(run: Callable[..., RunArtifacts]) -> None:
    made = run()
    page, charts = Folds().render(made), Folds().charts(made)
    assert {*charts} == {"folds_rank_ic", "folds_return", "folds_drift"}
    for name, chart in charts.items():
        assert f'id="chart-{name}"' in page
        assert plotly_charts.description(chart)["traces"]
        assert figures.to_png(figures.drawn(chart))[:4] == b"\x89PNG"
        assert chart.caption.endswith(".")
    assert "<b>A" not in page


def test_it_says_in_how_many_folds_it_holds_and_what_is_lost(run: Callable[..., RunArtifacts]) -> None:
    said = text(Folds().render(run()))
    assert f"2 models ({PLAN}), each trained anew" in said
    assert "RankIC is above zero in 1 of 2 folds, from −0.0100 (fold 2) to 0.0500 (fold 1)." in said
    assert "On the mean fold it is 0.0600 on the validation and 0.0400 on the test." in said
    assert "0.20 on the mean fold, most in fold 2 (0.30, with 50% of them above 0.25)" in said
    assert "taken from an earlier run" in said


def test_the_features_that_moved_most_come_first(run: Callable[..., RunArtifacts]) -> None:
    drift = Folds().charts(run())["folds_drift"]
    assert [*drift.values.index] == ["<b>A", "B"]
    assert [*drift.values.columns] == ["1: 2015-01", "2: 2015-07"]


def test_without_a_backtest_it_shows_no_return(run: Callable[..., RunArtifacts]) -> None:
    made = run(traded=False)
    assert {*Folds().charts(made)} == {"folds_rank_ic", "folds_drift"}
    assert "Excess" not in text(Folds().render(made))


def test_marks_stand_where_another_fold_begins(run: Callable[..., RunArtifacts], tmp_path: Path) -> None:
    assert fold_marks(RunArtifacts(tmp_path)) == {}
    assert fold_marks(run()) == {"fold 2": pd.Timestamp("2015-07-01")}
