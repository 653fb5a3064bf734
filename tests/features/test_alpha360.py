from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from qlib.contrib.data.loader import Alpha360DL

from qlib_ext.checks import UserError
from qlib_ext.features.alpha360 import Alpha360
from tests.features.arrays import market_of

T = 5
FIELDS = ("close", "high", "volume")
TRAIN = slice(0, 30)


@pytest.fixture
def values() -> np.ndarray:
    """`[3, 40, 4]`: close, high and volume, with gaps."""
    draw = np.random.default_rng(2)
    made = np.exp(draw.normal(2, 0.3, (3, 40, 4))).astype(np.float32)
    made[draw.random(made.shape) < 0.05] = np.nan
    made[2, 20, 1] = 0.0
    return made


@pytest.fixture
def rows(values: np.ndarray) -> np.ndarray:
    chosen = ~np.isnan(values[0])
    chosen[TRAIN.stop :] = False
    return chosen


def naive_ratio(values: np.ndarray, day: int, stock: int, step: int, field: int) -> float:
    """One feature before normalisation: a value of the window over today's close, or today's volume."""
    past = day - (T - 1 - step)
    value = values[field, past, stock] if past >= 0 else np.float32(np.nan)
    volume = FIELDS[field] == "volume"
    base = values[2, day, stock] + np.float32(1e-12) if volume else values[0, day, stock]
    with np.errstate(divide="ignore"):
        return float(value / base)


class TestFit:
    def test_median_and_deviation_of_every_lag_and_field(self, values: np.ndarray, rows: np.ndarray) -> None:
        features = Alpha360(FIELDS, T).fit(market_of(values, FIELDS), rows)
        for step in range(T):
            for field in range(3):
                ratios = np.array(
                    [naive_ratio(values, day, stock, step, field) for day, stock in np.argwhere(rows)]
                )
                center = np.nanmedian(ratios)
                deviation = np.nanmedian(np.abs(ratios - center))
                assert features.median[step, field] == pytest.approx(center, rel=1e-6)
                assert features.scale[step, field] == pytest.approx(1.4826 * (deviation + 1e-12), rel=1e-4)

    def test_only_the_rows_named_count(self, values: np.ndarray, rows: np.ndarray) -> None:
        first = Alpha360(FIELDS, T).fit(market_of(values, FIELDS), rows)
        changed = values.copy()
        changed[:, TRAIN.stop :] *= 3
        second = Alpha360(FIELDS, T).fit(market_of(changed, FIELDS), rows)
        np.testing.assert_array_equal(first.median, second.median)
        np.testing.assert_array_equal(first.scale, second.scale)
        changed[1, 10, 0] *= 3
        assert not np.array_equal(
            Alpha360(FIELDS, T).fit(market_of(changed, FIELDS), rows).scale, second.scale
        )

    def test_no_rows_is_an_error(self, values: np.ndarray, rows: np.ndarray) -> None:
        with pytest.raises(UserError, match="hold no stock: widen `fit_start_time` and `fit_end_time`"):
            Alpha360(FIELDS, T).fit(market_of(values, FIELDS), np.zeros_like(rows))


