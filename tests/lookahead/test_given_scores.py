"""Scores that were given: what they were made from cannot be seen, but that they are too good can."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.lookahead.audit import audit
from qlib_ext.lookahead.findings import Result
from qlib_ext.lookahead.given_scores import AHEAD_DAYS
from qlib_ext.market.store import QlibStore
from qlib_ext.model.given_scores import GivenScores

Look = Callable[[np.ndarray], Result]


@pytest.fixture
def look(use: Callable[..., None], store: QlibStore, segments: dict[str, list[str]], tmp_path: Path) -> Look:
    """The audit of scores `[D, S]`."""

    def looked(scores: np.ndarray) -> Result:
        table = pd.DataFrame(scores, store.calendar, store.instruments()).rename_axis(index="date")
        table.to_parquet(tmp_path / "scores.parquet")
        task: dict[str, Any] = {
            "model": {
                "class": "qlib_ext.model.given_scores.GivenScores",
                "kwargs": {"path": str(tmp_path / "scores.parquet")},
            },
            "dataset": {
                "class": "qlib_ext.data.dataset.DailyPanelDataset",
                "kwargs": {
                    "handler": {
                        "class": "qlib_ext.data.handlers.panel.PanelHandler",
                        "kwargs": {
                            "instruments": "few",
                            "features": {"class": "qlib_ext.features.no_features.NoFeatures"},
                        },
                    },
                    "segments": {"test": segments["test"]},
                },
            },
        }
        return audit(task)

    return looked


def returns(store: QlibStore) -> np.ndarray:
    close = pd.DataFrame(store.read(["close"], store.instruments())[0].astype(float))
    return (close / close.shift() - 1).to_numpy()


def noise(store: QlibStore) -> np.ndarray:
    shape = len(store.calendar), len(store.instruments())
    return np.random.default_rng(2).normal(size=shape)


def test_noise_raises_no_alarm_and_is_said_to_be_unseen(look: Look, store: QlibStore) -> None:
    found = look(noise(store))
    assert not found.findings
    assert found.dates == 0
    assert found.notes[0].startswith("look-ahead inside these scores cannot be audited")
    assert found.to_json()["given"] == "scores.parquet"


def test_a_reversal_of_the_day_is_no_alarm(look: Look, store: QlibStore) -> None:
    found = look(-returns(store))
    assert not found.findings
    assert "with the return of their own day -" in found.notes[1]


@pytest.mark.parametrize("ahead", [1, 2, AHEAD_DAYS])
def test_returns_of_later_days_are_an_alarm(look: Look, store: QlibStore, ahead: int) -> None:
    later = np.full_like(noise(store), np.nan)
    later[:-ahead] = returns(store)[ahead:]
    found = look(later + 0.01 * noise(store))
    assert [finding.kind for finding in found.findings][:1] == ["scores-too-good"]
    assert f"scores rank the stocks as their return {ahead} day" in found.findings[0].what


def test_scores_that_follow_the_price_of_the_next_day_are_an_alarm(look: Look, store: QlibStore) -> None:
    """A level hides it from the RankIC; its changes do not."""
    level = np.nancumsum(np.nan_to_num(returns(store)), axis=0)
    later = np.full_like(level, np.nan)
    later[:-1] = level[1:]
    found = look(later + np.arange(level.shape[1]))
    assert [finding.what for finding in found.findings] == [
        "changes of the scores rank the stocks as their return 1 day later does"
    ]


@pytest.mark.parametrize("given", [{}, {"path": "a.csv", "run": "b"}])
def test_scores_are_of_a_file_or_of_a_run(given: dict[str, str]) -> None:
    with pytest.raises(UserError, match="must be given `path`, a file of scores, or `run`, a run on MLflow"):
        GivenScores(**given)
