from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qlib_ext.market.synthetic.planted import planted_score

STOCKS = 12


def window(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    close = 10 * np.exp(np.cumsum(0.02 * rng.standard_normal((60, STOCKS)), axis=0))
    high, low = close * (1 + 0.02 * rng.random(close.shape)), close * (1 - 0.02 * rng.random(close.shape))
    return {
        "close": close,
        "high": high,
        "low": low,
        "volume": 1e6 * np.exp(rng.standard_normal(close.shape)),
    }


def naive_score(bars: dict[str, np.ndarray]) -> list[float]:
    """The formula, one stock and one day at a time."""
    stocks = range(bars["close"].shape[1])
    rows = {name: [list(values[:, s]) for s in stocks] for name, values in bars.items()}
    eligible = [
        s
        for s in stocks
        if not math.isnan(rows["close"][s][59]) and sum(x == x for x in rows["close"][s]) >= 40
    ]
    parts: list[dict[int, float]] = [{}, {}, {}]
    for s in eligible:
        close = rows["close"][s]
        parts[0][s] = -math.log(close[59] / close[54])
        top = max(x for x in rows["high"][s] if x == x)
        bottom = min(x for x in rows["low"][s] if x == x)
        parts[1][s] = -(close[59] - bottom) / (top - bottom)
        last = [x for x in rows["volume"][s][50:] if x == x]
        every = [x for x in rows["volume"][s] if x == x]
        parts[2][s] = -math.log((sum(last) / len(last)) / (sum(every) / len(every)))

    def z(values: dict[int, float]) -> dict[int, float]:
        there = {s: x for s, x in values.items() if x == x}
        mean = sum(there.values()) / len(there)
        spread = math.sqrt(sum((x - mean) ** 2 for x in there.values()) / len(there))
        return {s: min(3.0, max(-3.0, (x - mean) / spread)) for s, x in there.items()}

    scores = [z(part) for part in parts]
    total = z({s: sum(score.get(s, 0.0) for score in scores) for s in eligible})
    return [total.get(s, math.nan) for s in stocks]


class TestPlantedScore:
    @pytest.mark.parametrize("seed", range(3))
    def test_against_a_naive_loop(self, seed: int) -> None:
        np.testing.assert_allclose(planted_score(**window(seed)), naive_score(window(seed)), rtol=1e-10)

    def test_against_a_naive_loop_with_suspensions(self) -> None:
        bars = window(5)
        halted = np.random.default_rng(1).random((60, STOCKS)) < 0.2
        halted[:, 0] = np.arange(60) < 30  # too few bars
        halted[59, 1] = True  # no bar today
        halted[54, 2] = True  # no close to reverse from: the part counts as the mean
        for values in bars.values():
            values[halted] = np.nan
        score = planted_score(**bars)
        np.testing.assert_allclose(score, naive_score(bars), rtol=1e-10)
        assert np.isnan(score[:2]).all()
        assert np.isfinite(score[2])

    def test_golden(self) -> None:
        np.testing.assert_allclose(planted_score(**window())[:3], [-1.8385, -0.6353, -0.0242], atol=1e-4)

    def test_mean_and_spread(self) -> None:
        score = planted_score(**window())
        assert score.mean() == pytest.approx(0, abs=1e-12)
        assert score.std() == pytest.approx(1)

    def test_units_do_not_matter(self) -> None:
        """Alpha360 divides a stock's window by its last values; the score must survive that."""
        bars = window()
        scaled = {name: values / bars["close"][-1] for name, values in bars.items() if name != "volume"}
        scaled["volume"] = bars["volume"] / bars["volume"][-1]
        np.testing.assert_allclose(planted_score(**scaled), planted_score(**bars), rtol=1e-8)

    def test_a_move_of_all_stocks_does_not_matter_to_the_reversal(self) -> None:
        bars = window()
        wide = {
            "high": np.full((60, STOCKS), 1e9),
            "low": np.full((60, STOCKS), -1e9),
        }  # position: a constant
        base = planted_score(**(bars | wide))
        crash = bars["close"].copy()
        crash[-2:] *= 0.8
        np.testing.assert_allclose(planted_score(**(bars | wide | {"close": crash})), base, atol=1e-4)

    def test_order_of_stocks_does_not_matter(self) -> None:
        bars = window()
        order = np.random.default_rng(2).permutation(STOCKS)
        shuffled = {name: values[:, order] for name, values in bars.items()}
        np.testing.assert_allclose(planted_score(**shuffled), planted_score(**bars)[order], rtol=1e-10)

    @pytest.mark.parametrize("part", ["reversal", "position", "volume"])
    def test_fallen_and_calm_scores_high(self, part: str) -> None:
        bars = {name: np.ones((60, STOCKS)) for name in ("close", "volume")}
        bars |= {"high": np.full((60, STOCKS), 2.0), "low": np.full((60, STOCKS), 0.5)}
        if part == "reversal":
            bars["close"][-6, 0] = 1.5
        elif part == "position":
            bars["low"][10, 0] = 0.9
            bars["low"][:10, 0] = bars["low"][11:, 0] = 0.95
        else:
            bars["volume"][-10:, 0] = 0.5
        score = planted_score(**bars)
        assert score[0] > 0
        assert (score[1:] < 0).all()

    def test_a_day_without_stocks(self) -> None:
        nothing = {name: np.full((60, STOCKS), np.nan) for name in window()}
        assert np.isnan(planted_score(**nothing)).all()

    def test_stocks_that_are_all_alike(self) -> None:
        alike = {name: np.ones((60, STOCKS)) for name in window()}
        np.testing.assert_array_equal(planted_score(**alike), np.zeros(STOCKS))


class TestInTheStore:
    def test_the_published_score_follows_from_the_bars(self, sample: Any) -> None:
        """The file of side data holds what the store's own bars give: nothing hidden is needed to know the score."""
        table = pd.read_parquet(sample.store.root / "side" / "planted_score.parquet")
        published = table.pivot(index="datetime", columns="instrument", values="score")
        published = published.reindex(index=sample.calendar, columns=sample.stocks).to_numpy()
        names = ("close", "high", "low", "volume")
        bars = dict(zip(names, sample.read(*names), strict=True))
        for day in (60, 200, 333, 600, len(sample.calendar) - 1):
            past = {name: values[day - 59 : day + 1] for name, values in bars.items()}
            np.testing.assert_allclose(planted_score(**past), published[day], atol=1e-4)
        assert np.isnan(published[:39]).all()
