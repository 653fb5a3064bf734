from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from qlib_ext.checks import UserError
from qlib_ext.market.finding import Finding, Kind, QualityReport
from qlib_ext.market.quality.check import KINDS, check_store
from qlib_ext.records import quality as record
from qlib_ext.records.quality import QualityRecord
from qlib_ext.records.signal import SignalRecord


@pytest.fixture
def described(run: Any, workplace: Any, model: Any) -> Any:
    SignalRecord(recorder=run, model=model, dataset=workplace).generate()
    return run


def read(run: Any, folder: Path) -> QualityReport:
    return QualityReport.from_json(
        json.loads(Path(run.download_artifact("data/quality.json", folder)).read_text())
    )


def test_it_writes_what_it_names(described: Any, files: Any) -> None:
    before = files()
    record = QualityRecord(recorder=described)
    record.generate()
    assert files() - before == set(record.list()) == {"data/quality.json"}


def test_it_is_the_audit_of_the_runs_store(described: Any, tmp_path: Path) -> None:
    QualityRecord(recorder=described).generate()
    found = read(described, tmp_path)
    expected = check_store("store", universe="csi300", benchmark="SH000300")
    assert found.findings == expected.findings
    assert len(found.kinds) == len(KINDS)
    assert found.findings  # the little market has no open
    assert found.store["root"] == "store"  # and not where it lies
    metrics = described.list_metrics()
    for severity, count in expected.counts.items():
        assert metrics[f"quality/{severity}s"] == count


def test_errors_are_said_in_one_line(
    described: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = (Kind("gap", "error", "a day is missing", "returns span two days"),)
    gaps = tuple(Finding("gap", "error", f"2020-01-0{k} is missing") for k in (2, 3))
    monkeypatch.setattr(record, "check_store", lambda *_, **__: QualityReport(gaps, kinds, {"root": "store"}))
    with caplog.at_level(logging.WARNING, logger="qlib_ext.records.quality"):
        QualityRecord(recorder=described).generate()
    (line,) = [entry.getMessage() for entry in caplog.records if entry.name == "qlib_ext.records.quality"]
    assert line.startswith(
        "Data quality: 2 errors in the data of this run, the first: 2020-01-02 is missing. "
    )
    assert line.endswith("/store --universe csi300 --benchmark SH000300` lists them")
    assert described.list_metrics()["quality/errors"] == 2


def test_without_a_description_of_the_data(run: Any) -> None:
    with pytest.raises(
        UserError, match=r"`data/summary.json`, written by qlib_ext.records.signal.SignalRecord"
    ):
        QualityRecord(recorder=run).generate()
