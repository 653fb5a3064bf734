"""Datasets of windows, and models that score the test segment and no other, as Qlib's own of time series are."""

from __future__ import annotations

from typing import Any

import pytest

from qlib_ext.lookahead.findings import Result

STEPS = 3
GRU = {
    "class": "qlib.contrib.model.pytorch_gru_ts.GRU",
    "kwargs": {
        "d_feat": 2,
        "hidden_size": 4,
        "num_layers": 1,
        "n_epochs": 200,
        "batch_size": 64,
        "n_jobs": 0,
        "GPU": -1,
    },
}


@pytest.fixture
def windows(table_task: Any, audited: Any) -> Any:
    """The audit of a GRU on windows of two features, of which one may be another."""

    def look(leak: str = "$open/$close") -> Result:
        task = table_task({"CHANGE": "$close/Ref($close, 1)-1", "OTHER": leak})
        task["dataset"]["class"] = "TSDatasetH"
        task["dataset"]["kwargs"]["step_len"] = STEPS
        learn = [{"class": "DropnaLabel"}, {"class": "CSRankNorm", "kwargs": {"fields_group": "label"}}]
        fill = [{"class": "Fillna", "kwargs": {"fields_group": "feature"}}]
        task["dataset"]["kwargs"]["handler"]["kwargs"] |= {
            "learn_processors": learn,
            "infer_processors": fill,
        }
        result: Result = audited({**task, "model": GRU}, dates=6, refits=1)
        return result

    return look


def test_windows_of_what_is_known_raise_no_alarm(windows: Any) -> None:
    result = windows()
    assert [finding.message for finding in result.findings] == []
    assert "scores" in next(check.what for check in result.checks if check.name == "dates")
    assert {check.name: check.dates for check in result.checks}["dates"] == 6


def test_a_leak_is_seen_in_the_newest_step_of_the_windows(windows: Any) -> None:
    found = [each for each in windows("Ref($close, -1)/$close-1").findings if "OTHER" in each.message]
    assert [each.kind for each in found] == ["feature-looks-ahead"]
    assert "`OTHER`" in found[0].what
    assert "`OTHER, 1 days ago`" not in found[0].what, "which ends with a day that is known"
