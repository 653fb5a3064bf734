"""The workflow that a process was started for."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import qlib
import yaml
from qlib.cli import run as qrun

from qlib_ext.workflow.read import workflow_of_qrun

GOOD: dict[str, Any] = {"qlib_init": {"provider_uri": "x", "region": "cn"}, "task": {}}
MODULE = str(Path(qlib.__file__).parent / "cli" / "run.py")


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`w.yaml` in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.yaml").write_text(yaml.safe_dump(GOOD))
    return tmp_path / "w.yaml"


class TestOfQrun:
    @pytest.mark.parametrize("program", ["qrun", "/usr/bin/qrun", MODULE])
    @pytest.mark.parametrize(
        "words",
        ["w.yaml", "-c w.yaml", "-c=w.yaml", "--config_path=w.yaml", "--config-path w.yaml", "-e z w.yaml"],
    )
    def test_it_is_found_as_qrun_finds_it(
        self, program: str, words: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = []
        monkeypatch.setattr(qrun.qlib, "init", lambda **given: found.append(workflow_of_qrun()))
        monkeypatch.setattr(qrun, "task_train", lambda *given, **named: SimpleNamespace(save_objects=dict))
        monkeypatch.setattr(sys, "argv", [program, *words.split()])
        qrun.run()
        assert found == [GOOD]

    @pytest.mark.parametrize("argv", [["python", "w.yaml"], ["run.py", "w.yaml"], ["qrun"], [""], []])
    def test_another_process_has_none(self, argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "argv", argv)
        assert workflow_of_qrun() is None

    def test_what_can_be_read_once_is_left_to_qlib(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        os.mkfifo(tmp_path / "pipe")
        monkeypatch.setattr(sys, "argv", ["qrun", "pipe"])
        assert workflow_of_qrun() is None
