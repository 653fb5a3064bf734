"""What a process of its own is told of Qlib."""

from __future__ import annotations

import pytest
from qlib.config import C

from qlib_ext.model.trainings.training import qlib_settings


def test_a_process_reads_the_same_store_and_writes_to_the_same_mlflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manager = {"class": "ExperimentManager", "kwargs": {"uri": None, "default_exp_name": "walk"}}
    monkeypatch.setitem(C.__dict__["_config"], "exp_manager", manager)
    found = qlib_settings("sqlite:///mlflow.db")
    assert found["exp_manager"]["kwargs"] == {"uri": "sqlite:///mlflow.db", "default_exp_name": "walk"}
    assert manager["kwargs"]["uri"] is None
    assert found["provider_uri"] == C["provider_uri"]
