"""The page made from runs whose figures are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.grid import kept
from benchmarks.paper import report
from qlib_ext.checks import UserError

DAYS, STOCKS = 80, 12
METHODS = {"STL": 0.2, "MiM-StocR": 0.6}  # how much of the return the score knows
PRECISIONS = {"float32": 0.0, "bfloat16": 0.05}  # how much noise it adds


@dataclass(frozen=True)
class Made:
    """Runs of two methods in two precisions, as the runner keeps them."""

    runs: Path
    rank_ic: dict[tuple[str, str], pd.Series]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    runs = tmp_path_factory.mktemp("made") / "runs"
    draw = np.random.default_rng(5)
    days = pd.bdate_range("2019-11-01", periods=DAYS, name="datetime")
    index = pd.MultiIndex.from_product(
        [days, [f"SH{k:06d}" for k in range(STOCKS)]], names=["datetime", "instrument"]
    )
    returns = draw.standard_normal(DAYS * STOCKS)
    noise = draw.standard_normal(DAYS * STOCKS)
    labels = pd.DataFrame({"RETURN": returns, "NEXT_RETURN": draw.permutation(returns)}, index=index)
    rank_ic = {}
    for method, known in METHODS.items():
        for precision, rough in PRECISIONS.items():
            score = known * returns + (1 - known) * noise + rough * draw.standard_normal(len(returns))
            daily = kept.ranking(pd.Series(score, index=index), labels)
            rank_ic[method, precision] = daily["rank_ic/RETURN"]
            daily = daily.assign(**{"return": 0.01 * known, "cost": 0.001, "benchmark": 0.0, "turnover": 0.1})
            daily[["authors/return", "authors/cost", "authors/turnover"]] = [0.02 * known, 0.0, 0.1]
            epochs = pd.DataFrame(
                {
                    "epoch": [0, 1],
                    "train/loss/score": [1.0, 0.9],
                    "valid/loss/score": [1.0, 0.95],
                    "test/loss/score": [1.0, 0.97],
                    "best": [False, True],
                }
            )
            said = {
                "name": f"CSI300 LSTM {method} seed 0 {precision}",
                "universe": "CSI300",
                "backbone": "LSTM",
                "method": method,
                "seed": 0,
                "epochs": 2,
                "patience": 2,
                "hidden_size": 8,
                "precision": precision,
                "fingerprint": "0123456789abcdef",
                "best_epoch": 1,
                "adaptive_k": {"10": 3, "12": 1},
                "metrics": {"backtest/annualised_excess_return": 1 - known},
            }
            kept.write(kept.place(runs, said["name"]), said, daily, epochs)
    return Made(runs, rank_ic)


@pytest.fixture(scope="module")
def page(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page")
    (out / "findings.md").write_text("# Findings\n")
    report.write(made.runs, made.runs.parent, out)
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
        table = table[table["label"] == "tradable"]
        assert {*table["method"]} == {*METHODS}
        for row in table.to_dict("records"):
            single, half = (made.rank_ic[row["method"], precision] for precision in PRECISIONS)
            assert row["float32"] == f"{single.mean():.4f}"
            assert row["difference"] == f"{(half - single).mean():+.4f}"
            low, high = (float(end) for end in row["95 %"].split(" to "))
            assert low <= (half - single).mean() <= high


class TestLabels:
    def test_both_stand_in_every_table(self, page: Path) -> None:
        for name in ("table1_1_CSI300", "table1_2_CSI300", "significance", "precision"):
            table = pd.read_csv(page / f"{name}.csv", dtype=str)
            assert table["label"].value_counts().to_dict() == dict.fromkeys(
                ("tradable", "Equation 1"), len(table) // 2
            )

    def test_the_papers_figures_stand_beside_the_tradable_one(self, page: Path) -> None:
        table = pd.read_csv(page / "table1_1_CSI300.csv", dtype=str).set_index(["method", "label"])
        assert table.loc[("STL", "tradable"), "paper's RankIC"] == "0.0586 (1.7)"
        assert table.loc[("STL", "Equation 1"), "paper's RankIC"] == "–"


class TestSeeds:
    def test_a_verdict_from_one_seed_is_called_that(self, page: Path) -> None:
        assert {*pd.read_csv(page / "significance.csv")["verdict"]} == {"one seed"}

    @pytest.mark.parametrize(
        ("interval", "said"),
        [
            ("+0.0010 to +0.0020", "ahead"),
            ("-0.0020 to -0.0010", "behind"),
            ("-0.0010 to +0.0020", "not told apart"),
        ],
    )
    def test_one_from_three_reads_the_interval(self, interval: str, said: str) -> None:
        assert report._verdict(interval, 3) == said


class TestAuthorsBacktest:
    def test_by_both_rules_on_all_days_and_in_2020(self, page: Path) -> None:
        row = (
            pd.read_csv(page / "authors_backtest.csv", dtype=str).set_index("method").loc["MiM-StocR"].iloc[0]
        )
        assert row["house's rules, all days"] == f"{238 * (0.006 - 0.001):.2%}"
        assert row["authors' rules, 2020"] == f"{238 * 0.012:.2%}"


class TestFigures:
    def test_the_test_curve_and_k_are_drawn(self, page: Path) -> None:
        text = (page / "README.md").read_text()
        assert "computed after the training" in text
        assert "k of each training day; median 10, from 10 to 12" in text
        assert (page / "figure4_1_CSI300_LSTM.png").is_file()
        assert (page / "figure5_1_CSI300.png").is_file()


def test_no_kept_run_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no finished run is kept in .*: start with `python -m benchmarks.paper run`"
    ):
        report.write(tmp_path / "runs", tmp_path, tmp_path)
