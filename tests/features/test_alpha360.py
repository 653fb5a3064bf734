from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from qlib.contrib.data.loader import Alpha360DL

from qlib_ext.checks import UserError
from qlib_ext.features import alpha360
from qlib_ext.features.alpha360 import Alpha360, _median
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


class TestFitOfManyRows:
    """Where a sample brackets the medians, they are still numpy's, bit for bit."""

    @staticmethod
    def market(kind: str) -> tuple[np.ndarray, np.ndarray]:
        """`[3, 700, 130]`: above 65,536 rows, of which the first days and a tenth of the rest are none."""
        draw = np.random.default_rng(4)
        values = np.exp(draw.normal(2, 0.3, (3, 700, 130))).astype(np.float32)
        if kind == "ties":
            values = np.round(values)
        if kind == "constant":
            values[:] = 5
        if kind == "extremes":
            values[draw.random(values.shape) < 0.05] = 0.0
            values[draw.random(values.shape) < 0.01] = np.inf
            values[0, draw.random(values.shape[1:]) < 0.01] = 1e-38
        values[draw.random(values.shape) < 0.04] = np.nan
        values[1, :, :9] = np.nan
        rows = ~np.isnan(values[0]) & (draw.random(values.shape[1:]) < 0.95)
        rows[:3] = False
        rows[690:] = False
        return values, rows

    @staticmethod
    def expected(values: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every ratio of a lag at once, and numpy's median of them."""
        median, scale = np.empty((2, T, 3), np.float32)
        days, stocks = np.nonzero(rows)
        with np.errstate(all="ignore"):
            for step in range(T):
                for field in range(3):
                    past = days - (T - 1 - step)
                    window = np.where(past >= 0, values[field, past, stocks], np.float32(np.nan))
                    base = (
                        values[2, days, stocks] + np.float32(1e-12) if field == 2 else values[0, days, stocks]
                    )
                    ratio = window / base
                    ratio = ratio[~np.isnan(ratio)]
                    median[step, field] = np.median(ratio)
                    distance = np.abs(ratio - median[step, field])
                    deviation = np.median(distance[~np.isnan(distance)])
                    scale[step, field] = (deviation + np.float32(1e-12)) * np.float32(1.4826)
        return median, scale

    @pytest.mark.parametrize("kind", ["as it comes", "ties", "constant", "extremes"])
    @pytest.mark.parametrize("cells", [1, 1 << 12, 1 << 30])
    def test_whatever_the_values_and_the_blocks(
        self, kind: str, cells: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        values, rows = self.market(kind)
        assert rows.sum() > alpha360.SMALL
        monkeypatch.setattr(alpha360, "BLOCK_CELLS", cells)
        features = Alpha360(FIELDS, T).fit(market_of(values, FIELDS), rows)
        median, scale = self.expected(values, rows)
        np.testing.assert_array_equal(features.median, median)
        np.testing.assert_array_equal(features.scale, scale)

    def test_few_values_are_looked_at_closely(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values, rows = self.market("as it comes")
        kept: list[int] = []
        select = alpha360._select
        monkeypatch.setattr(alpha360, "_select", lambda count: (kept.append(count.within), select(count))[1])
        Alpha360(FIELDS, T).fit(market_of(values, FIELDS), rows)
        assert max(kept[: T - 1]) < rows.sum() / 10  # but today's close over itself is always 1

    @pytest.mark.parametrize("half", ["low", "high"])
    def test_where_the_sample_misleads(self, half: str, monkeypatch: pytest.MonkeyPatch) -> None:
        values, rows = self.market("as it comes")

        def extremes(fitted: np.ndarray) -> np.ndarray:
            """The rows whose close is the lowest, or the highest: their ratios are all high, or all low."""
            order = np.argsort(np.where(fitted, values[0, 3:690], np.nan).reshape(-1))[: fitted.sum()]
            return np.sort(order[:9000] if half == "low" else order[-9000:])

        monkeypatch.setattr(alpha360, "_sample", extremes)
        tries: list[int] = []
        median_of = alpha360._median
        monkeypatch.setattr(alpha360, "_median", lambda x: (tries.append(len(x)), median_of(x))[1])
        features = Alpha360(FIELDS, T).fit(market_of(values, FIELDS), rows)
        assert len(tries) >= T - 1  # it was noticed
        median, scale = self.expected(values, rows)
        np.testing.assert_array_equal(features.median, median)
        np.testing.assert_array_equal(features.scale, scale)

    def test_a_panel_of_another_layout_is_the_same_panel(self) -> None:
        values, rows = self.market("as it comes")
        other = np.ascontiguousarray(values.transpose(1, 2, 0)).transpose(2, 0, 1)
        assert not other.flags.c_contiguous
        first, second = (Alpha360(FIELDS, T).fit(market_of(x, FIELDS), rows) for x in (values, other))
        np.testing.assert_array_equal(first.median, second.median)
        np.testing.assert_array_equal(first.scale, second.scale)

    def test_any_number_of_threads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values, rows = self.market("as it comes")
        found = []
        for threads in (1, 3):
            monkeypatch.setattr(alpha360.torch, "get_num_threads", lambda threads=threads: threads)
            found.append(Alpha360(FIELDS, T).fit(market_of(values, FIELDS), rows).scale)
        np.testing.assert_array_equal(*found)


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

    def test_close_is_needed(self) -> None:
        with pytest.raises(UserError, match=r"`fields` must hold `close`.* found .'open', 'volume'."):
            Alpha360(["open", "volume"])

    def test_a_window_has_a_day(self) -> None:
        with pytest.raises(UserError, match="`lookback_days` must be at least 1, found 0"):
            Alpha360(lookback_days=0)


class TestMedian:
    """Bit-equal to numpy's, by whichever way it is found."""

    @pytest.fixture
    def partitioned(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """The sizes of what numpy has had to partition since."""
        sizes: list[int] = []
        partition = np.partition
        monkeypatch.setattr(np, "partition", lambda a, kth: (sizes.append(len(a)), partition(a, kth))[1])
        return sizes

    @given(
        hnp.arrays(
            np.float32,
            st.integers(1, 60),
            elements=st.floats(-(2.0**90), 2.0**90, width=32) | st.sampled_from([0.0, 1.0, np.inf, -np.inf]),
        )
    )
    def test_small(self, values: np.ndarray) -> None:
        self.check(values)

    @given(
        data=st.data(),
        size=st.integers(65_536, 65_536 + 9_000),
        kind=st.sampled_from(
            ["normal", "ties", "constant", "heavy tails", "two values", "sorted", "periodic"]
        ),
        seed=st.integers(0, 2**16),
    )
    def test_large(self, data: st.DataObject, size: int, kind: str, seed: int) -> None:
        draw = np.random.default_rng(seed)
        values = {
            "normal": lambda: draw.normal(1, 0.1, size),
            "ties": lambda: draw.integers(0, 7, size),
            "constant": lambda: np.full(size, draw.normal()),
            "heavy tails": lambda: draw.standard_cauchy(size),
            "two values": lambda: draw.random(size) < data.draw(st.sampled_from([0.01, 0.5, 0.999])),
            "sorted": lambda: np.sort(draw.normal(size=size)),
            "periodic": lambda: np.arange(size) % (size // 4096),
        }[kind]()
        self.check(np.asarray(values, dtype=np.float32))

    @pytest.mark.parametrize("extra", [0, 1])
    def test_where_the_sample_misleads(self, extra: int, partitioned: list[int]) -> None:
        """Every value that the sample sees is far above the median: the bracket misses it."""
        values = np.random.default_rng(0).normal(size=16 * 4096 + 2 + extra).astype(np.float32)
        values[:: len(values) // 4096] += 100
        _median(values)
        assert partitioned == [len(values)]
        self.check(values)

    def test_where_the_sample_serves_only_the_bracket_is_partitioned(self, partitioned: list[int]) -> None:
        values = np.random.default_rng(0).normal(size=16 * 4096 + 2).astype(np.float32)
        _median(values)
        assert len(partitioned) == 1
        assert partitioned[0] < len(values) / 6
        _median(values[: 16 * 4096])  # small enough to be partitioned whole
        assert partitioned[1:] == [16 * 4096]

    @pytest.mark.parametrize("shift", [0.45, 0.47, 0.53, 0.55])
    def test_at_the_edges_of_the_bracket(self, shift: float) -> None:
        """The sample's share of small values puts the true median near an end of the bracket."""
        n = 16 * 4096 + 2
        values = np.sort(np.random.default_rng(1).normal(size=n)).astype(np.float32)
        step = n // 4096
        seen, unseen = np.arange(0, n, step), np.setdiff1d(np.arange(n), np.arange(0, n, step))
        low, high = (
            np.random.default_rng(2).permutation(n // 2),
            n // 2 + np.random.default_rng(3).permutation(n // 2),
        )
        chosen = np.concatenate([low[: int(shift * len(seen))], high[: len(seen) - int(shift * len(seen))]])
        mixed = np.empty_like(values)
        mixed[seen] = values[chosen]
        mixed[unseen] = np.delete(values, chosen)
        self.check(mixed)

    def test_of_nothing_is_missing(self) -> None:
        assert np.isnan(_median(np.empty(0, np.float32)))

    @staticmethod
    def check(values: np.ndarray) -> None:
        before = values.copy()
        with np.errstate(invalid="ignore"):
            found = _median(values)
            np.testing.assert_array_equal(found, np.median(values))
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(values, before)
