"""Runs in one table, and how sure their differences are.

    python benchmarks/results.py mimstocr_csi300 stl_csi300 lightgbm_csi300
    python benchmarks/results.py --uri sqlite:///paper_runs/mlflow.db "MiM-StocR=CSI300 LSTM MiM-StocR seed 0 1a2b3c4d" ...

A run is named as `qlib-ext report` names it: by its experiment, which stands for its newest finished run, by its name, or
by its id. `TITLE=RUN` says what stands above its column. Prints Markdown: a column a run, then for each run after the first
the mean daily difference of the first to it, with a 95 % interval from the stationary block bootstrap of the days that
both have.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.entities import Run

from qlib_ext.checks import UserError
from qlib_ext.metrics.significance import bootstrap_mean
from qlib_ext.terminal import visible
from qlib_ext.tracking.artifacts import RunArtifacts
from qlib_ext.tracking.runs import connect, find_run

ROWS = {
    "IC": ("IC", "{:.4f}"),
    "ICIR": ("ICIR", "{:.3f}"),
    "RankIC": ("RankIC", "{:.4f}"),
    "RankICIR": ("RankICIR", "{:.3f}"),
    "IC, next return": ("NEXT_RETURN/IC", "{:.4f}"),
    "RankIC, next return": ("NEXT_RETURN/RankIC", "{:.4f}"),
    "Precision@10": ("precision/10", "{:.2%}"),
    "Precision@20": ("precision/20", "{:.2%}"),
    "Precision@30": ("precision/30", "{:.2%}"),
    "Precision@50": ("precision/50", "{:.2%}"),
    "base rate": ("base_rate", "{:.2%}"),
    "momentum accuracy": ("momentum/accuracy", "{:.2%}"),
    "its persistence baseline": ("momentum/persistence_accuracy", "{:.2%}"),
    "excess return a year, after cost": ("backtest/annualised_excess_return", "{:+.2%}"),
    "excess return a year, before cost": ("backtest/annualised_excess_return_without_cost", "{:+.2%}"),
    "information ratio, after cost": ("backtest/information_ratio", "{:.2f}"),
    "max drawdown, after cost": ("backtest/max_drawdown", "{:.2%}"),
    "turnover a day": ("backtest/turnover", "{:.2%}"),
}
SETTINGS = {
    "hidden size": "model.kwargs.backbone.kwargs.hidden_size",
    "epochs": "model.kwargs.trainer.n_epochs",
    "precision": "model.kwargs.trainer.precision",
    "seed": "model.kwargs.seed",
}
DAILY = {
    "IC": ("ranking/daily.parquet", "ic/RETURN"),
    "RankIC": ("ranking/daily.parquet", "rank_ic/RETURN"),
    "Precision@10": ("ranking/daily.parquet", "precision/10"),
    "Precision@50": ("ranking/daily.parquet", "precision/50"),
    "return after cost": ("backtest/daily.parquet", "return"),
}


def daily(client: mlflow.MlflowClient, run: Run, name: str) -> pd.Series:
    """One daily series of a run."""
    path, column = DAILY[name]
    with tempfile.TemporaryDirectory() as folder:
        table = RunArtifacts.download(client, run.info.run_id, [path], Path(folder)).table(path)
    return table["return"] - table["cost"] if column == "return" else table[column]


def lines(client: mlflow.MlflowClient, wanted: Sequence[str]) -> Iterable[str]:
    """The report, line by line."""
    parts = [name.rpartition("=") for name in wanted]
    titles = [title or name for title, _, name in parts]
    runs = [find_run(client, name) for _, _, name in parts]
    yield f"| | {' | '.join(titles)} |"
    yield "|---|" + "---:|" * len(runs)
    for name, key in SETTINGS.items():
        yield f"| {name} | {' | '.join(run.data.params.get(key, '–') for run in runs)} |"
    for name, (key, form) in ROWS.items():
        cells = [form.format(run.data.metrics[key]) if key in run.data.metrics else "–" for run in runs]
        yield f"| {name} | {' | '.join(cells)} |"
    for other, name in zip(runs[1:], titles[1:], strict=True):
        yield ""
        yield f"{titles[0]} minus {name}, mean a day and 95 % interval:"
        yield ""
        yield "| | difference | from | to |"
        yield "|---|---:|---:|---:|"
        for measure in DAILY:
            difference = (daily(client, runs[0], measure) - daily(client, other, measure)).dropna()
            low, high = bootstrap_mean(difference.to_numpy())
            yield f"| {measure} | {difference.mean():+.5f} | {low:+.5f} | {high:+.5f} |"


def main() -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "runs", nargs="+", metavar="[TITLE=]RUN", help="the first is compared with the others"
    )
    parser.add_argument("--uri", default=None, help="MLflow's; without it MLFLOW_TRACKING_URI, or mlflow.db")
    arguments = parser.parse_args()
    try:
        print("\n".join(lines(connect(arguments.uri), arguments.runs)))
    except UserError as error:
        print(visible(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
