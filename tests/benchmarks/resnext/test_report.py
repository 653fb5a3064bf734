"""The page made from runs whose figures are known."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from benchmarks.resnext import report
from qlib_ext.checks import UserError

DAYS = pd.bdate_range("2008-09-01", periods=60, name="datetime")
ACCURACY = {"LSTM": 0.50, "ResNeXt": 0.52}
RUNS = [
    ("stocks", "LSTM", "joint", 0),
    ("stocks", "LSTM", "joint", 1),
    ("stocks", "ResNeXt", "joint", 0),
    ("stocks", "ResNeXt", "joint", 1),
    ("stocks", "ResNeXt", "direction alone", 0),
    ("stocks", "ResNeXt", "CQB", 0),
    ("SSE50", "ResNeXt", "joint", 0),
]
NOT_RUN = ("stocks", "DSN", "joint", 0)
PLAN = {
    "epochs": 2,
    "patience": 2,
    "hidden_size": 8,
    "precision": "float32",
    "store": "store",
    "fingerprint": "0123456789abcdef",
}


def accuracy(backbone: str, method: str, seed: int) -> float:
    return ACCURACY[backbone] + 0.01 * seed + (0.15 if method == "CQB" else 0.0)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("made")
    client = mlflow.MlflowClient(f"sqlite:///{work / 'mlflow.db'}")
    experiment = client.create_experiment("resnext", artifact_location=str(work / "artifacts"))
    draw = np.random.default_rng(2)
    noise = pd.Series(draw.normal(scale=0.02, size=len(DAYS)), DAYS)
    plan = []
    for cell in [*RUNS, NOT_RUN]:
        universe, backbone, method, seed = cell
        name = f"{universe} {backbone} {method} seed {seed} digest"
        plan.append(
            {"name": name, **dict(zip(("universe", "backbone", "method", "seed"), cell, strict=True)), **PLAN}
        )
        if cell == NOT_RUN:
            continue
        right = accuracy(backbone, method, seed)
        run = client.create_run(experiment, run_name=name)
        daily = pd.DataFrame(
            {
                "accuracy/model": right + noise,
                "accuracy/majority": 0.51,
                "mae/model": 0.021 + 0.1 * noise,
                "mae/zero": 0.020 + 0.1 * noise,
            }
        )
        summary = pd.DataFrame(
            {
                "period": ["all test days"] * 3 + ["crisis of 2008"] * 3,
                "rule": ["model", "majority", "zero"] * 2,
                "accuracy": [right, 0.51, np.nan, right - 0.1, 0.48, np.nan],
                "macro_f1": 0.4,
                "mae": 0.02,
                "rmse": 0.03,
                "days": [60.0] * 3 + [30.0] * 3,
            }
        )
        history = pd.DataFrame(
            {
                "epoch": [0, 1],
                "train/loss/score": [1.0, 0.9],
                "valid/loss/score": [1.0, 0.9],
                "best": [False, True],
            }
        )
        account = pd.DataFrame({"return": 0.001, "cost": 0.0, "benchmark": 0.0}, index=DAYS)
        for path, table in {
            "direction/daily.parquet": daily,
            "direction/summary.csv": summary,
            "ranking/daily.parquet": pd.DataFrame({"rank_ic/NEXT_RETURN": 0.01 + noise}),
            "training/history.parquet": history,
            "backtest/daily.parquet": account,
        }.items():
            file = work / Path(path).name
            if path.endswith(".csv"):
                table.to_csv(file, index=False)
            else:
                table.to_parquet(file)
            client.log_artifact(run.info.run_id, str(file), path.rpartition("/")[0])
        client.log_dict(
            run.info.run_id,
            {"segments": {"train": {"start": "2000-01-03", "days": 1758}}},
            "data/summary.json",
        )
        metrics = {
            "direction/accuracy": right,
            "direction/macro_f1": 0.45,
            "direction/majority_accuracy": 0.51,
            "return/mae": 0.021,
            "return/rmse": 0.031,
            "return/zero_mae": 0.020,
            "return/zero_rmse": 0.030,
            "IC": 0.01,
            "RankIC": 0.012 + 0.001 * seed,
            "RETURN/RankIC": 0.02,
            "precision/50": 0.5,
            "base_rate": 0.5,
            "momentum/accuracy": 0.6,
            "backtest/annualised_return": 0.1,
            "backtest/annualised_excess_return": 0.05,
        }
        for key, value in metrics.items():
            client.log_metric(run.info.run_id, key, value)
        client.set_terminated(run.info.run_id)
    (work / "plan.json").write_text(json.dumps(plan))
    return work


@pytest.fixture(scope="module")
def page(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page")
    cost = {
        "machine": {"gpu": None, "cpus": 2, "load_average_before": [0.1]},
        "setup": {"threads": 1},
        "reference": "ResNeXt F11 K2 equal",
        "rows": [
            {"name": "ResNeXt F80", "stocks": 300, "seconds": 0.1, "time_ratio": 2.0, "megabytes": 50.0}
        ],
    }
    (out / report.COST).write_text(json.dumps(cost))
    report.write(work, f"sqlite:///{work / 'mlflow.db'}", "resnext", out)
    return out


def table(page: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(page / f"{name}.csv", dtype=str, keep_default_na=False)


class TestTables:
    def test_mean_and_deviation_stand_beside_the_papers_figure_and_the_rule(self, page: Path) -> None:
        found = table(page, "table1_1_stocks").set_index("model")
        assert found.loc["ResNeXt", "accuracy"] == "52.50% (0.71)"
        assert found.loc["ResNeXt", "paper's accuracy"] == "85.3%"
        assert found.loc["most common class", "accuracy"] == "51.00%"
        assert [*found.index] == ["LSTM", "ResNeXt", "most common class"]

    def test_errors_stand_beside_a_forecast_of_nothing(self, page: Path) -> None:
        found = table(page, "table2_1_stocks").set_index("model")
        assert found.loc["LSTM", "RMSE"] == "0.03100 (0)"
        assert found.loc["a return of 0", "RMSE"] == "0.03000"


class TestInShort:
    def test_says_who_beats_the_rules(self, page: Path) -> None:
        text = (page / "README.md").read_text()
        assert "Above it: ResNeXt." in text
        assert "Below it: none." in text

    def test_points_at_what_is_too_good(self, page: Path) -> None:
        line = next(x for x in (page / "README.md").read_text().splitlines() if "likelier than skill" in x)
        assert line.endswith("ResNeXt CQB seed 0.")


class TestDifferences:
    def test_are_of_the_same_days_with_an_interval(self, page: Path) -> None:
        found = table(page, "significance").set_index("against")
        assert found.loc["LSTM", "accuracy"] == "+2.00"
        assert found.loc["LSTM", "accuracy, 95 %"] == "+2.00 to +2.00"
        against = found.loc["most common class, return of 0"]
        low, high = (float(end) for end in against["accuracy, 95 %"].split(" to "))
        assert low < float(against["accuracy"]) < high
        assert against["MAE"] == "+10.00"


class TestAblations:
    def test_what_a_run_did_not_learn_is_not_shown(self, page: Path) -> None:
        found = table(page, "ablation_tasks_1_stocks")
        alone = found.set_index(found.columns[0]).loc["direction alone"]
        assert alone["accuracy"] == "52.00%"
        assert alone["RMSE"] == alone["RankIC, next day"] == "–"

    def test_one_that_was_not_run_has_no_table(self, page: Path) -> None:
        assert not (page / "ablation_cardinality_1_stocks.csv").exists()


class TestRest:
    def test_the_other_papers_workflow_stands_apart(self, page: Path) -> None:
        assert table(page, "crossed_1_SSE50")["momentum accuracy"].tolist() == ["60.00%"]
        assert not (page / "table1_2_SSE50.csv").exists()

    def test_periods_are_in_their_order(self, page: Path) -> None:
        found = table(page, "periods_1_stocks")
        assert found["period"].tolist() == ["all test days"] * 2 + ["crisis of 2008"] * 2
        assert found["accuracy"].tolist()[-1] == "42.50%"

    def test_costs_are_of_the_file_beside_the_page(self, page: Path) -> None:
        assert table(page, "cost")["ms"].tolist() == ["100.0"]

    def test_says_what_was_not_run(self, page: Path) -> None:
        assert "- stocks DSN joint seed 0: at most 2 epochs" in (page / "README.md").read_text()

    def test_nothing_finished_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no run planned in"):
            report.write(tmp_path, f"sqlite:///{tmp_path / 'mlflow.db'}", "resnext", tmp_path / "out")
