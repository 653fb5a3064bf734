"""A market shows a portfolio what was known at a close, and nothing of a later day."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.market.store import QlibStore, write_store
from qlib_ext.portfolio.market_history import MarketHistory

DAYS = pd.bdate_range("2020-01-01", periods=30)
CODES = ("SH600000", "SH600001", "SH600002")


@pytest.fixture
def history() -> MarketHistory:
    draw = np.random.default_rng(2)
    scores = draw.normal(size=(30, 3))
    scores[10, 1] = np.nan
    return MarketHistory(
        days=DAYS,
        codes=CODES,
        scores=scores,
        returns=draw.normal(0, 0.02, (30, 3)),
        market=draw.normal(0, 0.01, 30),
        planes={"market_value": draw.uniform(1, 9, (30, 3))},
        industry=np.tile(np.array([0, 1, -1]), (30, 1)),
        industry_names=("banks", "steel"),
    )


class TestKnown:
    def test_later_days_change_nothing(self, history: MarketHistory) -> None:
        draw, later = np.random.default_rng(3), slice(16, None)

        def scrambled(plane: np.ndarray) -> np.ndarray:
            other = plane.copy()
            other[later] = draw.permutation(other[later].ravel()).reshape(other[later].shape) * -7
            return other

        assert history.industry is not None
        other = replace(
            history,
            scores=scrambled(history.scores),
            returns=scrambled(history.returns),
            market=scrambled(history.market),
            planes={name: np.abs(scrambled(plane)) for name, plane in history.planes.items()},
            industry=np.where(np.arange(30)[:, None] < 16, history.industry, 0),
        )
        one, two = (each.known(DAYS[15], length=10, benchmark="value") for each in (history, other))
        for name in ("scores", "returns", "market", "benchmark", "industry"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name), name)
        assert np.array_equal(one.plane("market_value"), two.plane("market_value"))
        assert one.returns.shape == (10, 3)

    def test_candidates_have_a_score_or_are_held(self, history: MarketHistory) -> None:
        assert history.known(DAYS[10], length=5).codes == (CODES[0], CODES[2])
        day = history.known(DAYS[10], length=5, held={CODES[1]: 0.2})
        assert day.codes == CODES
        assert day.held.tolist() == [0, 0.2, 0]
        assert day.benchmark.tolist() == [0.5, 0, 0.5]

    def test_the_benchmark_by_value_follows_todays_values(self, history: MarketHistory) -> None:
        day = history.known(DAYS[10], length=5, benchmark="value", held={CODES[1]: 0.2})
        values = history.planes["market_value"][10] * [1, 0, 1]
        assert np.allclose(day.benchmark, values / values.sum())

    def test_what_cannot_be_asked_is_said(self, history: MarketHistory) -> None:
        with pytest.raises(UserError, match="2021-01-01 is no day of this market, which has 2020-01-01"):
            history.known(pd.Timestamp("2021-01-01"), length=5)
        with pytest.raises(UserError, match="needs `market_value` of the store, found none"):
            replace(history, planes={}).known(DAYS[3], length=2, benchmark="value")


class TestLoad:
    def test_bars_scores_and_what_the_store_lacks(self, tmp_path: Path) -> None:
        close = np.cumprod(np.full((30, 4), 1.01), axis=0)
        close[5:8, 0] = np.nan  # suspended
        volume = np.full((30, 4), 1000.0)
        codes = [*CODES, "SH000300"]
        spells = pd.DataFrame({"instrument": codes, "start": DAYS[0], "end": DAYS[-1]})
        fields = {"close": close, "volume": volume, "factor": np.ones((30, 4))}
        write_store(tmp_path / "store", DAYS, codes, fields, {"all": spells})
        index = pd.MultiIndex.from_product([DAYS[10:20], CODES[:2]], names=["datetime", "instrument"])
        scores = pd.Series(np.arange(20.0), index)
        store = QlibStore(tmp_path / "store")
        history = MarketHistory.load(store, scores, days_back=6, index="SH000300", others=[CODES[2]])
        assert history.codes == CODES
        assert history.days.equals(DAYS[4:20])
        assert np.isnan(history.scores[:6]).all()
        assert history.scores[6].tolist()[:2] == [0, 1]
        assert history.codes_on(DAYS[10]) == [*CODES[:2]]
        assert history.returns[1:4, 0].tolist() == [0, 0, 0]  # stands still, and makes up for it
        assert history.returns[4, 0] == pytest.approx(1.01**4 - 1, rel=1e-5)
        assert history.market[1:] == pytest.approx(0.01, rel=1e-4)
        assert np.allclose(history.planes["traded_value"][5, 1], close[9, 1] * 1000)
        assert [note.split(" are not known")[0] for note in history.notes] == ["market values", "industries"]

    def test_without_an_index_the_market_is_the_mean_of_the_days_members(self, tmp_path: Path) -> None:
        """A stock that is going to join has no part in it before."""
        close = np.cumprod(np.tile([1.01, 1.03, 1.5], (30, 1)), axis=0)
        spells = pd.DataFrame({"instrument": [*CODES], "start": DAYS[0], "end": DAYS[-1]})
        write_store(tmp_path / "store", DAYS, [*CODES], {"close": close}, {"all": spells})
        early = pd.MultiIndex.from_product([DAYS[10:20], CODES[:2]], names=["datetime", "instrument"])
        late = pd.MultiIndex.from_product([DAYS[15:20], CODES[2:]], names=["datetime", "instrument"])
        scores = pd.Series(1.0, early.append(late))
        history = MarketHistory.load(QlibStore(tmp_path / "store"), scores, days_back=6)
        day = history.known(DAYS[14], length=5, held={CODES[2]: 0.1})
        assert day.market == pytest.approx(0.02, rel=1e-4)
        assert history.known(DAYS[15], length=5).market == pytest.approx(0.18, rel=1e-4)

    def test_an_index_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        spells = pd.DataFrame({"instrument": [*CODES], "start": DAYS[0], "end": DAYS[-1]})
        write_store(tmp_path / "store", DAYS, [*CODES], {"close": np.ones((30, 3))}, {"all": spells})
        scores = pd.Series(
            [1.0], pd.MultiIndex.from_tuples([(DAYS[9], CODES[0])], names=["datetime", "instrument"])
        )
        with pytest.raises(UserError, match=r"`index` must be an instrument of the store .*, found SH000300"):
            MarketHistory.load(QlibStore(tmp_path / "store"), scores, days_back=3, index="SH000300")
