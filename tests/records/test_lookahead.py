from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from qlib_ext.checks import UserError
from qlib_ext.lookahead.findings import Check, Finding, Result
from qlib_ext.records import lookahead as record
from qlib_ext.records.lookahead import LookaheadRecord

FACTS = {"store": "store", "universe": "csi300", "first": "2020-01-02", "last": "2020-06-30"}
LEAK = Finding("feature-looks-ahead", "`X` follows from bars of later days", "2020-01-02", 12)


def looked(*findings: Finding) -> Result:
    return Result(FACTS, 12, findings, (Check("dates", "features", 12),))


def test_what_it_found_is_kept_and_counted(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    model = object()

    def audit(task: Any, **kwargs: Any) -> Result:
        asked.update(kwargs, task=task)
        return looked(LEAK)

    monkeypatch.setattr(record, "audit", audit)
    LookaheadRecord(recorder=run, model=model, dataset=None, dates=5).generate()
    assert asked["task"]["model"] == {"class": "a.Model"}
    assert (asked["dates"], asked["refits"], asked["model"](None)) == (5, 1, model)
    kept = json.loads(Path(run.download_artifact("lookahead/audit.json", tmp_path)).read_text())
    assert (kept["alarms"], kept["dates"], kept["first"]) == (1, 12, "2020-01-02")
    assert kept["findings"][0]["message"] == LEAK.message
    assert run.list_metrics() == {"lookahead/alarms": 1, "lookahead/dates": 12}


@pytest.mark.parametrize("findings", [(), (LEAK,)])
def test_an_alarm_is_one_line_of_the_log(
    findings: Any, run: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(record, "audit", lambda *_, **__: looked(*findings))
    with caplog.at_level(logging.WARNING, logger=record.__name__):
        LookaheadRecord(recorder=run, model=None, dataset=None).generate()
    said = [entry.getMessage() for entry in caplog.records if entry.name == record.__name__]
    assert len(said) == len(findings)
    assert all("1 alarms, the first: feature-looks-ahead: `X`" in line for line in said)


def test_arguments_are_checked_at_once() -> None:
    with pytest.raises(UserError, match="`dates` must be at least 1, found 0"):
        LookaheadRecord(recorder=None, model=None, dataset=None, dates=0)
