from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qlib_ext.checks import UserError
from qlib_ext.metrics.spells import spells


def by_walking(held: np.ndarray) -> list[tuple[int, int, int]]:
    found = []
    for stock in range(held.shape[1]):
        first = None
        for day in range(held.shape[0] + 1):
            there = day < held.shape[0] and held[day, stock]
            if there and first is None:
                first = day
            if not there and first is not None:
                found.append((stock, first, day))
                first = None
    return found


@given(arrays(bool, st.tuples(st.integers(0, 8), st.integers(0, 5))))
def test_against_a_walk(held: np.ndarray) -> None:
    assert [*zip(*map(np.ndarray.tolist, spells(held)), strict=True)] == by_walking(held)


def test_by_hand() -> None:
    held = np.array([[1, 0], [1, 1], [0, 1], [1, 1]], dtype=bool)
    stock, first, after = spells(held)
    assert [*zip(stock, first, after, strict=True)] == [(0, 0, 2), (0, 3, 4), (1, 1, 4)]


def test_it_asks_for_true_and_false() -> None:
    with pytest.raises(UserError, match=r"`held` must be bool \[D, S\], found float64"):
        spells(np.ones((2, 2)))
