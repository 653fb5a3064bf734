"""The section of feature importance, on tables that are written down."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qlib_ext.report import figures, plotly_charts
from qlib_ext.report.sections.importance import Importance
from qlib_ext.tracking.artifacts import RunArtifacts

SEGMENT = {
    "days": 60,
    "of_days": 486,
    "start": "2015-01-05",
    "end": "2016-12-28",
    "rank_ic": 0.0741,
    "rank_ic_low": 0.03,
    "rank_ic_high": 0.12,
}
SUMMARY: dict[str, Any] = {
    "label": "RETURN",
    "repeats": 1,
    "seed": 0,
    "segments": {"valid": SEGMENT, "test": SEGMENT | {"rank_ic": None}},
    "groups": {"KBAR": ["KMID", "KLEN"]},
    "in_no_group": ["ROC5"],
    "scored_days": 22_800,
    "evaluation_days": 2_400,
}


def table(features: int = 40, *, beyond: int = 8, lasts: int = 3) -> pd.DataFrame:
    """Drops that fall from the first feature on; of the first ones the interval is above zero."""
    drops = np.linspace(0.02, -0.002, features)
    later, place = drops / 2 + 0.001, np.arange(features)
    found = pd.DataFrame({"valid": drops}, index=[f"F{k}" for k in range(features)])
    found["valid_low"] = np.where(place < beyond, 0.001, drops - 0.03)
    found["valid_high"] = drops + 0.03
    found["test"] = later
    found["test_low"] = np.where(place < lasts, 0.0005, later - 0.03)
    found["test_high"] = later + 0.03
    return found.rename_axis("feature")


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., RunArtifacts]:
    def made(
        features: pd.DataFrame, groups: pd.DataFrame | None = None, summary: Any = SUMMARY
    ) -> RunArtifacts:
        folder = tmp_path / "importance"
        folder.mkdir()
        features.sample(frac=1, random_state=0).to_csv(folder / "features.csv")
        if groups is not None:
            groups.to_csv(folder / "groups.csv")
        (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
        return RunArtifacts(tmp_path)

    return made


def text(page: str) -> str:
    return re.sub(r"<[^>]+>", " ", re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL))


def test_the_highest_on_validation_with_those_of_test_beside_them(run: Callable[..., RunArtifacts]) -> None:
    charts = Importance().charts(run(table()))
    chart = charts["importance_features"]
    assert [*chart.values.index] == [f"F{k}" for k in range(20)]
    assert [*chart.values.columns] == ["validation", "test"]
    expected = table()
    assert chart.values.loc["F3"].tolist() == pytest.approx(expected.loc["F3", ["valid", "test"]].tolist())
    assert chart.low.loc["F3", "test"] == pytest.approx(expected.loc["F3", "test_low"])
    assert chart.high.loc["F3", "validation"] == pytest.approx(expected.loc["F3", "valid_high"])
    assert [*charts] == ["importance_features"]


def test_features_and_groups_are_drawn_on_the_page_and_as_pictures(run: Callable[..., RunArtifacts]) -> None:
    groups = table(2, beyond=1, lasts=1).set_axis(["KBAR", "<b>ROC"]).assign(gain=[6.0, 2.0], splits=[3, 1])
    groups.insert(0, "features", [9, 5])
    made = run(table(3, beyond=1, lasts=1).assign(gain=[6.0, 2.0, 0.0], splits=[3, 1, 0]), groups)
    page = Importance().render(made)
    charts = Importance().charts(made)
    assert [*charts] == ["importance_features", "importance_groups"]
    for name, chart in charts.items():
        assert f'id="chart-{name}"' in page
        assert plotly_charts.description(chart)["traces"]
        assert figures.to_png(figures.drawn(chart))[:4] == b"\x89PNG"
        assert chart.caption.endswith(".")
    assert "<b>ROC" not in page
    said = text(page)
    assert "75.0%" in said, "of all gain"
    assert "In no group: ROC5." in said
    assert "nan" not in said.lower().split()
    assert "None" not in said.replace("None of", "")


def test_it_says_what_is_beyond_chance_and_whether_it_lasts(run: Callable[..., RunArtifacts]) -> None:
    said = text(Importance().render(run(table(beyond=8, lasts=3))))
    assert "The ranking changes with 40 of the 40 features. On validation 8 of them are beyond chance" in said
    assert "of as many features without any worth about 1 would be." in said
    assert "On test 3 of the 20 with the largest drop on validation are beyond chance." in said
    assert "Choose features by the column of validation." in said
    assert "60 of 486 days of validation (2015-01-05 to 2016-12-28, RankIC 0.0741)" in said
    assert "22,800 scored days, 9.5 times the days of train and validation together" in said


def test_it_says_so_where_nothing_lasts(run: Callable[..., RunArtifacts]) -> None:
    said = text(Importance().render(run(table(20, beyond=1, lasts=0))))
    assert "On validation 1 of them is beyond chance" in said
    assert "without any worth fewer than one would be" in said
    assert "On test none of the 20 with the largest drop on validation is beyond chance." in said


def test_what_the_ranking_does_not_change_with_is_counted_and_not_drawn(
    run: Callable[..., RunArtifacts],
) -> None:
    features = table(5)
    features.loc[["F0", "F4"]] = 0.0
    made = run(features)
    assert [*Importance().charts(made)["importance_features"].values.index] == ["F1", "F2", "F3"]
    assert "The ranking changes with 3 of the 5 features." in text(Importance().render(made))


def test_what_was_not_measured_is_named_and_not_drawn(run: Callable[..., RunArtifacts]) -> None:
    features = table(3)
    features.loc["F1"] = np.nan
    made = run(features)
    assert [*Importance().charts(made)["importance_features"].values.index] == ["F0", "F2"]
    said = text(Importance().render(made))
    assert "Not measured, as all stocks of a day have the same or no RankIC is there: F1." in said
    assert "The ranking changes with 2 of the 3 features." in said


def test_where_nothing_could_be_measured(run: Callable[..., RunArtifacts]) -> None:
    made = run(table(2) * np.nan)
    assert Importance().charts(made) == {}
    assert "The ranking changes with none of the 2 features." in text(Importance().render(made))


def test_it_reads_nothing_that_it_does_not_name(run: Callable[..., RunArtifacts]) -> None:
    class Watched(RunArtifacts):
        def _file(self, path: str) -> Path:
            assert path in (*Importance.requires, *Importance.optional)
            return super()._file(path)

    assert "9 of them" in Importance().render(Watched(run(table(beyond=9)).root))
