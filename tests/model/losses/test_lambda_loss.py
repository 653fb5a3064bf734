import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from qlib_ext.checks import UserError
from qlib_ext.metrics.ndcg import ndcg_at
from qlib_ext.model.losses.lambda_loss import LambdaLoss


def mean_class(logits):
    return (logits.softmax(-1) * torch.arange(logits.shape[1])).sum(-1)


def day(stocks=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(stocks, 5, generator=generator, dtype=torch.float64)
    return logits, torch.randint(5, (stocks,), generator=generator)


def logits_of(score):
    """Logits whose mean class is `score`, by the weights of the lowest and the highest class."""
    share = torch.as_tensor(score, dtype=torch.float64) / 4
    logits = torch.full((len(share), 5), -torch.inf, dtype=torch.float64)
    logits[:, 0], logits[:, -1] = torch.log1p(-share), torch.log(share)
    return logits


def naive(score, target, weighting, k=None, alpha=1.0):
    """The definition, pair by pair, with scipy's ranks."""
    n = len(score)
    gain = [2.0**y - 1 for y in target]
    ideal = sum(g / math.log2(1 + r) for r, g in enumerate(sorted(gain, reverse=True)[:k], start=1))
    rank = rankdata([-s for s in score], method="average")
    counts = rankdata([-s for s in score], method="min") <= (n if k is None else k)
    total = 0.0
    for i in range(n):
        for j in range(n):
            if target[i] <= target[j]:
                continue
            if weighting == "lambdarank":
                one, other = (counts[x] / math.log2(1 + rank[x]) for x in (i, j))
                weight = abs(one - other)
            else:
                distance = max(1.0, abs(rank[i] - rank[j]))
                weight = 1 / math.log2(1 + distance) - 1 / math.log2(2 + distance)
                weight *= counts[i] or counts[j]
            cost = math.log2(1 + math.exp(-alpha * (score[i] - score[j])))
            total += weight * (gain[i] - gain[j]) / ideal * cost
    return total


@pytest.mark.parametrize("weighting", ["ndcg_loss2", "lambdarank"])
class TestLambdaLoss:
    @pytest.mark.parametrize("k", [None, 1, 7, 30, 90])
    @pytest.mark.parametrize("alpha", [1.0, 5.0])
    def test_equals_a_double_loop(self, weighting, k, alpha):
        logits, target = day()
        expected = naive(mean_class(logits).tolist(), target.tolist(), weighting, k, alpha)
        assert LambdaLoss(weighting, k, alpha)(logits, target).item() == pytest.approx(expected)

    @settings(deadline=None)
    @given(
        st.lists(st.tuples(st.integers(1, 7), st.integers(0, 4)), min_size=1, max_size=12),
        st.sampled_from([None, 1, 3, 20]),
    )
    def test_with_ties_of_either_kind(self, weighting, pairs, k):
        score = [f / 2 for f, _ in pairs]
        target = [y for _, y in pairs]
        expected = naive(score, target, weighting, k) if len(set(target)) > 1 else 0.0
        found = LambdaLoss(weighting, k)(logits_of(score), torch.tensor(target))
        assert found.item() == pytest.approx(expected, abs=1e-12)

    def test_golden(self, weighting):
        logits = torch.tensor([[0.2, -1, 0, 1, 2], [1, 0, 0, 0, -1], [0, 0, 0, 0, 0], [2, 1, 0.5, 0, 0.0]])
        expected = {"ndcg_loss2": 0.1957458, "lambdarank": 0.2477378}[weighting]
        assert LambdaLoss(weighting)(logits, torch.tensor([4, 0, 3, 1])).item() == pytest.approx(
            expected, abs=1e-6
        )

    def test_the_places_have_no_gradient(self, weighting):
        logits, target = day(8)
        loss = LambdaLoss(weighting, k=4)
        assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.requires_grad_())

    @pytest.mark.parametrize("k", [None, 10])
    def test_it_raises_the_ndcg(self, weighting, k):
        logits, target = day(100)
        loss = LambdaLoss(weighting, k)
        ndcg = []
        for _ in range(30):
            relevance = target.numpy()[None].astype(float)
            ndcg.append(ndcg_at(mean_class(logits).numpy()[None], relevance, 10)[0])
            (slope,) = torch.autograd.grad(loss(logits.requires_grad_(), target), logits)
            logits = (logits - 3 * slope / slope.norm()).detach()
        assert ndcg[-1] > ndcg[0] + 0.2

    def test_days_without_pairs(self, weighting):
        for target in (torch.tensor([3]), torch.zeros(6), torch.full((6,), 4)):
            logits = torch.randn(len(target), 5, requires_grad=True)
            value = LambdaLoss(weighting, k=2)(logits, target)
            value.backward()
            assert value == 0
            assert logits.grad.abs().max() == 0

    def test_beyond_k_nothing_is_compared(self, weighting):
        """Two stocks behind the k best, of different class, with a gradient from those before them only."""
        score = torch.tensor([3.5, 3.0, 1.0, 0.5], dtype=torch.float64)
        target = torch.tensor([4, 4, 1, 2])
        logits = logits_of(score).requires_grad_()
        LambdaLoss(weighting, k=2)(logits, target).backward()
        near = logits_of(score[:3]).requires_grad_()
        LambdaLoss(weighting, k=2)(near, target[:3]).backward()
        swapped = logits_of(score).requires_grad_()
        LambdaLoss(weighting, k=2)(swapped, torch.tensor([4, 4, 1, 1])).backward()
        # the third one's gradient is the same whatever stands behind it
        torch.testing.assert_close(logits.grad[2, 0], swapped.grad[2, 0])
        torch.testing.assert_close(logits.grad[2, 0], near.grad[2, 0])


