from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.portfolio.online.paper_account import PaperAccount
from qlib_ext.recommend.memory import KEPT, Memory

STRATEGY = {"class": "some.Strategy", "kwargs": {"places": (1, 2)}}
DAYS = pd.bdate_range("2024-01-01", periods=KEPT + 5)


def test_a_first_call_finds_nothing(tmp_path: Path) -> None:
    memory = Memory.read(tmp_path / "memory.json", STRATEGY)
    assert memory.before(DAYS[0]) is None


def test_a_day_goes_on_from_the_day_before_and_can_be_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    for number, day in enumerate(DAYS):
        memory = Memory.read(path, STRATEGY)
        state = memory.before(day)
        assert (None if state is None else state["number"]) == (number - 1 if number else None)
        memory.after(day, {"number": number, "weight": 0.1 + 0.2}).write(path)
    kept = Memory.read(path, STRATEGY)
    assert len(kept.days) == KEPT
    assert kept.before(DAYS[-1]) == {"number": len(DAYS) - 2, "weight": 0.1 + 0.2}
    again = kept.after(DAYS[-3], {"number": -1})
    assert [*again.days][-1] == f"{DAYS[-3]:%Y-%m-%d}"
    assert [path.name for path in tmp_path.iterdir()] == ["memory.json"]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"days": {}}', '{"days": {"never": {}}, "strategy": {}}', '{"days": 1}']
)
def test_what_is_no_memory(text: str, tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    path.write_text(text)
    with pytest.raises(
        UserError, match=r"`--memory` must be a file that an earlier call wrote, found .*memory\.json"
    ):
        Memory.read(path, STRATEGY)


def test_that_of_another_strategy(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    Memory.read(path, STRATEGY).after(DAYS[0], {}).write(path)
    with pytest.raises(UserError, match="the memory of a strategy with other settings"):
        Memory.read(path, {**STRATEGY, "kwargs": {"places": (1, 3)}})


def test_an_account_on_paper_goes_on_as_if_it_had_not_been_away() -> None:
    """Of an online combination: what it holds, and what it is still to trade and to pay."""
    returns = np.random.default_rng(0).normal(0, 0.02, (6, 2))
    stays, goes = (PaperAccount(2, 0.001, 0.002) for _ in range(2))
    for k, row in enumerate(returns):
        for account in (stays, goes):
            account.aim(["A", "B"], np.array([0.2 * k / 5, 0.5]))
        back = PaperAccount(2, 0.001, 0.002)
        back.recall(json.loads(json.dumps(goes.memory())))
        goes = back
        np.testing.assert_array_equal(
            stays.advance(["A", "B"], row[None]), goes.advance(["A", "B"], row[None])
        )
    assert stays.held(["A"])[0] > 0
