"""Scores of runs that are combined keep what is known of any of them; MLflow is made up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from qlib_ext.model.ensemble import combined_scores
from qlib_ext.model.ensemble.combined_scores import CombinedScores


@pytest.mark.parametrize("knowing", [True, False])
def test_one_that_knows_the_future_is_enough(monkeypatch: pytest.MonkeyPatch, knowing: bool) -> None:
    found: dict[str, str] = {}
    known = {"1": {}, "2": {"combinatorial": "6 folds"} if knowing else {}}
    client = SimpleNamespace(get_run=lambda run: SimpleNamespace(data=SimpleNamespace(tags=known[run])))
    recorder = SimpleNamespace(set_tags=lambda **given: found.update(given))
    monkeypatch.setattr(combined_scores, "active_recorder", lambda: recorder)
    monkeypatch.setattr(combined_scores, "connect", lambda uri: client)
    monkeypatch.setattr(combined_scores, "keep", lambda *given: None)
    monkeypatch.setattr(CombinedScores, "_members", lambda self: None)
    dataset: Any = None
    CombinedScores({"one": "1", "other": "2"}).fit(dataset)
    assert found.get("combinatorial") == ("6 folds" if knowing else None)
