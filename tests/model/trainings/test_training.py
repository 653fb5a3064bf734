"""What a process of its own is told of Qlib."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from qlib.config import C

from qlib_ext.model.trainings.training import qlib_settings, say_into


def test_a_process_reads_the_same_store_and_writes_to_the_same_mlflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manager = {"class": "ExperimentManager", "kwargs": {"uri": None, "default_exp_name": "walk"}}
    monkeypatch.setitem(C.__dict__["_config"], "exp_manager", manager)
    found = qlib_settings("sqlite:///mlflow.db")
    assert found["exp_manager"]["kwargs"] == {"uri": "sqlite:///mlflow.db", "default_exp_name": "walk"}
    assert manager["kwargs"]["uri"] is None
    assert found["provider_uri"] == C["provider_uri"]


def test_what_a_process_says_goes_into_a_file(tmp_path: Path) -> None:
    path = tmp_path / "search" / "trainings.log"
    for said in (b"one\n", b"two\n"):
        child = os.fork()  # where the words of this process stay what they are
        if child == 0:
            say_into(path)
            os.write(1, said)
            os.write(2, said)
            os._exit(0)
        os.waitpid(child, 0)
    assert path.read_bytes() == b"one\none\ntwo\ntwo\n"
