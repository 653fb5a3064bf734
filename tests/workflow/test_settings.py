"""The keys of a workflow, and where the one that `qrun` runs is found."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from qlib.cli import run as qrun

from qlib_ext.checks import UserError
from qlib_ext.workflow.settings import check_settings, of_qrun

GOOD: dict[str, Any] = {"qlib_init": {"provider_uri": "x", "region": "cn"}, "task": {}}


class TestSettings:
    @pytest.mark.parametrize(
        "more",
        [
            {},
            {"experiment_name": "x", "sys": {"rel_path": "."}},
            {"market": "csi300", "benchmark": "SH000300"},  # anchors, as in Qlib's own examples
            {"data_handler_config": {"a": 1}, "x-note": "what a person notes"},
        ],
    )
    def test_what_qlib_and_people_write_passes(self, more: dict[str, Any]) -> None:
        check_settings({**GOOD, **more})

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ([GOOD], "a workflow must be a mapping"),
            ({**GOOD, "taks": {}}, r"no key `taks` \(did you mean task\?\)"),
            (
                {**GOOD, "note": "x"},
                "no key `note`; it has experiment_name, qlib_init, task, sys, BASE_CONFIG_PATH",
            ),
            ({"task": {}}, "must have `qlib_init`, found task"),
            ({**GOOD, "experiment_name": " "}, "`experiment_name` must be a name, found ' '"),
            ({**GOOD, "qlib_init": "cn"}, "`qlib_init` must be a mapping"),
            (
                {**GOOD, "qlib_init": {"region": "de"}},
                "`qlib_init.region` must be one of cn, tw, us, found 'de'",
            ),
            (
                {**GOOD, "qlib_init": {"kernel": 1}},
                r"`qlib_init` has no place for `kernel` \(did you mean kernels",
            ),
            (
                {**GOOD, "qlib_init": {"provider_uri": 3}},
                "`qlib_init.provider_uri` must be a str, found int: 3",
            ),
            (
                {**GOOD, "qlib_init": {"custom_ops": [{"class": "Op", "module_path": "evil"}]}},
                r"`qlib_init.custom_ops\[0\].class` must be of one of the packages",
            ),
        ],
    )
    def test_what_is_wrong_is_said(self, config: Any, message: str) -> None:
        with pytest.raises(UserError, match=message):
            check_settings(config)


class TestQrun:
    def test_its_workflow_is_found_while_it_runs(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = []
        monkeypatch.setattr(qrun.qlib, "init", lambda **given: found.append(of_qrun()))
        monkeypatch.setattr(qrun, "task_train", lambda *given, **named: SimpleNamespace(save_objects=dict))
        path = tmp_path / "w.yaml"
        path.write_text(yaml.safe_dump(GOOD))
        qrun.workflow(str(path))
        assert found == [GOOD]

    def test_a_function_of_that_name_elsewhere_is_none(self) -> None:
        def workflow(config: dict[str, Any]) -> Any:
            return of_qrun()

        assert workflow(GOOD) is None
