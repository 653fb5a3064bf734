from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qlib_ext.workflow import scored
from tests.cli.conftest import Evaluated

Command = Callable[..., tuple[int, str, str]]
PORTFOLIO = """
strategy:
  class: qlib_ext.strategy.topk_dropout.TopkDropout
  kwargs: {topk: 3, n_drop: 3, hold_thresh: 5}
backtest:
  account: 1000000
  exchange_kwargs: {deal_price: close, rules: cn, commission: 0.001}
"""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, evaluated: Evaluated) -> list[tuple[Any, ...]]:
    """What would be run: the task, the store, the region and the experiment."""
    calls: list[tuple[Any, ...]] = []

    def begun(*given: Any) -> str:  # a run that is there already stands for the one that would be made
        calls.append(given)
        return str(evaluated.run.info.run_id)

    monkeypatch.setenv("MLFLOW_TRACKING_URI", evaluated.client.tracking_uri)
    monkeypatch.setattr("qlib_ext.workflow.scored.run_task", begun)
    return calls


def traded(task: dict[str, Any]) -> dict[str, Any]:
    (found,) = [each["kwargs"] for each in task["record"] if each["class"].endswith(".BacktestRecord")]
    return found


def names(task: dict[str, Any]) -> list[str]:
    return [each["class"].rpartition(".")[2] for each in task["record"]]


class TestRun:
    def test_its_strategy_again(
        self, evaluated: Evaluated, command: Command, started: list[tuple[Any, ...]]
    ) -> None:
        first = evaluated.run.info.run_id[:8]
        assert command("backtest", first) == (0, "", f"Next: qlib-ext compare {first} {first}\n")
        ((task, store, region, experiment),) = started
        assert task["model"] == {
            "class": "qlib_ext.model.given_scores.GivenScores",
            "kwargs": {"run": evaluated.run.info.run_id},
        }
        assert traded(task)["strategy"]["kwargs"] == {"topk": 4, "n_drop": 1}
        assert names(task)[0] == "SignalRecord"
        assert names(task)[-1] == "ReportRecord"
        assert (store, region, experiment) == (evaluated.store.root, "cn", "mine traded again")

    def test_another_portfolio(
        self, evaluated: Evaluated, command: Command, started: list[tuple[Any, ...]], tmp_path: Path
    ) -> None:
        (tmp_path / "p.yaml").write_text(PORTFOLIO)
        assert command("backtest", "mine", "--portfolio", "p.yaml", "--n-drop", 1, "--name", "other")[0] == 0
        ((task, _, _, experiment),) = started
        found = traded(task)
        assert found["strategy"]["kwargs"] == {"topk": 3, "n_drop": 1, "hold_thresh": 5}
        assert found["backtest"] == {
            "account": 1000000,
            "benchmark": "SH000300",
            "exchange_kwargs": {"deal_price": "close", "rules": "cn", "commission": 0.001},
        }
        assert experiment == "other"

    def test_what_is_for_a_file_is_refused(
        self, evaluated: Evaluated, command: Command, started: list[tuple[Any, ...]]
    ) -> None:
        status, _, err = command("backtest", "mine", "--universe", "csi100")
        assert status == 2
        assert "`--universe` is for a file of scores, and `mine` is none" in err
        assert not started


class TestFile:
    def test_it_is_traded_as_it_would_be_evaluated(
        self, evaluated: Evaluated, command: Command, started: list[tuple[Any, ...]], tmp_path: Path
    ) -> None:
        (tmp_path / "p.yaml").write_text(PORTFOLIO)
        words = ["--store", evaluated.store.root, "--universe", "csi300", "--horizon", 5]
        words += ["--start", "2016-04-01", "--end", "2016-04-30"]
        assert command("backtest", evaluated.scores, "--portfolio", "p.yaml", *words, "--json")[0] == 0
        ((task, store, region, experiment),) = started
        assert task["model"]["kwargs"] == {"path": str(evaluated.scores)}
        dataset = task["dataset"]["kwargs"]
        assert dataset["segments"] == {"test": ["2016-04-01", "2016-04-29"]}
        assert dataset["handler"]["kwargs"]["labels"]["RETURN"] == "Ref($close, -6) / Ref($close, -1) - 1"
        assert traded(task)["strategy"]["kwargs"]["hold_thresh"] == 5
        assert traded(task)["backtest"]["benchmark"] == "SH000300"
        assert (store, region, experiment) == (evaluated.store.root, "cn", "scores")

    def test_few_places_are_not_replaced_all_at_once(self, evaluated: Evaluated) -> None:
        """Of a universe whose portfolio would have 50 places, and replace 5 of them."""
        for topk in (3, 40):
            task = scored.of_file(evaluated.scores, evaluated.store, universe="csi300", topk=topk)
            assert traded(task)["strategy"]["kwargs"] == {"topk": topk, "n_drop": max(1, topk // 10)}

    def test_the_index_of_the_portfolio_counts_unless_another_is_asked_for(
        self, evaluated: Evaluated
    ) -> None:
        portfolio = {"strategy": {"class": "a.B"}, "backtest": {"benchmark": "SH000016"}}
        for asked, index in ((None, "SH000016"), ("SH000903", "SH000903"), ("none", None)):
            task = scored.of_file(
                evaluated.scores, evaluated.store, universe="csi300", benchmark=asked, portfolio=portfolio
            )
            assert traded(task)["backtest"]["benchmark"] == task["dataset"]["kwargs"]["benchmark"] == index


class TestPortfolio:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("[1, 2]", "must be a mapping with `strategy`"),
            ("backtest: {account: 3}", "must be a mapping with `strategy`"),
            ("strategy: {class: a.B}\nbenchmark: X", "has no place for `benchmark`"),
            ("strategy: {class: os.system}", "must be of one of the packages"),
            ("strategy: [", "must be YAML"),
            ("strategy: TopkDropout", "`portfolio.strategy` must be a mapping with `class`"),
        ],
    )
    def test_what_is_wrong_is_one_line(
        self,
        text: str,
        said: str,
        evaluated: Evaluated,
        command: Command,
        started: list[tuple[Any, ...]],
        tmp_path: Path,
    ) -> None:
        (tmp_path / "p.yaml").write_text(text)
        status, _, err = command("backtest", "mine", "--portfolio", "p.yaml")
        assert status == 2
        assert said in err
        assert err.count("\n") == 1
        assert not started
