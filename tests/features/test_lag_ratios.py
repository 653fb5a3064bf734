"""Medians that are found by a bracket are numpy's, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from qlib_ext.features import lag_ratios
from qlib_ext.features.alpha360 import Alpha360
from qlib_ext.features.medians import SMALL
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
        assert rows.sum() > SMALL
        monkeypatch.setattr(lag_ratios, "BLOCK_CELLS", cells)
        features = Alpha360(FIELDS, T).fit(market_of(values, FIELDS), rows)
        median, scale = self.expected(values, rows)
        np.testing.assert_array_equal(features.median, median)
        np.testing.assert_array_equal(features.scale, scale)

    def test_few_values_are_looked_at_closely(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values, rows = self.market("as it comes")
        kept: list[int] = []
        select = lag_ratios.select
        monkeypatch.setattr(lag_ratios, "select", lambda count: (kept.append(count.within), select(count))[1])
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
