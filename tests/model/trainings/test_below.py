"""What becomes of a run that is taken from an earlier one; MLflow is made up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from qlib_ext.model.trainings.below import RunsBelow, left
from qlib_ext.tracking.runs import PARENT


class Client:
    """Knows one parent by its status, and what tags were set."""

    def __init__(self, status: str | None) -> None:
        self.status = status
        self.set: list[tuple[str, str, str]] = []

    def get_run(self, run_id: str) -> Any:
        if self.status is None:
            raise MlflowException(f"Run {run_id} not found")
        return SimpleNamespace(info=SimpleNamespace(status=self.status))

    def set_tag(self, *given: str) -> None:
        self.set.append(given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "tags", "adopted"),
    [
        ("FINISHED", {PARENT: "old"}, False),
        ("RUNNING", {PARENT: "old"}, False),
        ("KILLED", {PARENT: "old"}, True),
        ("FAILED", {PARENT: "old"}, True),
        (None, {PARENT: "old"}, True),
        ("FINISHED", {}, True),
    ],
)
def test_a_run_is_adopted_where_its_parent_is_gone(
    status: str | None, tags: dict[str, str], adopted: bool
) -> None:
    client = Client(status)
    below = RunsBelow.__new__(RunsBelow)
    below.recorder = SimpleNamespace(client=client, id="new")
    child: Any = SimpleNamespace(info=SimpleNamespace(run_id="child"), data=SimpleNamespace(tags=tags))
    below._adopt(child)
    assert client.set == ([("child", PARENT, "new")] if adopted else [])


@pytest.mark.parametrize(
    ("ended", "workers", "said"),
    [
        (1, 1, "; about 30 min left, by those so far"),
        (2, 1, "; about 10 min left, by those so far"),
        (1, 3, "; about 10 min left, by those so far"),  # two others are as good as done
        (4, 3, ""),
    ],
)
def test_how_long_the_rest_takes(ended: int, workers: int, said: str) -> None:
    assert left(600.0, ended, 4, workers) == said
