from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy.stats import kurtosis, spearmanr

from qlib_ext.market.synthetic.sample import SampleMarket, choose_members
from qlib_ext.market.synthetic.simulation import INDUSTRIES, Market, found_firms, simulate


def exchange_rounding(price: np.ndarray) -> np.ndarray:
    """To the cent, halves up, in whole numbers of a hundredth of a cent so that no binary fraction misleads."""
    return (np.rint(price * 10_000).astype(np.int64) + 50) // 100 / 100


@pytest.fixture(scope="module")
def market(sample: Any) -> Market:
    return sample.market


@pytest.fixture(scope="module")
def traded(market: Market) -> np.ndarray:
    return np.isfinite(market.close)


class TestFirms:
    def test_equal_arguments_give_equal_firms(self) -> None:
        one, two = found_firms(5, 80, 500), found_firms(5, 80, 500)
        for field in dataclasses.fields(one):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(two, field.name))

    def test_codes(self) -> None:
        codes = found_firms(0, 430, 2674).codes
        assert codes == sorted(set(codes))
        boards = [code[:4] for code in codes]
        assert len(codes) == len(boards) == 430
        assert {board: boards.count(board) for board in set(boards)} == {"SH60": 237, "SZ00": 135, "SZ30": 58}
        assert all(len(code) == 8 and code[2:].isdigit() for code in codes)

    def test_some_list_late_and_some_leave(self) -> None:
        firms = found_firms(0, 430, 2674)
        assert (firms.listed > 0).sum() == 95
        assert 10 < (firms.delisted < 2674).sum() < 45
        assert (firms.delisted > firms.listed).all()

    def test_industries_change_on_their_day(self) -> None:
        firms = found_firms(0, 430, 2674)
        moved = np.flatnonzero(firms.moves < 2674)
        assert 5 < len(moved) < 45
        stock = moved[0]
        assert firms.industries(firms.moves[stock] - 1)[stock] == firms.industry[stock]
        assert (
            firms.industries(firms.moves[stock])[stock]
            == firms.later_industry[stock]
            != firms.industry[stock]
        )
        assert max(firms.industry.max(), firms.later_industry.max()) < len(INDUSTRIES)


class TestPrices:
    def test_order_within_the_day(self, market: Market, traded: np.ndarray) -> None:
        for price in (market.open, market.close, market.vwap):
            assert (market.low <= price)[traded].all()
            assert (price <= market.high)[traded].all()

    def test_no_price_beyond_its_limit_and_some_at_it(self, market: Market) -> None:
        at_limit = 0
        for stock in range(market.close.shape[1]):
            rows = np.flatnonzero(np.isfinite(market.close[:, stock]))
            close, factor = market.close[rows, stock], market.factor[rows, stock]
            reference = exchange_rounding(close[:-1] * factor[:-1] / factor[1:])
            up, down = exchange_rounding(1.1 * reference), exchange_rounding(0.9 * reference)
            assert (market.high[rows[1:], stock] <= up + 1e-9).all()
            assert (market.low[rows[1:], stock] >= down - 1e-9).all()
            at_limit += (np.isclose(close[1:], up) | np.isclose(close[1:], down)).sum()
            np.testing.assert_allclose(market.change[rows[1:], stock], close[1:] / reference - 1, atol=1e-12)
        assert 0.001 < at_limit / np.isfinite(market.close).sum() < 0.03

    def test_prices_are_in_cents(self, market: Market, traded: np.ndarray) -> None:
        for price in (market.open, market.high, market.low, market.close):
            np.testing.assert_allclose(price[traded] * 100, np.rint(price[traded] * 100), atol=1e-6)
            assert (price[traded] > 0).all()

    def test_all_fields_come_together(self, market: Market, traded: np.ndarray) -> None:
        for name in ("open", "high", "low", "vwap", "volume", "factor", "change"):
            np.testing.assert_array_equal(np.isfinite(getattr(market, name)), traded)

    def test_volume_comes_in_lots(self, market: Market, traded: np.ndarray) -> None:
        assert (market.volume[traded] >= 100).all()
        assert (market.volume[traded] % 100 == 0).all()


class TestFactor:
    def test_it_explains_splits_and_dividends(self, market: Market) -> None:
        """Where the factor jumps, the raw price falls by as much and the adjusted price goes on as usual."""
        splits = dividends = 0
        for stock in range(market.close.shape[1]):
            rows = np.flatnonzero(np.isfinite(market.close[:, stock]))
            close, factor = market.close[rows, stock], market.factor[rows, stock]
            shares = market.market_value[rows, stock] / close
            jump = factor[1:] / factor[:-1]
            issue = shares[1:] / shares[:-1]
            adjusted = close[1:] * factor[1:] / (close[:-1] * factor[:-1]) - 1
            assert (jump >= 1 - 1e-12).all()
            assert (np.abs(adjusted) < 0.1 + 0.005 / close[:-1] * jump + 1e-9).all()
            issued = issue > 1.01
            splits += issued.sum()
            assert (jump[issued] > issue[issued] * 0.99).all()
            assert (close[1:][issued] < close[:-1][issued]).all()
            paid = (jump > 1 + 1e-9) & ~issued
            dividends += paid.sum()
            assert (jump[paid] < 1.06).all()
        assert splits > 3
        assert dividends > 50


