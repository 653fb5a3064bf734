import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd.graph import saved_tensors_hooks

from qlib_ext.checks import UserError
from qlib_ext.model.losses import pairwise
from qlib_ext.model.losses.pairwise import Pairwise


def naive(score, relevance):
    """The definition, pair by pair."""
    n = len(score)
    total = 0.0
    for i in range(n):
        for j in range(n):
            total = total + max(0.0, -(score[i] - score[j]) * (relevance[i] - relevance[j]))
    return total / n**2


def mean_class(logits):
    odds = logits.exp()
    return (odds * torch.arange(logits.shape[1])).sum(1) / odds.sum(1)


def values(stocks=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, stocks, generator=generator, dtype=torch.float64)


class TestPairwise:
    @pytest.mark.parametrize("stocks", [1, 2, 3, 20])
    def test_equals_a_double_loop(self, stocks):
        score, label = values(stocks)
        expected = naive(score.tolist(), label.tolist())
        assert Pairwise()(score, label).item() == pytest.approx(expected, abs=1e-12)

    def test_of_classes_equals_a_double_loop(self):
        logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        target = torch.arange(20) % 5
        expected = naive(mean_class(logits).tolist(), target.tolist())
        assert Pairwise(classification=True)(logits, target).item() == pytest.approx(expected)

    @settings(deadline=None)
    @given(
        st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 4)), min_size=1, max_size=12),
        st.sampled_from([1e-6, 1.0, 1e3]),
    )
    def test_with_ties_of_either_kind(self, pairs, scale):
        score = scale * torch.tensor([f for f, _ in pairs], dtype=torch.float64)
        label = torch.tensor([float(y) for _, y in pairs])
        expected = naive(score.tolist(), label.tolist())
        found = Pairwise()(score, label).item()
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12 * scale)
        assert found >= 0

    def test_golden(self):
        # one pair in the wrong order: 2 x (0.5 - 0.2) x (3 - 1) / 9
        found = Pairwise()(torch.tensor([0.5, 0.2, -1.0]), torch.tensor([1.0, 3.0, 0.0]))
        assert found.item() == pytest.approx(1.2 / 9)

    def test_gradient_is_that_of_the_double_loop(self):
        score, label = values()
        Pairwise()(score.requires_grad_(), label).backward()
        other = score.detach().clone().requires_grad_()
        difference = (other[:, None] - other) * (label[:, None] - label)
        (-difference).relu().mean().backward()
        torch.testing.assert_close(score.grad, other.grad)
        assert (score.grad != 0).all()

    def test_gradient_reaches_the_logits(self):
        logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        loss = Pairwise(classification=True)
        assert torch.autograd.gradcheck(lambda x: loss(x, torch.arange(20) % 5), logits.requires_grad_())

    def test_equal_scores_part_in_the_direction_of_their_labels(self):
        label = torch.tensor([2.0, 0.0, 1.0, 1.0, 1.0])
        score = torch.full((5,), 0.3, requires_grad=True)
        value = Pairwise()(score, label)
        value.backward()
        assert value.item() == pytest.approx(0, abs=1e-7)
        torch.testing.assert_close(score.grad, -(label - label.mean()) / 5)

    def test_a_right_order_costs_nothing_wherever_it_lies(self):
        label = torch.arange(50.0)
        score = (1e3 + label / 100).requires_grad_()
        value = Pairwise()(score, label)
        value.backward()
        assert value == 0
        assert score.grad.abs().max() == 0

    def test_blocks_change_nothing(self, monkeypatch):
        score, label = values(50)
        expected = Pairwise()(score, label)
        monkeypatch.setattr(pairwise, "BLOCK", 7)
        torch.testing.assert_close(Pairwise()(score, label), expected)

    def test_holds_nothing_of_n_times_n(self):
        kept = []
        score, label = values(300)
        with saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
            Pairwise()(score.requires_grad_(), label)
        assert max(kept) <= 300

    def test_the_kind_is_a_bool(self):
        with pytest.raises(UserError, match="`classification` must be a bool, found str: 'yes'"):
            Pairwise(classification="yes")
