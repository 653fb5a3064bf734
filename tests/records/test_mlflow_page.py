"""docs/mlflow.md: MLflow takes the conditions that it shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mlflow import MlflowClient

PAGE = (Path(__file__).parents[2] / "docs" / "mlflow.md").read_text(encoding="utf-8")
CONDITIONS = [
    line for block in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    client = MlflowClient(f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db")
    run_id = client.create_run(client.create_experiment("x")).info.run_id
    client.log_metric(run_id, "RankIC", 0.05)
    client.log_param(run_id, "model.kwargs.trainer.n_epochs", "100")
    for name, value in {"method": "CQB", "universe": "csi300", "git_commit": "8e2470b0"}.items():
        client.set_tag(run_id, name, value)
    client.set_terminated(run_id)
    return client


@pytest.mark.parametrize("condition", CONDITIONS)
def test_conditions_find_the_run(client: MlflowClient, condition: str) -> None:
    assert len(client.search_runs(["1"], condition)) == 1


def test_there_are_some() -> None:
    assert len(CONDITIONS) == 3
