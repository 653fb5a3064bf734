from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.conftest import Evaluated

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, evaluated: Evaluated) -> list[tuple[Any, ...]]:
    """What would be run, and of which runs."""
    calls: list[tuple[Any, ...]] = []

    def begun(*given: Any) -> str:  # a run that is there already stands for the one that would be made
        calls.append(given)
        return str(evaluated.run.info.run_id)

    monkeypatch.setenv("MLFLOW_TRACKING_URI", evaluated.client.tracking_uri)
    monkeypatch.setattr("qlib_ext.workflow.scored.run_task", begun)
    return calls


def test_a_run_without_a_network_is_refused(
    evaluated: Evaluated, command: Command, started: list[tuple[Any, ...]]
) -> None:
    status, _, err = command("soup", evaluated.run.info.run_id)
    assert status == 2
    assert "must be a MultiTaskModel, whose weights can be averaged" in err
    assert not started


def test_what_is_run(
    evaluated: Evaluated, command: Command, started: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qlib_ext.workflow.soup.of_runs", lambda task, runs, kind: (sorted(task), runs, kind))
    first = evaluated.run.info.run_id[:8]
    assert command("soup", "mine", "--kind", "uniform") == (0, "", f"Next: qlib-ext compare mine {first}\n")
    assert started == [
        (
            (["dataset", "model", "record"], [evaluated.run.info.run_id], "uniform"),
            evaluated.store.root,
            "cn",
            "mine soup",
        )
    ]
