"""The page made from runs whose figures are known."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from benchmarks.paper import report

DAYS, STOCKS = 80, 12
METHODS = {"STL": 0.2, "MiM-StocR": 0.6}  # how much of the return the score knows
PRECISIONS = {"float32": 0.0, "bfloat16": 0.05}  # how much noise it adds


@dataclass(frozen=True)
class Made:
    """Runs of two methods in two precisions, as the runner leaves them."""

    work: Path
    rank_ic: dict[tuple[str, str], pd.Series]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    work = tmp_path_factory.mktemp("made")
    client = mlflow.MlflowClient(f"sqlite:///{work / 'mlflow.db'}")
    experiment = client.create_experiment("paper", artifact_location=str(work / "artifacts"))
    draw = np.random.default_rng(5)
    days = pd.bdate_range("2019-01-01", periods=DAYS, name="datetime")
    index = pd.MultiIndex.from_product(
        [days, [f"SH{k:06d}" for k in range(STOCKS)]], names=["datetime", "instrument"]
    )
    returns = draw.standard_normal(DAYS * STOCKS)
    noise = draw.standard_normal(DAYS * STOCKS)
    plan, rank_ic = [], {}
    for method, known in METHODS.items():
        for precision, rough in PRECISIONS.items():
            score = known * returns + (1 - known) * noise + rough * draw.standard_normal(len(returns))
            predictions = pd.DataFrame({"score": score}, index=index)
            by_day = zip(score.reshape(DAYS, STOCKS), returns.reshape(DAYS, STOCKS), strict=True)
            ic = pd.Series([spearmanr(a, b).statistic for a, b in by_day], index=days)
            rank_ic[method, precision] = ic
            daily = pd.DataFrame({"ic/RETURN": ic, "rank_ic/RETURN": ic})
            epochs = pd.DataFrame(
                {
                    "epoch": [0, 1],
                    "train/loss/score": [1.0, 0.9],
                    "valid/loss/score": [1.0, 0.95],
                    "best": [False, True],
                }
            )
            account = pd.DataFrame({"return": 0.01 * known, "cost": 0.001, "benchmark": 0.0}, index=days)
            name = f"CSI300 LSTM {method} seed 0 {precision}"
            run = client.create_run(experiment, run_name=name)
            for path, table in {
                "signal/predictions.parquet": predictions,
                "ranking/daily.parquet": daily,
                "training/history.parquet": epochs,
                "backtest/daily.parquet": account,
            }.items():
                file = work / Path(path).name
                table.to_parquet(file)
                client.log_artifact(run.info.run_id, str(file), path.rpartition("/")[0])
            metrics = {"IC": ic.mean(), "RankIC": ic.mean(), "backtest/annualised_excess_return": 1 - known}
            metrics |= {f"precision/{n}": 0.5 for n in (10, 20, 30, 50)} | {"base_rate": 0.5}
            for key, value in metrics.items():
                client.log_metric(run.info.run_id, key, value)
            client.set_terminated(run.info.run_id)
            plan.append(
                {
                    "name": name,
                    "universe": "CSI300",
                    "backbone": "LSTM",
                    "method": method,
                    "seed": 0,
                    "epochs": 2,
                    "patience": 2,
                    "hidden_size": 8,
                    "precision": precision,
                    "store": str(work / "no store"),
                    "fingerprint": "0123456789abcdef",
                }
            )
    (work / "plan.json").write_text(json.dumps(plan))
    return Made(work, rank_ic)


@pytest.fixture(scope="module")
def page(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page")
    (out / "findings.md").write_text("# Findings\n")
    report.write(made.work, f"sqlite:///{made.work / 'mlflow.db'}", "paper", out)
    return out


class TestInShort:
    def test_says_where_ours_is_ahead_and_where_not(self, page: Path, made: Made) -> None:
        text = (page / "README.md").read_text()
        line = next(line for line in text.splitlines() if line.startswith("- CSI300, LSTM, float32"))
        ahead = made.rank_ic["MiM-StocR", "float32"].mean()
        assert f"RankIC {ahead:.4f}, place 1 of 2;" in line
        assert "excess return a year after cost +40.00%, place 2 of 2, behind STL with +80.00%" in line

    def test_names_the_findings_that_lie_beside_it(self, page: Path) -> None:
        assert "stands in findings.md beside this page" in (page / "README.md").read_text()


class TestPrecision:
    def test_lays_the_same_cell_side_by_side(self, page: Path, made: Made) -> None:
        table = pd.read_csv(page / "precision.csv", dtype=str)
        assert [*table["method"]] == [*METHODS]
        for row in table.to_dict("records"):
            single, half = (made.rank_ic[row["method"], precision] for precision in PRECISIONS)
            assert row["float32"] == f"{single.mean():.4f}"
            assert row["difference"] == f"{(half - single).mean():+.4f}"
            low, high = (float(end) for end in row["95 %"].split(" to "))
            assert low <= (half - single).mean() <= high

    def test_says_how_alike_the_scores_are(self, page: Path) -> None:
        table = pd.read_csv(page / "precision.csv")
        alike = table["rank correlation of the scores"]
        assert alike.between(0.9, 0.9999).all()
