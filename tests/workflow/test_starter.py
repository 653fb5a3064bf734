"""A folder to begin in: what is written, what is refused, and how the first run is called."""

from __future__ import annotations

import re
import shlex
import stat
import sys
from pathlib import Path

import jinja2
import jinja2.meta
import pytest

from qlib_ext.checks import UserError
from qlib_ext.market.synthetic.sample import SampleMarket
from qlib_ext.workflow import starter

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / "workflows").rglob("*.yaml"))


def test_the_workflows_are_those_of_the_repository() -> None:
    assert starter.workflows_folder() == ROOT / "workflows"


def test_an_installation_without_workflows_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("qlib_ext.__file__", str(tmp_path / "qlib_ext" / "__init__.py"))
    with pytest.raises(UserError, match="found none: install the package again"):
        starter.workflows_folder()
    (tmp_path / "qlib_ext" / "workflows").mkdir(parents=True)
    (tmp_path / "qlib_ext" / "workflows" / starter.MAIN).touch()
    assert starter.workflows_folder() == tmp_path / "qlib_ext" / "workflows"


def test_a_workflow_is_found_by_its_name() -> None:
    for path in (ROOT / "workflows").glob("*.yaml"):
        assert starter.shipped_workflow(path.stem) == starter.shipped_workflow(path.name) == path
    with pytest.raises(UserError, match=r"no workflow `mimstocr_csi30` \(did you mean mimstocr_csi300"):
        starter.shipped_workflow("mimstocr_csi30")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_variable_has_its_default(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = starter.defaults(text)
    template = jinja2.Environment(autoescape=False).from_string(text)
    assert set(found) == jinja2.meta.find_undeclared_variables(
        jinja2.Environment(autoescape=True).parse(text)
    )
    assert template.render() == template.render(found)


class TestBegin:
    def test_it_writes_workflows_and_a_readme(self, tmp_path: Path) -> None:
        starter.begin(tmp_path / "deep" / "mine")
        readme = (tmp_path / "deep" / "mine" / "README.md").read_text(encoding="utf-8")
        for path in WORKFLOWS:
            copy = tmp_path / "deep" / "mine" / path.relative_to(ROOT)
            assert copy.read_bytes() == path.read_bytes()
            if path.parent.name == "workflows":
                for name, default in starter.defaults(path.read_text(encoding="utf-8")).items():
                    assert f"| `{name}` | `{default}` |" in readme
        assert f"\n{starter.sample_command()}\n" in readme
        assert starter.is_begun(tmp_path / "deep" / "mine")

    def test_hidden_files_stay(self, tmp_path: Path) -> None:
        (tmp_path / ".venv").mkdir()
        (tmp_path / ".gitignore").write_text("dear")
        starter.begin(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {".venv", ".gitignore", "workflows", "README.md"}
        assert (tmp_path / ".gitignore").read_text() == "dear"

    @pytest.mark.parametrize("name", ["README.md", "workflows", "notes.txt"])
    def test_what_is_there_is_not_touched(self, name: str, tmp_path: Path) -> None:
        (tmp_path / name).write_text("dear")
        with pytest.raises(UserError, match=rf"`DIR` must be empty, found {name} in .*: nothing was written"):
            starter.begin(tmp_path)
        assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "dear")]

    def test_its_own_folder_is_refused_a_second_time(self, tmp_path: Path) -> None:
        starter.begin(tmp_path)
        (tmp_path / "workflows" / starter.MAIN).write_text("mine")
        with pytest.raises(UserError, match=r"found README\.md, workflows in"):
            starter.begin(tmp_path)
        assert (tmp_path / "workflows" / starter.MAIN).read_text() == "mine"

    def test_a_file_and_a_link_to_nowhere_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")
        for name in ("file", "link"):
            with pytest.raises(UserError, match="`DIR` must be a folder"):
                starter.begin(tmp_path / name)


class TestRunMain:
    @pytest.fixture
    def program(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """What stands in the place of Python: tells how it is called, and leaves a report unless told not to."""
        path = tmp_path / "python"
        path.write_text(
            '#!/bin/sh\necho said\necho "$@ $QLIB_DATA $N_EPOCHS $HIDDEN_SIZE $MLFLOW_DISABLE_TELEMETRY" > called\n'
            'test -n "$FAIL" && exit 3\nmkdir -p reports/runs/new && touch reports/runs/new/report.html\n'
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(sys, "executable", str(path))
        return path

    def test_it_is_a_demonstration_on_the_sample_market(
        self, program: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        old = tmp_path / "reports" / "runs" / "old" / "report.html"
        old.parent.mkdir(parents=True)
        old.touch()
        report = starter.run_main(
            tmp_path, {"PATH": "/usr/bin:/bin", "HIDDEN_SIZE": "7", "QLIB_DATA": "elsewhere"}
        )
        assert report == tmp_path / "reports" / "runs" / "new" / "report.html"
        assert (tmp_path / "called").read_text() == (
            "-m qlib.cli.run workflows/mimstocr_csi300.yaml sample_market 1 7 true\n"
        )

        assert capfd.readouterr() == ("", "said\n")

    def test_a_run_that_fails_is_told(self, program: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="the run ended with status 3 and left no report"):
            starter.run_main(tmp_path, {"PATH": "/usr/bin:/bin", "FAIL": "1"})


def test_make_and_the_command_make_the_same_market_and_run() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    of_make = dict(re.findall(r"^\s*(\w+) *\?= (\S+)$", text, flags=re.MULTILINE))
    assert of_make["SAMPLE"] == starter.SAMPLE
    assert of_make["WORKFLOW"] == f"workflows/{starter.MAIN}"
    assert {name: of_make[name] for name in starter.DEMONSTRATION} == starter.DEMONSTRATION
    given = {name: of_make[f"SAMPLE_{name.upper()}"] for name in starter.SAMPLE_ARGUMENTS}
    assert given == {name: str(value) for name, value in starter.SAMPLE_ARGUMENTS.items()}
    words = shlex.split(starter.sample_command())
    assert words[:5] == ["qlib-ext", "data", "sample", "--out", starter.SAMPLE]
    SampleMarket(**starter.SAMPLE_ARGUMENTS)  # type: ignore[arg-type]
