"""Threads of processes side by side, and a process that is killed."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from qlib_ext.checks import UserError
from qlib_ext.model.trainings import processes
from qlib_ext.model.trainings.processes import THREADS, Processes
from qlib_ext.model.trainings.training import Training

FOLD = Training("fold 3 of 4", {}, "walk", "walk fold 3", {})


@pytest.mark.parametrize(
    ("given", "workers", "expected"), [("8", 2, 4), ("2", 4, 1), ("8", 1, None), ("7", 2, 3)]
)
def test_each_has_its_share_of_the_threads(
    monkeypatch: pytest.MonkeyPatch, given: str, workers: int, expected: int | None
) -> None:
    monkeypatch.setenv(THREADS, given)
    assert Processes(workers).threads == expected


def test_without_a_word_of_the_environment_it_shares_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(THREADS)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    assert Processes(2).threads == 2


def test_what_a_process_inherits_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    for before in ("5", None):
        monkeypatch.delenv(THREADS, raising=False)
        if before is not None:
            monkeypatch.setenv(THREADS, before)
        with processes._environment(2):
            assert os.environ[THREADS] == "2"
        assert os.environ.get(THREADS) == before


def test_a_process_that_is_killed_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "train", killed)
    with pytest.raises(UserError, match=r"the process of fold 3 of 4 was killed.*`resume: 1`"):
        Processes(1).train(FOLD, {})


def killed(training: Training, settings: Any) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return ""
