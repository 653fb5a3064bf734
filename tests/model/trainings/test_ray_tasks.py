"""Trainings as tasks of Ray: what Ray is asked for, and what its errors become. Ray itself is not started."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qlib_ext.checks import UserError
from qlib_ext.model.trainings import training
from qlib_ext.model.trainings.ray_tasks import RayTasks, begin
from qlib_ext.model.trainings.side_by_side import Places
from qlib_ext.model.trainings.training import Training

MEMBER = Training("member 2 of 3", {"model": 1}, "ensemble", "ensemble member 2", {"member": "2 of 3"})


class RayTaskError(Exception):
    cause = UserError("`learning_rate` is too high")


class WorkerCrashedError(Exception):
    pass


class FakeRay:
    """Runs a task at once, in this process."""

    def __init__(self, machines: list[dict[str, float]]) -> None:
        self.machines = machines
        self.started: dict[str, Any] = {}
        self.asked: dict[str, Any] = {}
        self.cancelled: list[Any] = []
        self.shut = 0
        self.error: Exception | None = None
        names = ("NodeDiedError", "OutOfMemoryError")
        others = {name: type(name, (Exception,), {}) for name in names}
        self.exceptions = SimpleNamespace(
            RayTaskError=RayTaskError, WorkerCrashedError=WorkerCrashedError, **others
        )

    def is_initialized(self) -> bool:
        return bool(self.started)

    def init(self, **how: Any) -> None:
        self.started = how

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": each} for each in self.machines]

    def remote(self, **how: Any) -> Any:
        self.asked = how
        return lambda function: SimpleNamespace(
            options=lambda name: SimpleNamespace(remote=lambda training, *given: (name, training["called"]))
        )

    def get(self, reference: Any) -> Any:
        if self.error is not None:
            raise self.error
        return "run of " + reference[1]

    def cancel(self, reference: Any) -> None:
        self.cancelled.append(reference)

    def shutdown(self) -> None:
        self.shut += 1


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay([{"CPU": 4, "GPU": 1}])
    monkeypatch.setitem(sys.modules, "ray", fake)
    return fake


def opened(**ray: Any) -> RayTasks:
    place = Places(3, ray).open()
    assert isinstance(place, RayTasks)
    return place


def test_ray_on_this_machine_has_room_for_all_that_go_side_by_side(ray: FakeRay) -> None:
    with opened(cpus=2) as place:
        assert place.train(MEMBER, {}) == "run of member 2 of 3"
    assert ray.started["num_cpus"] == 6
    assert (ray.asked["num_cpus"], ray.asked["max_calls"], ray.asked["max_retries"]) == (2, 1, 0)
    assert ray.shut == 1


def test_ray_that_runs_already_is_left_running(ray: FakeRay) -> None:
    ray.started = {"address": "of the training above"}
    with opened() as place:
        place.train(MEMBER, {})
    assert ray.started == {"address": "of the training above"}
    assert ray.shut == 0


def test_a_cluster_too_small_is_refused(ray: FakeRay) -> None:
    with (
        pytest.raises(UserError, match="no machine of the cluster has 8 CPUs and 0 GPUs"),
        opened(address="auto", cpus=8),
    ):
        pass
    assert ray.shut == 1


def test_a_cluster_that_is_not_there_is_told_at_once(ray: FakeRay) -> None:
    with pytest.raises(UserError, match=r"no Ray cluster at '127.0.0.1:1'"), opened(address="127.0.0.1:1"):
        pass
    assert ray.started == {}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RayTaskError(), "`learning_rate` is too high"),
        (WorkerCrashedError(), "the process of member 2 of 3 was killed .WorkerCrashedError.*`resume: 1`"),
    ],
)
def test_an_error_of_ray_is_told_as_of_any_process(ray: FakeRay, error: Exception, message: str) -> None:
    ray.error = error
    with opened() as place, pytest.raises(UserError, match=message):
        place.train(MEMBER, {})


def test_an_interruption_cancels_what_is_under_way(ray: FakeRay) -> None:
    def interrupted(reference: Any) -> str:
        place.stop()
        return "never"

    with opened() as place:
        ray.get = interrupted  # type: ignore[method-assign]
        place.train(MEMBER, {})
        assert [reference[0] for reference in ray.cancelled] == ["ensemble member 2"]
        place.stop()
        assert len(ray.cancelled) == 1, "what has ended is cancelled no more"


def test_without_ray_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'qlib-ext\[grid\]'"), opened():
        pass


class TestBegin:
    @pytest.fixture(autouse=True)
    def kept(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(os, "environ", {**os.environ})
        monkeypatch.setattr(training, "train", lambda training, settings: f"{training.name} {Path.cwd()}")

    def test_it_trains_where_the_run_was_started(self, tmp_path: Path) -> None:
        there = tmp_path / "there"
        there.mkdir()
        given = {"called": "m", "task": {}, "experiment": "e", "name": "n", "tags": {}}
        assert begin(given, {}, str(there), 3, {"MLFLOW_X": "y"}) == f"n {there}"
        assert (os.environ["OMP_NUM_THREADS"], os.environ["MLFLOW_X"]) == ("3", "y")

    def test_a_machine_without_that_folder_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"must have the folder .*gone"):
            begin({}, {}, str(tmp_path / "gone"), 1, {})
