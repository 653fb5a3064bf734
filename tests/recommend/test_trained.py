from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.recommend.trained import TrainedRun, check_summary
from qlib_ext.tracking.artifacts import RunArtifacts

SUMMARY: dict[str, Any] = {
    "segments": {"test": {"start": "2017-01-03", "end": "2017-06-30"}},
    "fields": ["close"],
    "missing_fields": [],
    "labels": {"RETURN": "$close"},
    "universe": "csi300",
    "store_end": "2017-06-30",
    "fingerprint": "0123456789abcdef",
    "lookback_days": 60,
    "of a later version": None,
}


def test_a_summary_as_a_run_writes_it_passes() -> None:
    check_summary(SUMMARY, "the run `x`")


@pytest.mark.parametrize(
    ("summary", "said"),
    [
        ([], "list indices must be integers"),
        (3, "'int' object is not subscriptable"),
        (SUMMARY | {"segments": 3}, "its segments is 3"),
        (SUMMARY | {"segments": {"test": "2017"}}, "string indices must be"),
        (SUMMARY | {"store_end": "some day"}, "some day"),
        ({name: SUMMARY[name] for name in SUMMARY if name != "universe"}, "it has no 'universe'"),
    ],
)
def test_one_of_another_shape_is_one_sentence(summary: Any, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        check_summary(summary, "the run `x`")
    assert str(caught.value).startswith(
        "the run `x` must keep in data/summary.json what its dataset was, found"
    )
    assert "\n" not in str(caught.value)


DAY = pd.Timestamp("2017-06-30")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"dataset": 3}, "`dataset` must be a mapping with `class`"),
        ({"dataset": {"class": "a.B", "kwargs": 3}}, "`dataset.kwargs` must be a mapping, found 3"),
        ({"dataset": {"class": "a.B"}}, "`dataset.handler` must be a mapping with `class`"),
        ({"model": "a.B"}, "`model` must be a mapping with `class`"),
        ({"model": {"class": "B", "module_path": 3}}, "`model.module_path` must be a dotted name, found 3"),
    ],
)
def test_a_configuration_of_another_shape_is_one_sentence(config: Any, said: str) -> None:
    run = TrainedRun("0" * 32, "x", config, SUMMARY, RunArtifacts(Path(), {}))
    with pytest.raises(UserError, match=re.escape(said)):
        run.model(None) if "model" in config else run.dataset({"test": (DAY, DAY)})  # type: ignore[arg-type]
