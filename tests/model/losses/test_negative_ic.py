import numpy as np
import pytest
import torch
from scipy.stats import pearsonr

from qlib_ext.checks import UserError
from qlib_ext.metrics.cross_section import pearson
from qlib_ext.model.losses.negative_ic import NegativeIC


def values(stocks=50, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, stocks, generator=generator, dtype=torch.float64)


def naive(pred, label, epsilon):
    n = len(pred)
    mean_p, mean_y = sum(pred) / n, sum(label) / n
    covariance = sum((p - mean_p) * (y - mean_y) for p, y in zip(pred, label, strict=True)) / n
    var_p = sum((p - mean_p) ** 2 for p in pred) / n
    var_y = sum((y - mean_y) ** 2 for y in label) / n
    return 1 - covariance / ((var_p + epsilon) * (var_y + epsilon)) ** 0.5


class TestNegativeIC:
    @pytest.mark.parametrize("stocks", [1, 2, 50])
    @pytest.mark.parametrize("epsilon", [1e-6, 0.3])
    def test_equals_a_loop(self, stocks, epsilon):
        pred, label = values(stocks)
        expected = naive(pred.tolist(), label.tolist(), epsilon)
        assert NegativeIC(epsilon)(pred, label).item() == pytest.approx(expected)

    def test_is_one_minus_the_correlation(self):
        pred, label = values()
        found = NegativeIC()(pred, label).item()
        assert found == pytest.approx(1 - pearsonr(pred, label).statistic, abs=1e-5)
        assert found == pytest.approx(1 - pearson(pred.numpy()[None], label.numpy()[None])[0], abs=1e-5)

    def test_golden(self):
        assert NegativeIC(1e-12)(
            torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.0, 3.0, 3.0])
        ).item() == pytest.approx(1 - 4 / np.sqrt(28), abs=1e-6)

    @pytest.mark.parametrize(("scale", "shift"), [(0.1, 3.0), (100.0, -5.0)])
    def test_level_and_spread_do_not_matter(self, scale, shift):
        pred, label = values()
        torch.testing.assert_close(
            NegativeIC()(scale * pred + shift, label), NegativeIC()(pred, label), atol=1e-4, rtol=0
        )

    def test_bounds(self):
        label = values()[1]
        assert NegativeIC()(3 * label + 1, label).item() == pytest.approx(0, abs=1e-5)
        assert NegativeIC()(-label, label).item() == pytest.approx(2, abs=1e-5)

    @pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
    def test_rounding_does_not_take_it_below_0(self, scale):
        for seed in range(20):
            label = values(seed=seed)[1].float()
            assert NegativeIC(1e-30)(scale * label, label) >= 0

    def test_gradient_equals_finite_differences(self):
        pred, label = values(10)
        assert torch.autograd.gradcheck(lambda x: NegativeIC()(x, label), pred.requires_grad_())

    def test_equal_predictions_move_along_the_labels(self):
        label = values()[1].float()
        pred = torch.full((50,), 0.7, requires_grad=True)
        value = NegativeIC()(pred, label)
        value.backward()
        assert value.item() == pytest.approx(1)
        step = -pred.grad
        assert pearsonr(step, label).statistic == pytest.approx(1)
        assert 0.1 < step.norm() < 1e3
        assert NegativeIC()((pred + 1e-2 * step).detach(), label) < 0.1

    def test_equal_labels_teach_nothing(self):
        pred = values()[0].requires_grad_()
        value = NegativeIC()(pred, torch.full((50,), 0.1))
        value.backward()
        assert value.item() == pytest.approx(1)
        assert pred.grad.abs().max() < 1e-6

    def test_epsilon(self):
        with pytest.raises(UserError, match="`epsilon` must be above 0, found 0"):
            NegativeIC(0)
