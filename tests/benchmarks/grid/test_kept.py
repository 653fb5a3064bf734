from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.grid import kept
from benchmarks.grid.plan import Budget, Cell, Job, Plan

DAYS, STOCKS = 6, 9
NAME = "SSE50 LSTM authors' gains seed 2 0a1b2c3d"


@pytest.fixture(scope="module")
def market() -> tuple[pd.Series, pd.DataFrame]:
    """Scores and labels; a stock without a score, and one without a label."""
    draw = np.random.default_rng(0)
    days = pd.bdate_range("2019-01-01", periods=DAYS, name="datetime")
    index = pd.MultiIndex.from_product([days, list("abcdefghi")], names=["datetime", "instrument"])
    labels = pd.DataFrame(draw.normal(0.2, 1, (len(index), 2)), index, ["RETURN", "NEXT_RETURN"])
    score = pd.Series(draw.normal(size=len(index)), index, name="score")
    score.iloc[3], labels.iloc[5, 0] = np.nan, np.nan
    return score, labels


class TestRanking:
    @pytest.mark.parametrize("label", kept.LABELS)
    def test_equals_scipy_day_by_day(self, market: tuple[pd.Series, pd.DataFrame], label: str) -> None:
        score, labels = market
        found = kept.ranking(score, labels)
        for day, row in found.iterrows():
            both = pd.concat([score[day], labels.loc[day, label]], axis=1).dropna()
            ranks = stats.rankdata(both[label]) / len(both)
            assert row[f"ic/{label}"] == pytest.approx(stats.pearsonr(both["score"], both[label])[0])
            assert row[f"rank_ic/{label}"] == pytest.approx(stats.spearmanr(both["score"], both[label])[0])
            assert row[f"ranked/ic/{label}"] == pytest.approx(stats.pearsonr(both["score"], ranks)[0])
            assert row[f"ranked/base_rate/{label}"] == pytest.approx((ranks > 0.5).mean())
            assert row[f"base_rate/{label}"] == pytest.approx((both[label] > 0).mean())

    def test_a_stock_of_the_ranked_label_rises_in_the_better_half(self) -> None:
        index = pd.MultiIndex.from_product(
            [pd.DatetimeIndex(["2019-01-02"]), list("abcdefghijklmnopqrst")], names=["datetime", "instrument"]
        )
        returns = np.arange(20) / 100 + 0.01  # all rise
        labels = pd.DataFrame({"RETURN": returns, "NEXT_RETURN": -returns}, index)
        found = kept.ranking(pd.Series(np.arange(20.0), index), labels).iloc[0]
        assert found["precision/10/RETURN"] == found["ranked/precision/10/RETURN"] == 1
        assert (found["base_rate/RETURN"], found["ranked/base_rate/RETURN"]) == (1, 0.5)
        assert (found["precision/10/NEXT_RETURN"], found["ranked/precision/10/NEXT_RETURN"]) == (0, 0)


class TestKept:
    @pytest.fixture
    def runs(self, market: tuple[pd.Series, pd.DataFrame], tmp_path: Path) -> Path:
        days = kept.ranking(*market).assign(**dict.fromkeys(kept.TRADED, 0.01))
        said = {"name": NAME, "universe": "SSE50", "backbone": "LSTM", "method": "authors' gains", "seed": 2}
        said |= {"epochs": 1, "patience": 1, "hidden_size": 8, "precision": "float32", "fingerprint": "f"}
        said |= {"best_epoch": 0, "metrics": {"backtest/turnover": 0.1}}
        kept.write(kept.place(tmp_path, NAME), said, days, pd.DataFrame({"epoch": [0], "best": [True]}))
        return tmp_path

    def test_a_folder_a_run_named_for_any_file_system(self, runs: Path) -> None:
        assert [path.name for path in runs.iterdir()] == ["SSE50_LSTM_authors_gains_seed_2_0a1b2c3d"]
        assert kept.is_kept(runs, NAME)

    def test_half_a_run_is_none(self, runs: Path) -> None:
        (kept.place(runs, NAME) / "run.json").unlink()
        assert not kept.is_kept(runs, NAME)
        assert kept.Kept(runs).done == []

    def test_reads_what_was_written(self, runs: Path, market: tuple[pd.Series, pd.DataFrame]) -> None:
        found = kept.Kept(runs)
        (run,) = found.done
        assert (str(run.cell), run.setting.hidden_size) == ("SSE50 LSTM authors' gains seed 2", 8)
        row = found.metrics().iloc[0]
        assert row["rank_ic/RETURN"] == pytest.approx(
            kept.ranking(*market)["rank_ic/RETURN"].mean(), abs=1e-6
        )
        assert row["backtest/turnover"] == 0.1

    def test_says_what_was_asked_for_and_is_not_there(self, runs: Path) -> None:
        plan = Plan(runs / "plan.json")
        budget = Budget(1, 1, 8)
        jobs = [Job(Cell("SSE50", "LSTM", method, 2), budget, {}, method) for method in ("EW", NAME)]
        plan.add(jobs, store="cn", fingerprint="f")
        assert [run.name for run in kept.Kept(runs, plan).left] == ["EW"]
