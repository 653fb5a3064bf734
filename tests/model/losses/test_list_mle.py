import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.model.losses.list_mle import ListMLE


def naive(score, label):
    """Stock by stock: drawn among itself and those of lower label."""
    total = 0.0
    for f, y in zip(score, label, strict=True):
        rivals = sum(math.exp(g) for g, z in zip(score, label, strict=True) if z < y)
        total += math.log((math.exp(f) + rivals) / math.exp(f))
    return total / len(score)


def values(stocks=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, stocks, generator=generator, dtype=torch.float64)


class TestListMLE:
    @pytest.mark.parametrize("stocks", [1, 2, 5, 40])
    def test_equals_a_double_loop(self, stocks):
        score, label = values(stocks)
        assert ListMLE()(score, label).item() == pytest.approx(naive(score.tolist(), label.tolist()))

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 3)), min_size=1, max_size=12))
    def test_with_ties(self, pairs):
        score = torch.tensor([f for f, _ in pairs], dtype=torch.float64)
        label = torch.tensor([float(y) for _, y in pairs])
        expected = naive(score.tolist(), label.tolist())
        assert ListMLE()(score, label).item() == pytest.approx(expected, abs=1e-12)

    def test_of_classes_equals_a_double_loop(self):
        logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        target = torch.arange(20) % 5
        score = (logits.softmax(-1) * torch.arange(5)).sum(-1)
        expected = naive(score.tolist(), target.tolist())
        assert ListMLE(classification=True)(logits, target).item() == pytest.approx(expected)

    def test_without_ties_it_is_the_probability_of_the_order(self):
        """The orders of 4 stocks and their probabilities under the model: they sum to 1."""
        score = values(4)[0]
        total = 0.0
        for label in itertools.permutations(range(4)):
            loss = ListMLE()(score, torch.tensor(label, dtype=torch.float64))
            total += math.exp(-4 * loss.item())
        assert total == pytest.approx(1)

    def test_golden(self):
        # 1st among e, 1 and 1/e; 2nd among 1 and 1/e
        found = ListMLE()(torch.tensor([0.0, -1.0, 1.0]), torch.tensor([2.0, -7.0, 5.0]))
        expected = math.log(math.e + 1 + 1 / math.e) - 1 + math.log(1 + 1 / math.e)
        assert found.item() == pytest.approx(expected / 3)

    def test_gradient_equals_finite_differences(self):
        score, label = values()
        label = label.round()  # with ties
        assert torch.autograd.gradcheck(lambda x: ListMLE()(x, label), score.requires_grad_())

    def test_ties_are_left_alone(self):
        score = torch.tensor([3.0, -1.0, 0.0], requires_grad=True)
        value = ListMLE()(score, torch.ones(3))
        value.backward()
        assert value == 0
        assert score.grad.tolist() == [0, 0, 0]

    def test_classes_well_apart_cost_nothing_in_any_order_among_equals(self):
        label = torch.tensor([4.0, 4.0, 4.0, 0.0, 0.0])
        score = torch.tensor([60.0, 50.0, 70.0, 0.0, 9.0])
        assert ListMLE()(score, label).item() == pytest.approx(0, abs=1e-12)

    def test_a_hundred_times_the_stocks_cost_little_more(self):
        label = torch.tensor([0.0, 1.0]).repeat(500)
        small = ListMLE()(torch.zeros(10), label[:10])
        large = ListMLE()(torch.zeros(1000), label)
        assert large < 4 * small  # as the logarithm of the number of rivals

    def test_large_scores_in_float32(self):
        score, label = values(300)
        x = (1e4 * score).float().requires_grad_()
        found = ListMLE()(x, label)
        found.backward()
        assert found.item() == pytest.approx(ListMLE()(1e4 * score, label).item(), rel=1e-5)
        assert torch.isfinite(x.grad).all()

    def test_the_kind_is_a_bool(self):
        with pytest.raises(UserError, match="`classification` must be a bool, found int: 1"):
            ListMLE(classification=1)
