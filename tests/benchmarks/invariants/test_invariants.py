from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.invariants import __main__ as command
from benchmarks.invariants.cases import Case, cases
from benchmarks.invariants.checks import violations
from benchmarks.invariants.markets import ERAS, make_market
from qlib_ext.backtest.position import OrderedPosition
from qlib_ext.backtest.rule_based_exchange import RuleBasedExchange
from qlib_ext.backtest.simulation import BacktestResult
from qlib_ext.market.rules import price_limits
from qlib_ext.market.rules.exchange_rules import Fees, Lot

# Qlib averages the orders of a day also where there are none.
pytestmark = pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning")

REFORM = 21  # ChiNext's limit changes in this market, and STAR is there
WITHOUT_FACTOR = 7


def look(root: Path, seed: int, exchanges: int = 2, each: int = 5) -> tuple[list[str], Counter[str]]:
    found: list[str] = []
    counted: Counter[str] = Counter()
    for case in cases(root, seed, exchanges, each):
        said, looked_at = violations(case)
        found += said
        counted += looked_at
    return found, counted


@pytest.mark.parametrize("seed", [3, 5, WITHOUT_FACTOR, REFORM])
def test_nothing_is_violated(tmp_path: Path, seed: int) -> None:
    found, counted = look(tmp_path / "store", seed)
    assert found == []
    assert counted["trades"] > 30
    assert counted["days"] > 40


class TestEveryCheckCanFail:
    """What would be wrong is found: the exchange is spoiled in one place, and the check that should tells of it."""

    def spoiled(self, tmp_path: Path, said: str, seed: int = REFORM) -> None:
        found, _ = look(tmp_path / "store", seed, 3, 6)
        assert [line for line in found if said in line], found[:5]

    def test_no_limits(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        at_limit = price_limits.at_limit

        def nowhere(*args: Any, **kwargs: Any) -> Any:
            found = at_limit(*args, **kwargs)
            return replace(found, up=np.zeros_like(found.up), down=np.zeros_like(found.down))

        monkeypatch.setattr("qlib_ext.backtest.rule_based_exchange.at_limit", nowhere)
        self.spoiled(tmp_path, "bought at the upper limit")

    def test_limits_rounded_down(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(price_limits, "_half_up", lambda ticks: np.ceil(ticks - 1e-6))
        self.spoiled(tmp_path, "bought at the upper limit")

    def test_suspended_stocks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            RuleBasedExchange, "check_stock_limit", lambda self, code, start, end, direction=None: False
        )
        self.spoiled(tmp_path, "traded while suspended", seed=5)

    def test_sold_on_the_day_of_the_purchase(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(RuleBasedExchange, "frozen", lambda *args: 0.0)
        self.spoiled(tmp_path, "that could be sold")

    def test_lots_of_one_share(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(RuleBasedExchange, "lot", lambda *args: Lot(1, 1))
        self.spoiled(tmp_path, "shares (")

    def test_the_minimum_of_the_whole_cost(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def cost(self: Fees, value: float, side: Any) -> float:
            return max((self.commission + self.levy(side)) * value, self.minimum) if value > 0 else 0.0

        monkeypatch.setattr(Fees, "cost", cost)
        self.spoiled(tmp_path, "is due")

    def test_more_than_the_cash(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(OrderedPosition, "get_cash", lambda self, include_settle=False: 1e9)
        self.spoiled(tmp_path, "cash of -")

    def test_books_that_do_not_balance(self, tmp_path: Path) -> None:
        def untrue(case: Case, column: str) -> list[str]:
            daily = case.done.daily.copy()
            daily[column] *= 1 + 1e-5
            done = BacktestResult(daily, case.done.orders, case.done.held)
            return violations(replace(case, done=done))[0]

        case = next(case for case in cases(tmp_path / "store", 5) if (case.done.daily["cost"] > 1e-5).any())
        assert violations(case)[0] == []
        for column in ("cash", "account", "cost", "turnover"):
            assert untrue(case, column), column
        lost = replace(case, done=replace(case.done, orders=case.done.orders.iloc[1:]))
        assert violations(lost)[0] or case.done.orders["filled"].iloc[0] == 0


def test_the_markets_that_are_named_here() -> None:
    assert ERAS[REFORM % len(ERAS)] == "2020-08-03"
    assert WITHOUT_FACTOR % 8 == 7 != REFORM % 8


class TestCommand:
    def test_it_goes_on_where_it_stopped(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        asked: list[int] = []

        def block(seed: int) -> dict[str, object]:
            asked.append(seed)
            said = ["case 2/0/0: something"] if seed == 2 else []
            return {"seed": seed, "violations": said, "counted": {"cases": 100}}

        monkeypatch.setattr(command, "run_block", block)
        out = ["--out", str(tmp_path / "found.jsonl")]
        monkeypatch.setattr("sys.argv", ["invariants", "--cases", "150", *out])
        assert command.main() == 0
        assert asked == [0, 1]
        monkeypatch.setattr("sys.argv", ["invariants", "--cases", "300", *out])
        assert command.main() == 1
        assert asked == [0, 1, 2]
        said = capsys.readouterr().out
        assert "300  cases" in said
        assert "1  violations\n  case 2/0/0: something" in said


def test_a_market_is_made_of_its_seed_alone(tmp_path: Path) -> None:
    one, other = (make_market(tmp_path / name, 11) for name in ("one", "other"))
    pd.testing.assert_index_equal(one.calendar, other.calendar)
    np.testing.assert_array_equal(one.prices["close"], other.prices["close"])
    assert not np.array_equal(one.prices["close"], make_market(tmp_path / "third", 12).prices["close"])
