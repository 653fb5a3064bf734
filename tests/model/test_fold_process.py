"""Folds side by side: one that fails lets others end, and each is given as it ends. No process is begun here."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from qlib.config import C

from qlib_ext.checks import UserError
from qlib_ext.model import fold_process
from qlib_ext.model.fold_process import FoldJob, train_all

JOBS = [FoldJob(number, {}, "walk", f"walk fold {number}", {}) for number in (1, 2, 3)]


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_process, "qlib_settings", lambda uri: {"uri": uri})


def test_each_is_given_with_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_process, "_in_a_process", lambda job, settings: f"{settings['uri']}{job.number}")
    found = {job.number: run for job, run in train_all(JOBS, 2, "sqlite:///")}
    assert found == {number: f"sqlite:///{number}" for number in (1, 2, 3)}


def test_one_that_fails_lets_those_under_way_end_and_none_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, failed = threading.Event(), threading.Event()
    done: list[int] = []

    def trained(job: FoldJob, settings: Any) -> str:
        if job.number == 1:
            begun.wait(10)
            failed.set()
            raise UserError("`learning_rate` is too high")
        begun.set()
        failed.wait(10)
        time.sleep(0.1)  # the failure of fold 1 is known before this one ends
        done.append(job.number)
        return "run"

    monkeypatch.setattr(fold_process, "_in_a_process", trained)
    with pytest.raises(UserError, match="too high"):
        list(train_all(JOBS, 2, "sqlite:///"))
    assert done == [2]


def test_a_process_reads_the_same_store_and_writes_to_the_same_mlflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    manager = {"class": "ExperimentManager", "kwargs": {"uri": None, "default_exp_name": "walk"}}
    monkeypatch.setitem(C.__dict__["_config"], "exp_manager", manager)
    found = fold_process.qlib_settings("sqlite:///mlflow.db")
    assert found["exp_manager"]["kwargs"] == {"uri": "sqlite:///mlflow.db", "default_exp_name": "walk"}
    assert manager["kwargs"]["uri"] is None
    assert found["provider_uri"] == C["provider_uri"]
