from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from qlib_ext.market.updates.overlap import NotProportionalError, Overlap, compare, last_decimal

NAN = np.nan
Fields = dict[str, np.ndarray]


def walk(days: int, seed: int = 0, level: float = 20.0) -> Fields:
    """Adjusted bars of a random walk, without a factor."""
    rng = np.random.default_rng(seed)
    close = level * np.exp(np.cumsum(rng.normal(0, 0.02, days)))
    opened = close * np.exp(rng.normal(0, 0.01, days))
    volume = np.round(rng.uniform(1e5, 1e6, days))
    vwap = (opened + close) / 2
    return {
        "open": opened,
        "high": np.maximum(opened, close) * 1.01,
        "low": np.minimum(opened, close) * 0.99,
        "close": close,
        "vwap": vwap,
        "volume": volume,
        "amount": vwap * volume,
        "change": np.append(0.01, close[1:] / close[:-1] - 1),
    }


def rescaled(fields: Fields, scale: float) -> Fields:
    power = dict.fromkeys(("open", "high", "low", "close", "vwap", "factor"), 1) | {"volume": -1}
    return {name: values * scale ** power.get(name, 0) for name, values in fields.items()}


def rounded(fields: Fields, decimals: int) -> Fields:
    """As a vendor writes it: prices with some decimals, whole shares, and what it computes from them."""
    fields = dict(fields)
    for name in ("open", "high", "low", "close"):
        fields[name] = np.round(fields[name], decimals)
    fields["volume"] = np.round(fields["volume"])
    fields["vwap"] = fields["amount"] / fields["volume"]
    before = np.append(fields["close"][0] / (1 + fields["change"][0]), fields["close"][:-1])
    return fields | {"change": fields["close"] / before - 1}


def float32(fields: Fields) -> Fields:
    return {name: values.astype(np.float32) for name, values in fields.items()}


def wrong(overlap: Overlap) -> dict[str, list[int]]:
    return {name: list(np.flatnonzero(mask)) for name, mask in overlap.disagreeing.items() if mask.any()}


class TestOneScale:
    def test_equal_bars_agree(self) -> None:
        fields = float32(walk(30))
        overlap = compare(fields, fields)
        assert (overlap.scale, overlap.days, wrong(overlap)) == (1.0, 30, {})
        assert set(overlap.divisors.values()) == {1.0}

    def test_the_rounding_of_float32_is_no_difference(self) -> None:
        assert wrong(compare(float32(walk(30)), walk(30))) == {}

    @pytest.mark.parametrize("field", ["open", "close", "vwap", "volume", "amount", "change"])
    def test_any_other_difference_is_one(self, field: str) -> None:
        source = walk(30)
        source[field] = source[field].copy()
        source[field][7] *= 1.001
        assert wrong(compare(float32(walk(30)), float32(source))) == {field: [7]}

    def test_rounding_otherwise_is_no_scale(self) -> None:
        """Two decimals where the store has all: nothing was rescaled, the values are other ones."""
        overlap = compare(float32(walk(30)), float32(rounded(walk(30), 2)))
        assert overlap.scale == 1
        assert len(wrong(overlap)["close"]) > 25

    def test_what_one_side_lacks_is_told(self) -> None:
        store, source = walk(4), walk(4)
        store["close"][1] = NAN
        source["volume"][2] = NAN
        overlap = compare(store, source)
        assert wrong(overlap) == {}
        assert list(overlap.lacking["close"]) == [False, True, False, False]
        assert list(overlap.gone["volume"]) == [False, False, True, False]
        assert not overlap.lacking["open"].any()

    def test_no_common_day_says_nothing(self) -> None:
        store = walk(3)
        overlap = compare(store, {name: np.full(3, NAN) for name in store})
        assert (overlap.days, overlap.scale, wrong(overlap)) == (0, 1.0, {})

    def test_no_days_at_all(self) -> None:
        empty = {name: values[:0] for name, values in walk(3).items()}
        assert compare(empty, empty).days == 0


