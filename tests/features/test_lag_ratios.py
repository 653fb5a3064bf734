"""Medians that are found by a bracket are numpy's, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qlib_ext.features import lag_ratios
from qlib_ext.features.alpha360 import Alpha360
from qlib_ext.features.lag_ratios import median_of
from tests.features.arrays import market_of

T = 5
FIELDS = ("close", "high", "volume")


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
        assert rows.sum() > lag_ratios.SMALL
        monkeypatch.setattr(lag_ratios, "BLOCK_CELLS", cells)
        features = Alpha360(FIELDS, T).fit(market_of(values, FIELDS), rows)
        median, scale = self.expected(values, rows)
        np.testing.assert_array_equal(features.median, median)
        np.testing.assert_array_equal(features.scale, scale)

    def test_few_values_are_looked_at_closely(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values, rows = self.market("as it comes")
        kept: list[int] = []
        select = lag_ratios._select
        monkeypatch.setattr(
            lag_ratios, "_select", lambda count: (kept.append(count.within), select(count))[1]
        )
        Alpha360(FIELDS, T).fit(market_of(values, FIELDS), rows)
        assert max(kept[: T - 1]) < rows.sum() / 10  # but today's close over itself is always 1

    @pytest.mark.parametrize("half", ["low", "high"])
    def test_where_the_sample_misleads(self, half: str, monkeypatch: pytest.MonkeyPatch) -> None:
        values, rows = self.market("as it comes")

        def extremes(fitted: np.ndarray) -> np.ndarray:
            """The rows whose close is the lowest, or the highest: their ratios are all high, or all low."""
            order = np.argsort(np.where(fitted, values[0, 3:690], np.nan).reshape(-1))[: fitted.sum()]
            return np.sort(order[:9000] if half == "low" else order[-9000:])

        monkeypatch.setattr("qlib_ext.features.alpha360.sample_rows", extremes)
        tries: list[int] = []
        counted = lag_ratios.median_of
        monkeypatch.setattr(lag_ratios, "median_of", lambda x: (tries.append(len(x)), counted(x))[1])
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
            monkeypatch.setattr(lag_ratios.torch, "get_num_threads", lambda threads=threads: threads)
            found.append(Alpha360(FIELDS, T).fit(market_of(values, FIELDS), rows).scale)
        np.testing.assert_array_equal(*found)


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
        median_of(values)
        assert partitioned == [len(values)]
        self.check(values)

    def test_where_the_sample_serves_only_the_bracket_is_partitioned(self, partitioned: list[int]) -> None:
        values = np.random.default_rng(0).normal(size=16 * 4096 + 2).astype(np.float32)
        median_of(values)
        assert len(partitioned) == 1
        assert partitioned[0] < len(values) / 6
        median_of(values[: 16 * 4096])  # small enough to be partitioned whole
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
        assert np.isnan(median_of(np.empty(0, np.float32)))

    @staticmethod
    def check(values: np.ndarray) -> None:
        before = values.copy()
        with np.errstate(invalid="ignore"):
            found = median_of(values)
            np.testing.assert_array_equal(found, np.median(values))
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(values, before)
