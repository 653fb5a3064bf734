import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import expit

from qlib_ext.checks import UserError
from qlib_ext.metrics import ndcg as exact
from qlib_ext.model.losses.approx_ndcg import ApproxNDCG, adaptive_k, approximate_rank
from qlib_ext.model.losses.cross_entropy import CrossEntropy
from qlib_ext.model.losses.weighted_sum import WeightedSum


def day(stocks=40, seed=0, classes=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(stocks, classes, generator=generator, dtype=dtype)
    return logits, torch.randint(classes, (stocks,), generator=generator)


def logits_of(score, classes=5):
    """Logits whose expected class is `score`: all weight on the lowest and the highest class."""
    share = torch.as_tensor(score, dtype=torch.float64) / (classes - 1)
    logits = torch.full((len(share), classes), -torch.inf, dtype=torch.float64)
    logits[:, 0], logits[:, -1] = torch.log1p(-share), torch.log(share)
    return logits


def naive(logits, target, k=None, alpha=1.0, gain="2^y-1", squared=False, width=None):
    """Eq. 3-8, stock by stock; `width` None is the hard cut."""
    power = 2 if squared else 1
    score, paid = [], []
    for row, c in zip(logits.tolist(), target.tolist(), strict=True):
        odds = [math.exp(v) for v in row]
        score.append(sum(o * j**power for j, o in enumerate(odds)) / sum(odds))
        paid.append(2.0 ** (c**power) - 1 if gain == "2^y-1" else 2.0 ** (c**power - 1))
    n = len(score)
    rank = []
    for i in range(n):
        rank.append(1.0)
        for j in range(n):
            if j != i:
                rank[i] += 1 / (1 + math.exp(-alpha * (score[j] - score[i])))
    if k is None:
        k, level = 0, max(target.tolist())
        while k < math.ceil(n / 5):
            k += target.tolist().count(level)
            level -= 1
    k = min(k, n)
    if k == n:
        gate = [1.0] * n
    elif width is None:
        gate = [float(sum(other > s for other in score) < k) for s in score]
    else:
        w = width * k
        cut = brentq(lambda b: expit((b - np.array(rank)) / w).sum() - k, -50 * w, n + 50 * w, xtol=1e-13)
        gate = [expit((cut - r) / w) for r in rank]
    dcg = sum(t * g / math.log2(1 + r) for t, g, r in zip(gate, paid, rank, strict=True))
    ideal = sum(g / math.log2(1 + r) for r, g in enumerate(sorted(paid, reverse=True)[:k], start=1))
    return dcg / ideal


class TestApproxNDCG:
    @pytest.mark.parametrize("width", [None, 0.02, 0.1, 1.0])
    @pytest.mark.parametrize("k", [None, 1, 7, 40, 90])
    @pytest.mark.parametrize("alpha", [1.0, 10.0])
    def test_equals_a_double_loop(self, width, k, alpha):
        logits, target = day()
        cut = {"cut": "hard"} if width is None else {"cut": "smooth", "width": width}
        loss = ApproxNDCG(k=k or "adaptive", alpha=alpha, **cut)
        expected = naive(logits, target, k, alpha, width=width)
        assert loss.ndcg(logits, target).item() == pytest.approx(expected, abs=1e-10)
        assert loss(logits, target).item() == pytest.approx(math.exp(-expected), abs=1e-10)

    @pytest.mark.parametrize("gain", ["2^y-1", "2^(y-1)"])
    @pytest.mark.parametrize("relevance", ["class", "class_squared"])
    def test_options_equal_a_double_loop(self, gain, relevance):
        logits, target = day()
        expected = naive(logits, target, gain=gain, squared=relevance == "class_squared", width=0.1)
        assert ApproxNDCG(gain=gain, relevance=relevance).ndcg(logits, target).item() == pytest.approx(
            expected
        )

    @pytest.mark.parametrize("options", [{"cut": "hard"}, {"cut": "smooth", "width": 1e-3}])
    @pytest.mark.parametrize("k", ["adaptive", 5, 100])
    def test_is_the_exact_ndcg_in_the_limit(self, options, k):
        logits, target = day(stocks=60)
        score = (logits.softmax(-1) * torch.arange(5)).sum(-1)
        relevance = target.numpy()[None].astype(float)
        cut = exact.adaptive_k(relevance)[0] if k == "adaptive" else k
        expected = exact.ndcg_at(score.numpy()[None], relevance, cut)[0]
        found = ApproxNDCG(k=k, alpha=1e7, **options).ndcg(logits, target)
        assert found.item() == pytest.approx(expected, abs=1e-9)

    @pytest.mark.parametrize(("cut", "loss"), [("hard", 0.4488750), ("smooth", 0.4670699)])
    def test_golden(self, cut, loss):
        logits = torch.tensor([[0.2, -1, 0, 1, 2], [1, 0, 0, 0, -1], [0, 0, 0, 0, 0], [2, 1, 0.5, 0, 0.0]])
        assert ApproxNDCG(k=2, cut=cut)(logits, torch.tensor([4, 0, 3, 1])).item() == pytest.approx(
            loss, abs=1e-6
        )

    @pytest.mark.parametrize("cut", ["hard", "smooth"])
    @settings(deadline=None)
    @given(
        target=st.lists(st.integers(0, 4), min_size=1, max_size=25),
        k=st.one_of(st.just("adaptive"), st.integers(1, 30)),
        alpha=st.sampled_from([0.1, 1.0, 10.0, 1e4]),
        scale=st.sampled_from([0.0, 0.1, 1.0, 50.0]),
        width=st.sampled_from([1e-4, 0.1, 3.0]),
        seed=st.integers(0, 100),
    )
    def test_never_above_one(self, cut, target, k, alpha, scale, width, seed):
        logits, _ = day(len(target), seed)
        found = ApproxNDCG(k=k, alpha=alpha, cut=cut, width=width).ndcg(scale * logits, torch.tensor(target))
        assert 0 <= found.item() <= 1 + 1e-9

    @pytest.mark.parametrize("alpha", [1.0, 10.0])
    @pytest.mark.parametrize("cut", ["hard", "smooth"])
    def test_a_better_order_has_a_lower_loss(self, cut, alpha):
        target = torch.arange(50) % 5
        noise = torch.rand(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        loss = ApproxNDCG(cut=cut, alpha=alpha)
        losses = [
            loss(logits_of((skill * target + (1 - skill) * 4 * noise).clamp(0.01, 3.99)), target).item()
            for skill in (0, 0.3, 0.6, 1)
        ]
        assert losses == sorted(losses, reverse=True)
        assert loss(logits_of(4 - target.clamp(0.01, 3.99)), target) > losses[0]

    @pytest.mark.parametrize("alpha", [1.0, 10.0])
    @pytest.mark.parametrize("cut", ["hard", "smooth"])
    def test_equal_scores_count_as_the_mean_of_all_orders(self, cut, alpha):
        target = torch.tensor([4, 4, 3, 2, 2, 1, 0, 0, 0, 0])
        gain = (2.0 ** target.double() - 1).numpy()
        expected = 3 * gain.mean() / math.log2(1 + 5.5)  # 3 stocks of mean gain at the mean rank
        expected /= 15 + 15 / math.log2(3) + 7 / 2
        found = ApproxNDCG(k=3, cut=cut, alpha=alpha).ndcg(torch.zeros(10, 5, dtype=torch.float64), target)
        assert found.item() == pytest.approx(expected)

    def test_a_perfect_order_of_compressed_ranks_stays_below_one(self):
        target = torch.repeat_interleave(torch.arange(5), torch.tensor([63, 30, 117, 27, 63]))
        logits = logits_of(target.clamp(1e-9, 4 - 1e-9))
        assert ApproxNDCG().ndcg(logits, target).item() == pytest.approx(0.706, abs=1e-3)

    @pytest.mark.parametrize(
        "options", [{"width": 0.5}, {"k": 3, "relevance": "class_squared"}, {"cut": "hard"}]
    )
    def test_gradient_equals_finite_differences(self, options):
        logits, target = day(stocks=5)
        loss = ApproxNDCG(**options)
        loss(logits.requires_grad_(), target).backward()
        with torch.no_grad():
            steps = 1e-6 * torch.eye(logits.numel(), dtype=logits.dtype).reshape(-1, *logits.shape)
            slopes = [(loss(logits + h, target) - loss(logits - h, target)) / 2e-6 for h in steps]
        torch.testing.assert_close(logits.grad.flatten(), torch.stack(slopes), atol=1e-7, rtol=1e-5)


class TestGradientAtTheCut:
    """Why the smooth cut is the default: at the start, scores are almost equal and their order is chance."""

    @pytest.fixture
    def start(self):
        rng = np.random.default_rng(0)
        target = torch.tensor(rng.choice(5, size=300, p=[0.21, 0.10, 0.39, 0.09, 0.21]))
        score = torch.tensor(2 + 0.02 * rng.normal(size=300))
        place = torch.empty(300, dtype=torch.long)
        place[score.argsort(descending=True)] = torch.arange(1, 301)
        return score, target, place > adaptive_k(target)

    @staticmethod
    def raises(score, target, cut):
        """How much each score rises with a step down the gradient of the loss."""
        logits = logits_of(score).requires_grad_()
        ApproxNDCG(cut=cut)(logits, target).backward()
        return logits.grad[:, 0]  # the step -g on the lowest class raises the score where g > 0

    def test_smooth_raises_bounce_and_lowers_sink_on_either_side(self, start):
        score, target, _ = start
        step = self.raises(score, target, "smooth")
        assert (step[target == 4] > 0).all()
        assert (step[target == 0] < 0).all()

    def test_hard_lowers_whatever_is_beyond_it(self, start):
        score, target, beyond = start
        step = self.raises(score, target, "hard")
        assert (step[beyond] < 0).all()
        assert (step[~beyond & (target >= 2)] > 0).all()

    def test_smooth_has_a_gradient_of_useful_size(self, start):
        score, target, _ = start
        smooth, hard = (self.raises(score, target, cut).norm() for cut in ("smooth", "hard"))
        assert smooth > 10 * hard


def beside_cross_entropy(**options):
    """MiM-StocR's Eq. 9."""
    return WeightedSum([CrossEntropy(), ApproxNDCG(**options)], [0.5, 0.5])


@pytest.mark.parametrize("cut", ["hard", "smooth"])
@pytest.mark.parametrize("loss", [ApproxNDCG, beside_cross_entropy])
class TestUnusualDays:
    @pytest.mark.parametrize(
        ("stocks", "classes"),
        [
            (1, [4]),
            (1, [0]),
            (2, [4, 0]),
            (3, [2, 2, 2]),
            (30, [4] * 30),
            (30, [0] * 30),
            (5, [0, 0, 0, 0, 1]),
        ],
    )
    @pytest.mark.parametrize("scale", [0.0, 1.0, 200.0])
    @pytest.mark.parametrize("k", ["adaptive", 10])
    def test_finite(self, cut, loss, stocks, classes, scale, k):
        logits = (scale * day(stocks, dtype=torch.float32)[0]).requires_grad_()
        value = loss(k=k, cut=cut)(logits, torch.tensor(classes))
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(logits.grad).all()

    def test_no_gain_gives_one_and_no_gradient(self, cut, loss):
        logits = day(20)[0].requires_grad_()
        value = loss(cut=cut)(logits, torch.zeros(20))
        if loss is beside_cross_entropy:
            value = 2 * value - CrossEntropy()(logits, torch.zeros(20))
        value.backward()
        assert value.item() == pytest.approx(1, abs=1e-12)
        assert logits.grad.abs().max() < 1e-15

    def test_more_than_there_are(self, cut, loss):
        logits, target = day(8)
        assert loss(k=50, cut=cut)(logits, target) == loss(k=8, cut=cut)(logits, target)


class TestPrecision:
    def test_bfloat16_predictions(self):
        logits, target = day(300)
        low = logits.bfloat16()
        assert ApproxNDCG()(low, target).dtype == torch.float32
        assert ApproxNDCG()(low, target).item() == pytest.approx(
            ApproxNDCG()(low.double(), target).item(), abs=1e-5
        )

    def test_autocast_changes_nothing(self):
        logits, target = day(300, dtype=torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = ApproxNDCG()(logits, target)
        torch.testing.assert_close(found, ApproxNDCG()(logits, target))

    @pytest.mark.parametrize("spread", [1e-6, 1.0, 100.0])
    def test_float32_is_enough_for_a_large_market(self, spread):
        logits, target = day(2000)
        logits *= spread
        gradients = []
        for dtype in (torch.float32, torch.float64):
            x = logits.to(dtype).requires_grad_()
            ApproxNDCG()(x, target).backward()
            gradients.append(x.grad.double())
        scale = gradients[1].abs().max().item()
        torch.testing.assert_close(gradients[0] / scale, gradients[1] / scale, atol=2e-3, rtol=0)


class TestAdaptiveK:
    @settings(deadline=None)
    @given(
        relevance=st.lists(st.integers(0, 4), min_size=1, max_size=60),
        share=st.sampled_from([0.01, 0.1, 0.2, 0.3, 0.5, 0.9, 1.0]),
    )
    def test_equals_the_metric(self, relevance, share):
        expected = exact.adaptive_k([relevance], share)[0]
        assert adaptive_k(torch.tensor(relevance), share).item() == expected
        assert adaptive_k(torch.tensor(relevance, dtype=torch.float32) ** 2, share).item() == expected

    def test_golden(self):
        classes = torch.tensor([4.0] * 7 + [3.0] * 20 + [0.0] * 8)
        assert adaptive_k(classes).item() == 7
        assert adaptive_k(classes[1:]).item() == 6 + 20


class TestApproximateRank:
    def test_golden(self):
        found = approximate_rank(torch.tensor([0.0, math.log(3)]))
        torch.testing.assert_close(found, torch.tensor([1.75, 1.25]))

    def test_exact_in_the_limit(self):
        score = torch.randperm(30, generator=torch.Generator().manual_seed(0)).double()
        assert approximate_rank(score, 1e3).tolist() == pytest.approx((30 - score).tolist())

    @pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
    def test_sums_as_exact_ranks_do(self, alpha):
        score = torch.randn(30, generator=torch.Generator().manual_seed(0))
        assert approximate_rank(score, alpha).sum().item() == pytest.approx(30 * 31 / 2)


class TestChecks:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"k": 0}, "`k` must be at least 1, found 0"),
            ({"k": 2.5}, "`k` must be an integer, found 2.5"),
            ({"k": "adaptiv"}, "`k` must be one of adaptive, found 'adaptiv'"),
            ({"share": 0}, r"`share` must lie in \(0, 1\], found 0"),
            ({"alpha": 0}, "`alpha` must be above 0, found 0"),
            ({"width": 0}, "`width` must be above 0, found 0"),
            ({"gain": "y"}, r"`gain` must be one of 2\^\(y-1\), 2\^y-1, found 'y'"),
            ({"relevance": "square"}, "`relevance` must be one of class, class_squared, found 'square'"),
            ({"cut": "soft"}, "`cut` must be one of hard, smooth, found 'soft'"),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(UserError, match=message):
            ApproxNDCG(**options)