def test_lambdarank_costs_more_the_worse_the_order():
    target = torch.arange(50) % 5
    noise = torch.rand(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scores = [skill * target + (1 - abs(skill)) * 4 * noise for skill in (1, 0.6, 0.3, 0)]
    scores += [0.6 * (4 - target) + 0.4 * 4 * noise, 4 - target]
    for k in (None, 10):
        losses = [LambdaLoss(k=k)(logits_of(score.clamp(0.01, 3.99)), target).item() for score in scores]
        assert losses == sorted(losses)


class TestEqualScores:
    def test_under_ndcg_loss2_they_part(self):
        target = torch.tensor([4, 0, 2, 2, 1])
        logits = torch.zeros(5, 5, requires_grad=True)
        LambdaLoss("ndcg_loss2", k=1)(logits, target).backward()
        rises = -(logits.grad * torch.arange(5)).sum(dim=1)
        assert (rises.sort().indices[[0, -1]] == torch.tensor([1, 0])).all()
        assert rises[0] > 0 > rises[1]

    def test_under_lambdarank_they_do_not(self):
        logits = torch.zeros(5, 5, requires_grad=True)
        LambdaLoss()(logits, torch.tensor([4, 0, 2, 2, 1])).backward()
        assert logits.grad.abs().max() == 0


class TestLambdaRank:
    def test_the_weight_is_the_change_of_ndcg_that_a_swap_makes(self):
        score = np.array([2.0, 3.0, 1.0, 0.5])
        target = np.array([1, 0, 4, 2])
        for k in (2, 4):
            before = ndcg_at(score[None], target[None].astype(float), k)[0]
            for i, j in [(0, 1), (2, 0), (2, 3)]:
                swapped = score.copy()
                swapped[[i, j]] = swapped[[j, i]]
                change = abs(ndcg_at(swapped[None], target[None].astype(float), k)[0] - before)
                loss = LambdaLoss("lambdarank", k)
                weight = loss._weight(torch.tensor(score))[i, j].item()
                gain = 2.0**target - 1
                ideal = (np.sort(gain)[::-1][:k] / np.log2(np.arange(2, k + 2))).sum()
                assert weight * abs(gain[i] - gain[j]) / ideal == pytest.approx(change)


class TestChecks:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"weighting": "lambda_rank"},
                "`weighting` must be one of lambdarank, ndcg_loss2, found 'lambda_rank' .did you mean",
            ),
            ({"k": 0}, "`k` must be at least 1, found 0"),
            ({"k": "adaptive"}, "`k` must be an integer, found 'adaptive'"),
            ({"alpha": 0}, "`alpha` must be above 0, found 0"),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(UserError, match=message):
            LambdaLoss(**options)
