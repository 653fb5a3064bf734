from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cvxpy.error import SolverError
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from qlib.utils.exceptions import LoadObjectError
from qlib.workflow import R

from qlib_ext.workflow.process_end import Excepthook
from tests.interpreter import Interpreter

ROOT = Path(__file__).parents[2]

# A process that ends in the middle of a run, as `qrun` would.
PROGRAM = """
import os, signal, subprocess, sys, time
import qlib
from qlib.workflow import R
from qlib_ext.checks import UserError

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is started without
uri, store, how = sys.argv[1:]
manager = {"class": "qlib_ext.workflow.experiment.ExperimentManager", "kwargs": {"uri": uri, "default_exp_name": "x"}}
qlib.init(provider_uri=store, region="cn", exp_manager=manager)
with R.start(experiment_name=how):
    if how == "user":
        raise UserError("`topk` must be at least 1, found 0")
    if how == "twice":
        from qlib_ext.workflow.recorder import Recorder
        end = Recorder.end_run
        def slow_end(*arguments):
            time.sleep(0.8)
            end(*arguments)
        Recorder.end_run = slow_end
        subprocess.Popen(["sh", "-c", f"for k in 1 2 3 4 5; do kill -INT {os.getpid()}; sleep 0.25; done"])
        time.sleep(60)
    os.kill(os.getpid(), getattr(signal, how))
"""


Ended = Callable[[str], tuple[subprocess.CompletedProcess[str], str]]


@pytest.fixture
def ended(workplace: Any, interpreter: Interpreter, tmp_path: Path) -> Ended:
    """The process, and the status of its run."""
    home = Path.cwd()
    uri = f"sqlite:///{home}/mlflow.db"

    def end(how: str) -> tuple[subprocess.CompletedProcess[str], str]:
        # no repository: git has nothing to say there
        program = ("-c", PROGRAM, uri, str(home / "store"), how)
        done = interpreter(*program, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
        client = MlflowClient(uri)
        (run,) = client.search_runs([client.get_experiment_by_name(how).experiment_id])
        return done, run.info.status

    return end


@pytest.fixture(autouse=True)
def goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process does not end with the hook, as an interactive one does not."""
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)


class TestEnds:
    def test_a_users_mistake_is_one_message(self, ended: Ended) -> None:
        done, status = ended("user")
        assert status == "FAILED"
        assert done.returncode == 1
        assert "Traceback" not in done.stderr + done.stdout
        assert done.stderr.count("`topk` must be at least 1, found 0") == 1
        assert "usage: git" not in done.stderr

    def test_a_stopped_run_is_killed(self, ended: Ended) -> None:
        done, status = ended("SIGTERM")
        assert status == "KILLED"
        assert done.returncode != 0
        assert "is marked KILLED" in done.stderr

    def test_so_is_one_that_is_interrupted_again_while_it_ends(self, ended: Ended) -> None:
        done, status = ended("twice")
        assert status == "KILLED", done.stderr
        assert done.returncode != 0
        assert done.stderr.count("is marked KILLED") == 1
        assert "Traceback" not in done.stderr + done.stdout

    def test_an_interrupted_run_is_killed(self, workplace: Any, capsys: pytest.CaptureFixture[str]) -> None:
        R.start_exp(experiment_name="interrupted")
        recorder = R.get_recorder()
        hook = Excepthook(previous=None)
        hook(KeyboardInterrupt, KeyboardInterrupt(), None)
        assert recorder.client.get_run(recorder.id).info.status == "KILLED"
        assert R.exp_manager.active_experiment is None
        assert recorder.id in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (
                MlflowException("no such run\nat line 3"),
                "MLflow says: no such run; check MLFLOW_TRACKING_URI",
            ),
            (SolverError("ECOS is not installed."), "says: ECOS is not installed; name a solver"),
            (LoadObjectError("no pred.pkl"), "Qlib says: no pred.pkl; `qlib-ext check WORKFLOW`"),
        ],
    )
    def test_an_error_of_a_library_is_one_sentence(
        self, error: Exception, message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Excepthook(previous=None)(type(error), error, None)
        said = capsys.readouterr().err.strip()
        assert message in said
        assert "\n" not in said

    def test_any_other_error_is_left_to_qlib(self) -> None:
        seen = []
        hook = Excepthook(previous=lambda *error: seen.append(error))
        error = TypeError("boom")
        hook(TypeError, error, None)
        assert seen == [(TypeError, error, None)]

    def test_the_hook_is_put_once_over_qlibs(self, workplace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def qlibs(*error: object) -> None:
            raise AssertionError

        monkeypatch.setattr(sys, "excepthook", qlibs)
        for _ in range(2):
            with R.start(experiment_name="hooks"):
                assert isinstance(sys.excepthook, Excepthook)
                assert sys.excepthook.previous is qlibs
