"""Scores of a run that are used again keep what is known of them; MLflow is made up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from qlib_ext.model import given_scores
from qlib_ext.model.given_scores import GivenScores


def test_that_they_know_the_future_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    tags: dict[str, str] = {}
    run = SimpleNamespace(
        info=SimpleNamespace(run_id="1", run_name="crossed"),
        data=SimpleNamespace(tags={"combinatorial": "6 folds", "seed": "0", "other": "x"}),
    )
    recorder = SimpleNamespace(set_tags=lambda **given: tags.update(given))
    monkeypatch.setattr(given_scores, "active_recorder", lambda: recorder)
    monkeypatch.setattr(GivenScores, "found_run", lambda self: (None, run))
    dataset: Any = None
    GivenScores(run="crossed").fit(dataset)
    assert tags == {"combinatorial": "6 folds", "seed": "0", "scores": "crossed", "scores_of": "1"}
