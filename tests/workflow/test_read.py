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

from qlib_ext.checks import UserError
from qlib_ext.workflow import render
from qlib_ext.workflow.read import read_workflow, workflow_of_qrun

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


class TestTooMuch:
    """What is small as a file and endless as a workflow."""

    @pytest.fixture(autouse=True)
    def little(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(render, "SECONDS", 1)

    @pytest.mark.parametrize(
        ("template", "message"),
        [
            (
                "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
                "more than 1 seconds",
            ),
            ("x: {{ 'a' * 10 ** 10 }}", "more than 512 MiB of memory"),
            ("x: {{ 'a' * 10 ** 6 }}", "it gives more than 262,144 letters"),
            ("x: {{ " + "(" * 3_000 + "1" + ")" * 3_000 + " }}", "recursion"),
            ("x: {{ ''.__class__ + 1 }}", "unsafe"),
        ],
    )
    def test_templates(self, file: Path, template: str, message: str) -> None:
        file.write_text(template)
        with pytest.raises(UserError, match=f"is no template that fills in values.*{message}"):
            read_workflow(file)

    def test_a_template_that_computes_a_little(self, file: Path) -> None:
        file.write_text("qlib_init: {x: [{% for i in range(3) %}{{ i * N | int }}, {% endfor %}]}\n")
        assert read_workflow(file, {"N": "2"}) == {"qlib_init": {"x": [0, 2, 4]}}

    def test_what_fills_in_values_alone_starts_no_process(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(render.subprocess, "run", None)
        file.write_text(
            "a: {{ A | default(3, true) | int }}\nb: {% if B is defined %}1{% else %}2{% endif %}\n"
        )
        assert read_workflow(file, {"A": "7"}) == {"a": 7, "b": 2}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "a: &a [x, x]\n" + "b: &b [" + "*a, " * 300 + "]\nc: [" + "*b, " * 300 + "]\n",
                "more than 100,000 values",
            ),
            ("a: " + "[" * 200 + "]" * 200, "nested deeper than 64 levels"),
            ("a: " + "x" * 300_000, "must have at most 262,144 bytes"),
        ],
    )
    def test_yaml(self, file: Path, text: str, message: str) -> None:
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            read_workflow(file)

    def test_a_pipe(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(UserError, match="must be a regular file, found a pipe"):
            read_workflow(tmp_path / "pipe")


class TestBase:
    @pytest.mark.parametrize(
        "text",
        ["root:x:0:0:secret\n", "password: secret\n", "a: secret\na: secret2\n", "- secret\n", "a: [secret"],
    )
    def test_no_text_of_a_base_is_shown(self, text: str, tmp_path: Path, file: Path) -> None:
        (tmp_path / "other").write_text(text)
        file.write_text("BASE_CONFIG_PATH: other\ntask: {}\n")
        with pytest.raises(UserError) as caught:
            read_workflow(file)
        assert str(caught.value) == (
            f"`BASE_CONFIG_PATH` must be a workflow with qlib_init or task, found {Path('other')}, which is none"
        )

    def test_a_base_is_taken(self, tmp_path: Path, file: Path) -> None:
        (tmp_path / "base.yaml").write_text("qlib_init: {region: cn}\ntask: {model: 1, record: 2}\n")
        file.write_text("BASE_CONFIG_PATH: base.yaml\ntask: {model: 3}\n")
        found = read_workflow(file)
        assert (found["qlib_init"], found["task"]) == ({"region": "cn"}, {"model": 3, "record": 2})
