"""Old names do nothing but say the new ones, and every new one is there."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from qlib_ext.checks import UserError
from qlib_ext.cli.main import app
from qlib_ext.config import renamed
from qlib_ext.config.build import locate
from qlib_ext.config.renamed import CLASSES, COMMANDS, MODULES, RenamedError, new_name
from qlib_ext.config.security import check_classes

ROOT = Path(__file__).parents[2]


def exists(module: str) -> bool:
    """Whether this source tree has the module; another one may be installed beside it."""
    path = ROOT.joinpath(*module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


class TestTable:
    @pytest.mark.parametrize(("old", "new"), MODULES.items())
    def test_an_old_module_is_gone_and_the_new_one_is_there(self, old: str, new: str) -> None:
        assert exists(new)
        assert not exists(old) or old == "qlib_ext.record"  # which says the new names, see below

    @pytest.mark.parametrize("old", CLASSES)
    def test_an_old_class_is_gone_and_the_new_one_is_there(self, old: str) -> None:
        module, _, name = str(new_name(old)).rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), name), type)
        module, _, name = old.rpartition(".")
        assert not exists(module) or not hasattr(importlib.import_module(module), name)

    def test_a_new_command_is_there_and_the_old_one_is_not(self) -> None:
        group = typer.main.get_command(app)
        known = {*group.commands, *(f"data {name}" for name in group.commands["data"].commands)}
        assert {*COMMANDS.values()} <= known
        assert not {*COMMANDS} & known


class TestNewName:
    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("qlib_ext.record.signal.SignalRecord", "qlib_ext.records.signal.SignalRecord"),
            ("qlib_ext.record.audit.AuditRecord", "qlib_ext.records.quality.QualityRecord"),
            ("qlib_ext.record.experiment.ExperimentManager", "qlib_ext.workflow.experiment.ExperimentManager"),
            ("qlib_ext.causality.audit", "qlib_ext.lookahead.audit"),
            ("qlib_ext.records.signal.SignalRecord", None),
            ("qlib_ext.recorded.Mine", None),
            ("SignalRecord", None),
            ("", None),
        ],
    )  # fmt: skip
    def test_the_longest_name_that_fits_counts(self, old: str, new: str | None) -> None:
        assert new_name(old) == new


class TestMessages:
    SAID = (
        r"^`task.record\[0\].class` names `qlib_ext.record.signal.SignalRecord`, which is "
        r"`qlib_ext.records.signal.SignalRecord` since 0.2$"
    )

    def test_building_names_the_new_class(self) -> None:
        with pytest.raises(RenamedError, match=self.SAID):
            locate("qlib_ext.record.signal.SignalRecord", name="task.record[0]")

    def test_a_task_is_told_before_anything_is_imported(self) -> None:
        given = {"record": [{"class": "SignalRecord", "module_path": "qlib_ext.record.signal"}]}
        with pytest.raises(UserError, match=self.SAID):
            check_classes(given, "task")

    def test_what_the_new_class_needs_beside_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(renamed, "CLASSES", {"old.A": "new.B with `features`"})
        with pytest.raises(UserError, match=r"`old.A`, which is `new.B` with `features` since 0.2"):
            locate("old.A", name="x")
        assert renamed.new_name("old.A") == "new.B"

    def test_qlib_stops_at_an_old_experiment_manager_with_the_new_names(self) -> None:
        program = "import importlib; importlib.import_module('qlib_ext.record.experiment')"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
        )
        assert done.returncode == 1
        assert (
            "`qlib_ext.record.experiment` is `qlib_ext.workflow.experiment`" in done.stderr.splitlines()[-1]
        )
