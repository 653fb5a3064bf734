"""How different factors are, by their correlations."""

import numpy as np
import pytest

from qlib_ext.checks import UserError
from qlib_ext.metrics.diversity import clusters, effective_number, nearest


def blocks(sizes, inside=0.9):
    """Factors in blocks that go together, each second one with the other sign."""
    square = np.zeros((sum(sizes),) * 2)
    first = 0
    for size in sizes:
        sign = np.where(np.arange(size) % 2, -1, 1)
        square[first : first + size, first : first + size] = inside * np.outer(sign, sign)
        first += size
    np.fill_diagonal(square, 1.0)
    return square


class TestClusters:
    def test_it_finds_the_blocks_whatever_their_order(self):
        mixed = np.random.default_rng(0).permutation(9)
        found = clusters(blocks([3, 4, 2])[np.ix_(mixed, mixed)])
        block = np.repeat([0, 1, 2], [3, 4, 2])[mixed]
        assert sorted(found.order) == [*range(9)]
        for first in range(9):
            for second in range(9):
                assert (found.number[first] == found.number[second]) == (block[first] == block[second])
        assert (np.diff(found.number[found.order]) >= 0).all()  # numbered as they are ordered
        assert set(found.number) == {1, 2, 3}

    def test_the_least_correlation_divides(self):
        assert len(set(clusters(blocks([3, 4]), least=0.95).number)) == 7

    @pytest.mark.parametrize("size", [0, 1])
    def test_one_factor_or_none(self, size):
        found = clusters(np.ones((size, size)))
        assert found.order.tolist() == [0][:size]
        assert found.number.tolist() == [1][:size]

    def test_a_factor_without_correlations_stands_alone(self):
        square = blocks([3])
        square[2] = square[:, 2] = np.nan
        assert clusters(square).number.tolist() in ([1, 1, 2], [2, 2, 1])

    def test_what_is_no_square(self):
        with pytest.raises(UserError, match="must be a square"):
            clusters(np.ones((2, 3)))


class TestEffectiveNumber:
    def test_it_is_the_participation_of_the_eigenvalues(self):
        values = np.random.default_rng(0).normal(size=(6, 50))
        values[3] += values[2]
        square = np.corrcoef(values)
        eigenvalues = np.linalg.eigvalsh(square)
        assert effective_number(square) == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())

    def test_the_ends(self):
        assert effective_number(np.eye(5)) == 5
        assert effective_number(np.ones((5, 5))) == 1
        assert effective_number(np.full((2, 2), np.nan)) == 2
        assert effective_number(np.zeros((0, 0))) == 0


class TestNearest:
    def test_by_absolute_value_and_never_itself(self):
        place, size = nearest([[1.0, 0.2, -0.7], [0.2, 1.0, np.nan], [-0.7, np.nan, 1.0]])
        assert place.tolist() == [2, 0, 0]
        assert size.tolist() == [-0.7, 0.2, -0.7]

    def test_none(self):
        place, size = nearest([[1.0, np.nan], [np.nan, 1.0]])
        assert place.tolist() == [-1, -1]
        assert np.isnan(size).all()
        assert nearest([[1.0]])[0].tolist() == [-1]
