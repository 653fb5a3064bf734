"""Medians that are found by a bracket are numpy's, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qlib_ext.features import medians
from qlib_ext.features.medians import SMALL, column_medians, median_of, sample_size


class TestColumns:
    @pytest.fixture(scope="class")
    def table(self) -> np.ndarray:
        """Columns that are smooth, tied, constant, two-sided, infinite here and there, and missing."""
        draw = np.random.default_rng(0)
        table = draw.normal(1, 0.3, (SMALL + 5001, 7)).astype(np.float32)
        table[:, 1] = draw.integers(0, 6, len(table))
        table[:, 2] = 5
        table[:, 3] = np.where(draw.random(len(table)) < 0.5, 1, -1)
        table[draw.random(len(table)) < 0.2, 4] = np.inf
        table[draw.random(table.shape) < 0.03] = np.nan
        table[:, 5] = np.nan
        return table

    @pytest.mark.parametrize("sampled", ["at random", "none", "misleading"])
    @pytest.mark.parametrize("centred", [False, True])
    def test_they_are_numpys(self, sampled: str, centred: bool, table: np.ndarray) -> None:
        readings = 0

        def blocks() -> Iterator[np.ndarray]:
            nonlocal readings
            readings += 1
            yield from (table[first : first + 10_000] for first in range(0, len(table), 10_000))

        size = sample_size(len(table))
        assert size is not None
        sample = {
            "at random": table[np.random.default_rng(1).integers(0, len(table), size)],
            "none": None,
            "misleading": table[:size] + np.float32(100),
        }[sampled]
        center = np.array([1, 2, 5, 0, 1, 1, 1.1], np.float32) if centred else None
        found = column_medians(blocks, 7, sample, center)
        values = table if center is None else np.abs(table - center)
        columns = [values[~np.isnan(values[:, i]), i] for i in range(7)]
        expected = [np.median(column) if len(column) else np.nan for column in columns]
        np.testing.assert_array_equal(found, np.array(expected, np.float32))
        assert (readings > 1) == (sampled == "misleading")

    def test_few_values_are_held(self, table: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
        held: list[int] = []
        select = medians.select
        monkeypatch.setattr(
            medians, "select", lambda count: (held.append(sum(map(len, count.inside))), select(count))[1]
        )
        sample = table[np.random.default_rng(1).integers(0, len(table), 4000)]
        column_medians(lambda: [table], 7, sample)
        assert max(held[i] for i in (0, 2, 6)) < len(table) / 10


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
