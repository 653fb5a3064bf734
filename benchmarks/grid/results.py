"""What the finished runs of a plan left: their metrics and their daily series."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import MlflowClient

from benchmarks.grid.plan import Cell, Plan
from benchmarks.grid.work import finished
from qlib_ext.tracking.artifacts import RunArtifacts


@dataclass(frozen=True)
class Setting:
    """What runs must share to stand in one table: budget and data."""

    epochs: int
    patience: int
    hidden_size: int
    precision: str
    fingerprint: str

    def __str__(self) -> str:
        return (
            f"at most {self.epochs} epochs, patience {self.patience}, hidden size {self.hidden_size}, "
            f"{self.precision}, data {self.fingerprint}"
        )


@dataclass(frozen=True)
class Result:
    """A run that was asked for, and the MLflow run that finished it (None: not run)."""

    cell: Cell
    setting: Setting
    name: str
    store: str
    run: Any | None


class Results:
    """The runs of a plan.

    Parameters
    ----------
    plan
        What was asked for.
    client
        Of the MLflow store.
    experiment
        Its name.
    """

    def __init__(self, plan: Plan, client: MlflowClient, experiment: str) -> None:
        self.client = client
        found = finished(client, experiment, [row["name"] for row in plan.rows])
        self.all = [
            Result(
                cell=Cell(*(row[key] for key in ("universe", "backbone", "method", "seed"))),
                setting=Setting(**{key: row[key] for key in Setting.__dataclass_fields__}),
                name=row["name"],
                store=row["store"],
                run=found.get(row["name"]),
            )
            for row in plan.rows
        ]
        self._tables: dict[tuple[str, str], pd.DataFrame] = {}

    @property
    def done(self) -> list[Result]:
        """Those that are finished."""
        return [result for result in self.all if result.run is not None]

    def metrics(self) -> pd.DataFrame:
        """A row a finished run: universe, setting, backbone, method, seed, best epoch, and its MLflow metrics."""
        rows = []
        for result in self.done:
            assert result.run is not None
            cell = vars(result.cell)
            history = self.table(result, "training/history.parquet")
            best = int(history.loc[history["best"], "epoch"].max())
            rows.append({**cell, "setting": result.setting, "best epoch": best, **result.run.data.metrics})
        return pd.DataFrame(rows)

    def table(self, result: Result, path: str) -> pd.DataFrame:
        """A table that a run left, Parquet or CSV."""
        assert result.run is not None
        key = (result.run.info.run_id, path)
        if key not in self._tables:
            read = pd.read_csv if path.endswith(".csv") else pd.read_parquet
            with self._file(result, path) as file:
                self._tables[key] = read(file)
        return self._tables[key]

    def json(self, result: Result, path: str) -> Any:
        """What a JSON artifact of a run says."""
        with self._file(result, path) as file:
            return json.loads(file.read_text(encoding="utf-8"))

    @contextlib.contextmanager
    def _file(self, result: Result, path: str) -> Iterator[Path]:
        assert result.run is not None
        with tempfile.TemporaryDirectory() as folder:
            run = RunArtifacts.download(self.client, result.run.info.run_id, [path], Path(folder))
            yield run.root / path
