"""The section of an ensemble, on tables that are written down."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from qlib_ext.report.sections.ensemble import Ensemble
from qlib_ext.tracking.artifacts import RunArtifacts

ROWS = {
    "<b>trees": {"weight": 0.75, "RankIC": 0.05, "gain": 0.012, "gain_low": 0.004, "gain_high": 0.02},
    "LSTM": {"weight": 0.25, "RankIC": 0.03, "gain": -0.004, "gain_low": -0.007, "gain_high": -0.001},
    "ensemble": {"RankIC": 0.055},
}


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., RunArtifacts]:
    def made(members: int = 2, learned: bool = True) -> RunArtifacts:
        names = ["<b>trees", "LSTM"][:members]
        table = pd.DataFrame.from_dict({name: ROWS[name] for name in (*names, "ensemble")}, orient="index")
        table = table.assign(IC=0.02, RankICIR=0.3, scored=0.5)
        if members == 1:
            table = table.drop(columns=["gain", "gain_low", "gain_high"])
        if learned:
            table["RankIC/valid"] = 0.08
        (tmp_path / "ensemble").mkdir()
        table.rename_axis(index="member").to_csv(tmp_path / "ensemble" / "members.csv")
        matrix = (
            pd.DataFrame([[1.0, 0.4], [0.4, 1.0]])
            .iloc[:members, :members]
            .set_axis(names)
            .set_axis(names, axis=1)
        )
        matrix.rename_axis(index="member").to_csv(tmp_path / "ensemble" / "correlation.csv")
        (tmp_path / "ensemble" / "combiner.json").write_text(json.dumps({"combiner": "ICWeights()"}))
        return RunArtifacts(tmp_path)

    return made


def told(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_it_says_what_all_are_worth_and_who_is_needed(run: Callable[..., RunArtifacts]) -> None:
    page = told(Ensemble().render(run()))
    assert "2 members, combined by ICWeights(). RankIC of all together is 0.0550; alone it is 0.0400" in page
    assert "Scores of two members go together by 0.40 on the mean" in page
    assert "above zero for &lt;b&gt;trees, and below for LSTM." in page


def test_a_row_a_member(run: Callable[..., RunArtifacts]) -> None:
    page = told(Ensemble().render(run()))
    assert "75.0%" in page
    assert "+0.0120 (+0.0040 to +0.0200)" in page
    assert "50%" in page


def test_names_are_escaped(run: Callable[..., RunArtifacts]) -> None:
    assert "<b>trees" not in Ensemble().render(run())


def test_one_member_has_no_gain_and_nothing_to_go_together_with(run: Callable[..., RunArtifacts]) -> None:
    section, kept = Ensemble(), run(members=1, learned=False)
    page = told(section.render(kept))
    assert "1 member, combined" in page
    assert "go together" not in page
    assert [*section.charts(kept)] == ["ensemble_rank_ic"]