class TestLife:
    def test_suspensions_are_days_without_bars_while_listed(self, market: Market, traded: np.ndarray) -> None:
        listed = np.isfinite(market.market_value)
        assert (listed | ~traded).all()
        assert 0.005 < 1 - traded.sum() / listed.sum() < 0.06

    def test_a_suspended_stock_keeps_its_value(self, market: Market, traded: np.ndarray) -> None:
        halted = np.isfinite(market.market_value[1:]) & np.isfinite(market.market_value[:-1]) & ~traded[1:]
        np.testing.assert_array_equal(market.market_value[1:][halted], market.market_value[:-1][halted])

    def test_listings_and_delistings_follow_the_firms(self, sample: Any) -> None:
        listed = np.isfinite(sample.market.market_value)
        days = len(listed)
        for stock, row in enumerate(listed.T):
            there = np.flatnonzero(row)
            assert there[0] == sample.firms.listed[stock]
            assert there[-1] < sample.firms.delisted[stock]
            assert len(there) == there[-1] - there[0] + 1
            early = there[-1] + 1 < min(days, sample.firms.delisted[stock])
            if early:  # delisted for its price
                close = sample.market.close[: there[-1] + 1, stock]
                assert (close[np.isfinite(close)][-20:] < 1.0).all()
        assert (sample.firms.listed > 0).any()
        assert (~listed[-1]).any()


class TestReturns:
    def test_fat_tails_and_volatility_clustering(self, market: Market) -> None:
        own = market.change - np.nanmean(market.change, axis=1, keepdims=True)
        assert kurtosis(own[np.isfinite(own)]) > 1
        size = np.abs(own)
        pairs = np.isfinite(size[1:]) & np.isfinite(size[:-1])
        assert spearmanr(size[1:][pairs], size[:-1][pairs])[0] > 0.08

    def test_volume_goes_with_volatility(self, market: Market, traded: np.ndarray) -> None:
        level = np.nanmean(np.log(market.volume), axis=0)
        volume = (np.log(market.volume) - level)[traded]
        assert spearmanr(volume, np.abs(market.change[traded]))[0] > 0.15

    def test_stocks_share_a_market(self, market: Market) -> None:
        mean = np.nanmean(market.change, axis=1)
        loadings = [
            np.corrcoef(row[np.isfinite(row)], mean[np.isfinite(row)])[0, 1] for row in market.change.T
        ]
        assert 0.2 < np.mean(loadings) < 0.8

    def test_another_seed_gives_another_market(self, sample: Any) -> None:
        other = simulate(4, sample.firms, sample.calendar)
        both = np.isfinite(other.change) & np.isfinite(sample.market.change)
        assert abs(np.corrcoef(other.change[both], sample.market.change[both])[0, 1]) < 0.1


class TestPlantedPart:
    @staticmethod
    def rank_ic(market: Market, members: np.ndarray, ahead: int) -> np.ndarray:
        """Daily RankIC of the score against the return from the close of t+ahead-1 to that of t+ahead."""
        adjusted = market.close * market.factor
        values = []
        for day in range(len(adjusted) - ahead):
            label = adjusted[day + ahead] / adjusted[day + ahead - 1] - 1
            use = members[day] & np.isfinite(market.score[day]) & np.isfinite(label)
            if use.any():
                values.append(spearmanr(market.score[day, use], label[use])[0])
        return np.array(values)

    def test_rank_ic_of_the_default_market(self) -> None:
        """What the sample market promises, measured on its default arguments."""
        calendar = SampleMarket().calendar()
        firms = found_firms(0, 430, len(calendar))
        market = simulate(0, firms, calendar)
        members = choose_members(calendar, firms.codes, market.market_value, firms.price * firms.shares)
        daily = self.rank_ic(market, members["csi300"], ahead=2)
        assert len(daily) > 2600
        assert 0.09 < daily.mean() < 0.11
        years = [part.mean() for part in np.array_split(daily, 5)]
        assert min(years) > 0.07  # it lasts
        assert max(years) < 0.13

    def test_small_markets_have_it_too(self, sample: Any) -> None:
        everyone = np.ones(sample.market.score.shape, dtype=bool)
        daily = self.rank_ic(sample.market, everyone, ahead=2)
        error = daily.std() / np.sqrt(len(daily))
        assert daily.mean() == pytest.approx(0.10, abs=3 * error)
        assert error < 0.01
