"""How long the index of runs takes, and how large its page is: `python -m benchmarks.run_index [--runs 1000]`."""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
import tempfile
import time
from pathlib import Path

import numpy as np
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from qlib_ext.report.index.data import states
from qlib_ext.report.index.document import SHOWN_METRICS, render
from qlib_ext.report.index.runs import read
from qlib_ext.tracking.database import prepare
from qlib_ext.tracking.runs import connect

METHODS = ("CQB", "EqualWeighting", "DBMTL", "CAGrad", "single task")
SETTINGS = {
    "model.kwargs.trainer.n_epochs": ("20", "50", "100"),
    "model.kwargs.trainer.learning_rate": ("1e-3", "2e-4"),
    "model.kwargs.backbone.kwargs.hidden_size": ("32", "64", "128"),
    "record.BacktestRecord.strategy.kwargs.topk": ("10", "50"),
}
CONSTANT = 80  # parameters that all runs share, as many as a workflow of this package has
MADE = 50  # runs that MLflow makes; the others are copies of their rows, since MLflow takes long for each


def fill(client: MlflowClient, folder: Path, runs: int) -> None:
    """Runs as workflows log them, without their artifacts."""
    random = np.random.default_rng(0)
    experiments = [
        client.create_experiment(f"experiment {k}", artifact_location=(folder / "artifacts").as_uri())
        for k in range(5)
    ]
    shared = {"record.BacktestRecord.class": "qlib_ext.records.backtest.BacktestRecord"}
    shared |= {f"dataset.kwargs.setting_{k:02}": str(k) for k in range(CONSTANT)}
    for number in range(min(runs, MADE)):
        run_id = client.create_run(experiments[number % 5], run_name=f"run {number}").info.run_id
        params = {key: str(random.choice(values)) for key, values in SETTINGS.items()}
        params |= {"model.kwargs.seed": str(number % 5), **shared}
        client.log_batch(
            run_id,
            metrics=[Metric(name, float(random.normal()) / 10, 0, 0) for name in SHOWN_METRICS],
            params=[Param(*pair) for pair in params.items()],
            tags=[
                RunTag("method", str(random.choice(METHODS))),
                RunTag("universe", "csi300"),
                RunTag("data_fingerprint", f"{number % 3:016x}"),
            ],
        )
        client.set_terminated(run_id)
    copy_rows(folder / "mlflow.db", runs)


def copy_rows(file: Path, runs: int) -> None:
    """Copies of the runs of a database, until it has so many."""
    with contextlib.closing(sqlite3.connect(file)) as database:
        ids = [row[0] for row in database.execute("SELECT run_uuid FROM runs")]
        for table in ("runs", "params", "latest_metrics", "tags"):
            names = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            kept = ", ".join(name for name in names if name != "run_uuid")
            query = f"INSERT INTO {table} (run_uuid, {kept}) SELECT ?, {kept} FROM {table} WHERE run_uuid = ?"
            pairs = [(f"{number:032x}", ids[number % len(ids)]) for number in range(len(ids), runs)]
            database.executemany(query, pairs)
        database.commit()


def main() -> None:
    """Fill a store, and write its page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="keep the page here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        prepare(uri)
        client = connect(uri)
        fill(client, folder, given.runs)
        began = time.perf_counter(), time.process_time()
        runs = read(client)
        data, more = states(client, runs)
        seen = time.perf_counter()
        page = render("Runs", runs, data, {}, place=folder, more_data=more)
        ended = time.perf_counter(), time.process_time()
    if given.out is not None:
        given.out.write_text(page, encoding="utf-8")
    print(
        f"{len(runs):,} runs: read in {seen - began[0]:.1f} s, written in {ended[0] - seen:.1f} s (processor "
        f"{ended[1] - began[1]:.1f} s), {len(page.encode()) / 1e6:.2f} MB"
    )


if __name__ == "__main__":
    main()