class TestGather:
    def test_every_number_against_a_plain_loop(self, values: np.ndarray, rows: np.ndarray) -> None:
        features = Alpha360(FIELDS, T).fit(market_of(values, FIELDS), rows)
        padded = torch.from_numpy(features.pad(market_of(values, FIELDS)))
        assert padded.shape == (40 + T - 1, 4, 3)
        for day in (0, 2, 17, 20, 39):
            columns = np.flatnonzero(~np.isnan(values[0, day]))[::-1].copy()  # in any order
            found = features.gather(padded, day, torch.from_numpy(columns))
            assert found.shape == (len(columns), T, 3)
            for i, stock in enumerate(columns):
                for step in range(T):
                    for field in range(3):
                        ratio = naive_ratio(values, day, stock, step, field)
                        scaled = (ratio - features.median[step, field]) / features.scale[step, field]
                        expected = 0.0 if np.isnan(scaled) else min(max(scaled, -3.0), 3.0)
                        assert found[i, step, field].item() == pytest.approx(expected, abs=2e-5)

    def test_finite_whatever_the_prices(self, values: np.ndarray, rows: np.ndarray) -> None:
        features = Alpha360(FIELDS, T).fit(market_of(values, FIELDS), rows)
        strange = values.copy()
        strange[:, 35:39, 0] = 0.0
        strange[0, 39, 0] = 1e-30
        padded = torch.from_numpy(features.pad(market_of(strange, FIELDS)))
        found = torch.stack([features.gather(padded, day, torch.arange(4)) for day in range(40)])
        assert found.isfinite().all()
        assert found.abs().max() == 3.0

    def test_today_over_today_is_0(self, values: np.ndarray, rows: np.ndarray) -> None:
        features = Alpha360(FIELDS, T).fit(market_of(values, FIELDS), rows)
        found = features.gather(
            torch.from_numpy(features.pad(market_of(values, FIELDS))), 25, torch.arange(4)
        )
        assert found[:, -1, 0].tolist() == [0.0] * 4

    def test_a_field_that_is_missing_everywhere_is_0(self, values: np.ndarray, rows: np.ndarray) -> None:
        values[1] = np.nan
        features = Alpha360(FIELDS, T).fit(market_of(values, FIELDS), rows)
        found = features.gather(
            torch.from_numpy(features.pad(market_of(values, FIELDS))), 25, torch.arange(4)
        )
        assert (found[:, :, 1] == 0).all()
        assert (found[:, :-1, 0] != 0).any()

    def test_the_market_is_left_as_it_is(self, values: np.ndarray, rows: np.ndarray) -> None:
        features = Alpha360(FIELDS, T).fit(market_of(values, FIELDS), rows)
        padded = torch.from_numpy(features.pad(market_of(values, FIELDS)))
        before = padded.clone()
        features.gather(padded, 25, torch.arange(4))
        torch.testing.assert_close(padded, before, rtol=0, atol=0, equal_nan=True)

    def test_a_second_fit_counts(self, values: np.ndarray, rows: np.ndarray) -> None:
        features = Alpha360(FIELDS, T).fit(market_of(values, FIELDS), rows)
        padded = torch.from_numpy(features.pad(market_of(values, FIELDS)))
        features.gather(padded, 25, torch.arange(4))
        features.fit(market_of(values, FIELDS), rows & (np.arange(40) < 10)[:, None])
        fresh = Alpha360(FIELDS, T).fit(market_of(values, FIELDS), rows & (np.arange(40) < 10)[:, None])
        again, expected = (w.gather(padded, 25, torch.arange(4)) for w in (features, fresh))
        assert torch.equal(again, expected)

    def test_statistics_survive_pickling(self, values: np.ndarray, rows: np.ndarray) -> None:
        features = Alpha360(FIELDS, T).fit(market_of(values, FIELDS), rows)
        padded = torch.from_numpy(features.pad(market_of(values, FIELDS)))
        before = features.gather(padded, 25, torch.arange(4))
        assert torch.equal(pickle.loads(pickle.dumps(features)).gather(padded, 25, torch.arange(4)), before)

    def test_statistics_that_are_restored_count(self, values: np.ndarray, rows: np.ndarray) -> None:
        features, other = (Alpha360(FIELDS, T) for _ in range(2))
        features.fit(market_of(values, FIELDS), rows)
        padded = torch.from_numpy(features.pad(market_of(values, FIELDS)))
        other.fit(market_of(values, FIELDS), rows & (np.arange(40) < 10)[:, None])
        other.gather(padded, 25, torch.arange(4))
        other.restore(features.median, features.scale)
        expected = features.gather(padded, 25, torch.arange(4))
        assert torch.equal(other.gather(padded, 25, torch.arange(4)), expected)

    def test_before_a_fit_it_says_so(self, values: np.ndarray) -> None:
        features = Alpha360(FIELDS, T)
        with pytest.raises(RuntimeError, match="not fitted: call `fit` first"):
            features.gather(torch.from_numpy(features.pad(market_of(values, FIELDS))), 25, torch.arange(4))


class TestArguments:
    def test_names_are_qlibs(self) -> None:
        assert Alpha360().column_names() == Alpha360DL.get_feature_config()[1]

    def test_families_are_prices_and_volume(self) -> None:
        assert Alpha360(FIELDS).families() == {"prices": ("close", "high"), "volume": ("volume",)}
        assert Alpha360(FIELDS).feature_places() == {"close": (0,), "high": (1,), "volume": (2,)}

    def test_close_is_needed(self) -> None:
        with pytest.raises(UserError, match=r"`fields` must hold `close`.* found .'open', 'volume'."):
            Alpha360(["open", "volume"])

    def test_a_window_has_a_day(self) -> None:
        with pytest.raises(UserError, match="`lookback_days` must be at least 1, found 0"):
            Alpha360(lookback_days=0)