class TestRescaled:
    @given(
        scale=st.floats(0.01, 100).filter(lambda scale: abs(scale - 1) > 1e-4),
        days=st.integers(1, 20),
        seed=st.integers(0, 100),
    )
    def test_one_ratio_on_all_days_is_a_scale(self, scale: float, days: int, seed: int) -> None:
        store = walk(days, seed)
        overlap = compare(float32(store), float32(rescaled(store, scale)))
        assert overlap.scale == pytest.approx(scale, rel=1e-6)
        assert wrong(overlap) == {}
        assert overlap.divisors["close"] == overlap.scale
        assert overlap.divisors["volume"] == 1 / overlap.scale
        assert overlap.divisors["amount"] == overlap.divisors["change"] == 1

    @given(
        scale=st.floats(0.2, 5).filter(lambda scale: abs(scale - 1) > 0.02),
        decimals=st.integers(2, 3),
        seed=st.integers(0, 300),
    )
    @example(scale=0.7, decimals=2, seed=0)
    def test_rounding_to_decimals_is_forgiven(self, scale: float, decimals: int, seed: int) -> None:
        """The store holds a history rounded at its own scale, the source one rounded at another."""
        exact = walk(25, seed)
        store, source = rounded(exact, decimals), rounded(rescaled(exact, scale), decimals)
        overlap = compare(float32(store), float32(source))
        assert wrong(overlap) == {}
        smallest = min(store["low"].min(), source["low"].min())
        assert overlap.scale == pytest.approx(scale, rel=10.0**-decimals / smallest)

    def test_a_value_that_is_not_on_the_scale_disagrees(self) -> None:
        source = rescaled(walk(30), 0.5)
        source["close"][3] *= 1.01
        source["amount"][9] *= 1.01
        overlap = compare(float32(walk(30)), float32(source))
        assert overlap.scale == pytest.approx(0.5)
        assert wrong(overlap) == {"close": [3], "amount": [9]}

    def test_rounding_forgives_no_more_than_it_can_do(self) -> None:
        exact = walk(30)
        source = rounded(rescaled(exact, 0.5), 2)
        source["close"][3] += 0.03
        assert wrong(compare(float32(rounded(exact, 2)), float32(source)))["close"] == [3]

    def test_volumes_that_were_left_as_they_are(self) -> None:
        source = rescaled(walk(30), 0.5) | {"volume": walk(30)["volume"]}
        overlap = compare(float32(walk(30)), float32(source))
        assert overlap.divisors["volume"] == 1
        assert overlap.divisors["close"] == pytest.approx(0.5)
        assert wrong(overlap) == {}

    def test_no_single_ratio_is_refused(self) -> None:
        """Prices adjusted by sums: the ratio moves with the price."""
        source = walk(30)
        for name in ("open", "high", "low", "close"):
            source[name] = source[name] - 2.0
        with pytest.raises(
            NotProportionalError,
            match=r"the prices of the source must be those of the store times one number, found ratios from 0\.8\d+ to",
        ):
            compare(float32(walk(30)), float32(source))

    def test_one_day_whose_prices_moved_each_in_its_own_way_is_refused(self) -> None:
        store = {
            name: np.array([value])
            for name, value in zip(("open", "high", "low", "close"), (10, 11, 9, 10.5), strict=True)
        }
        source = {
            name: values * factor
            for (name, values), factor in zip(store.items(), (1.1, 1.05, 1.2, 1.01), strict=True)
        }
        with pytest.raises(NotProportionalError):
            compare(store, source)

    def test_the_greater_part_decides(self) -> None:
        """A store that was carried on from the wrong scale: the smaller part is what disagrees."""
        source = {
            name: np.append(whole[:18], part[18:])
            for (name, whole), part in zip(walk(30).items(), rescaled(walk(30), 0.9).values(), strict=True)
        }
        overlap = compare(walk(30), source)
        assert overlap.scale == 1
        assert wrong(overlap)["close"] == list(range(18, 30))


class TestFactor:
    """With a factor on both sides raw prices are known, and no rounding of prices has to be forgiven."""

    @staticmethod
    def bars(days: int, factor: np.ndarray, decimals: int | None = None) -> Fields:
        raw = walk(days)
        factor = factor if decimals is None else np.round(factor, decimals)
        prices = {name: raw[name] * factor for name in ("open", "high", "low", "close", "vwap")}
        return raw | prices | {"volume": raw["volume"] / factor, "factor": factor}

    STEPS = np.repeat([1.0, 1.25, 1.3, 2.6], 8)

    @given(scale=st.floats(0.05, 20), decimals=st.sampled_from([None, 3, 4]))
    def test_a_factor_in_another_base_is_a_scale(self, scale: float, decimals: int | None) -> None:
        assume(abs(scale - 1) > 0.01)
        store, source = self.bars(32, self.STEPS), self.bars(32, self.STEPS * scale, decimals)
        overlap = compare(float32(store), float32(source))
        assert overlap.scale == pytest.approx(scale, rel=0.02 if decimals else 1e-6)
        assert overlap.divisors["factor"] == overlap.divisors["close"] == overlap.scale
        assert wrong(overlap) == {}

    def test_a_raw_price_that_differs_is_seen_through_a_rounded_factor(self) -> None:
        source = self.bars(32, self.STEPS * 0.37123, 3)
        source["close"][5] *= 1.0001
        assert wrong(compare(self.bars(32, self.STEPS), source)) == {"close": [5]}

    def test_a_factor_that_differs_takes_its_prices_along(self) -> None:
        steps = self.STEPS.copy()
        steps[-2:] *= 1.5
        overlap = compare(self.bars(32, self.STEPS), self.bars(32, steps))
        assert overlap.scale == 1
        assert set(wrong(overlap)) == {"open", "high", "low", "close", "vwap", "volume", "factor"}
        assert wrong(overlap)["close"] == wrong(overlap)["factor"] == [30, 31]

    def test_so_it_does_in_another_base(self) -> None:
        steps = self.STEPS.copy()
        steps[-2:] *= 1.5
        overlap = compare(self.bars(32, self.STEPS), self.bars(32, steps * 0.1))
        assert overlap.scale == pytest.approx(0.1)
        assert wrong(overlap)["close"] == wrong(overlap)["factor"] == [30, 31]

    def test_no_single_ratio_is_refused(self) -> None:
        with pytest.raises(NotProportionalError, match="the factors of the source"):
            compare(self.bars(32, self.STEPS), self.bars(32, self.STEPS**0.5 * 3))


class TestLastDecimal:
    @pytest.mark.parametrize(
        ("values", "unit"),
        [
            ([10.0, 12.0], 1.0),
            ([10.25, 12.0], 0.01),
            ([10.123, 9.9], 0.001),
            ([1 / 3, 2 / 3], 0.0),
            ([1e9 / 3], 0.0),
            ([NAN], 0.0),
            ([], 0.0),
        ],
    )
    def test_it_is_found_in_float32(self, values: list[float], unit: float) -> None:
        assert last_decimal(np.array(values, dtype=np.float32).astype(float)) == pytest.approx(unit)
