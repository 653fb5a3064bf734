"""The command, on a workflow file with a value of the environment."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qlib_ext.cli import main as cli
from qlib_ext.market.synthetic.sample import SampleMarket

WORKFLOW = """
qlib_init:
  provider_uri: "{{ QLIB_DATA }}"
  region: cn
  kernels: 1
task:
  model:
    class: qlib_ext.model.multi_task.MultiTaskModel
    kwargs:
      backbone: {class: qlib_ext.model.backbones.lstm.LSTM, kwargs: {hidden_size: 4, num_layers: 1}}
      tasks:
        score: {label: RETURN, loss: {class: qlib_ext.model.losses.mse.MSE}}
      balancer: {class: qlib_ext.model.balancers.single_task.SingleTask, kwargs: {task: score}}
  dataset:
    class: qlib_ext.data.dataset.DailyPanelDataset
    kwargs:
      purge: {{ PURGE | default('true', true) }}
      handler:
        class: qlib_ext.data.handlers.panel.PanelHandler
        kwargs:
          instruments: csi300
          features: {class: qlib_ext.features.alpha360.Alpha360, kwargs: {lookback_days: 5}}
          fit_start_time: 2014-03-03
          fit_end_time: 2014-06-30
      segments:
        train: [2014-03-03, 2014-06-30]
        valid: [2014-07-01, 2014-08-29]
        test: [2014-09-01, 2014-11-28]
"""


@pytest.fixture(scope="module")
def workflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    SampleMarket(seed=3, stocks=20, start="2014-03-03", end="2014-11-28").write(folder / "store")
    (folder / "w.yaml").write_text(WORKFLOW)
    return folder / "w.yaml"


@pytest.fixture
def run(workflow: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Exit status of `qlib-ext lookahead` with these arguments."""

    def of(*arguments: str, **variables: str) -> int:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("QLIB_DATA", str(workflow.parent / "store"))
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["qlib-ext", "lookahead", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0)

    return of


class TestAudit:
    def test_it_says_what_it_looked_at(
        self, run: Callable[..., int], workflow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(str(workflow), "--dates", "8", "--refits", "1") == 0
        shown = capsys.readouterr().out
        assert "w.yaml on store, csi300: 8 dates from 2014-03-03 to 2014-11-2" in shown
        assert "0 alarms; 8 dates in" in shown
        assert not list(tmp_path.iterdir())  # no run, no database

    def test_an_alarm_is_exit_status_1_and_json_has_all_of_it(
        self, run: Callable[..., int], workflow: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(str(workflow), "--dates", "8", "--refits", "1", "--json", PURGE="false") == 1
        found = json.loads(capsys.readouterr().out)
        assert (found["dates"], found["alarms"], found["workflow"]) == (8, 2, "w.yaml")
        assert {finding["kind"] for finding in found["findings"]} == {"not-purged"}
        assert all(finding["way_out"] in finding["message"] for finding in found["findings"])

    def test_no_file(self, run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
        assert run("nowhere.yaml") == 2
        assert "nowhere.yaml" in capsys.readouterr().err
