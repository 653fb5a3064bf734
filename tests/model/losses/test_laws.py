"""What holds for every loss."""

import copy

import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.model.losses.approx_ndcg import ApproxNDCG
from qlib_ext.model.losses.base import Loss
from qlib_ext.model.losses.cross_entropy import CrossEntropy
from qlib_ext.model.losses.lambda_loss import LambdaLoss
from qlib_ext.model.losses.list_mle import ListMLE
from qlib_ext.model.losses.mse import MSE
from qlib_ext.model.losses.negative_ic import NegativeIC
from qlib_ext.model.losses.pairwise import Pairwise
from qlib_ext.model.losses.weighted_sum import WeightedSum

REGRESSION = [MSE(), Pairwise(), ListMLE(), NegativeIC(), WeightedSum([MSE(), Pairwise()], [1, 4])]
CLASSIFICATION = [
    CrossEntropy(),
    ApproxNDCG(),
    ApproxNDCG(k=10, relevance="class_squared"),
    ApproxNDCG(cut="hard", alpha=10.0, gain="2^(y-1)"),
    WeightedSum([CrossEntropy(), ApproxNDCG()], [0.5, 0.5]),
    Pairwise(classification=True),
    WeightedSum([CrossEntropy(), Pairwise(classification=True)], [0.5, 0.5]),
    ListMLE(classification=True),
    LambdaLoss(),
    LambdaLoss("ndcg_loss2", k=20),
    WeightedSum([CrossEntropy(), LambdaLoss()]),
]
LOSSES = REGRESSION + CLASSIFICATION
# A stock that stands right beside every other one costs nothing here: it has no gradient.
HINGES = (Pairwise,)
# Its weights move with the order: a reversed day need not cost more than a random one (see LambdaLoss).
MOVING = [loss for loss in LOSSES if getattr(loss, "weighting", "") == "ndcg_loss2"]
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
each_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)


def day(loss, stocks=50, seed=0):
    """Random predictions, labels, and predictions that fit the labels."""
    generator = torch.Generator().manual_seed(seed)
    if loss in REGRESSION:
        target = torch.randn(stocks, generator=generator)
        return torch.randn(stocks, generator=generator), target, target.clone()
    target = torch.randint(5, (stocks,), generator=generator).float()
    return torch.randn(stocks, 5, generator=generator), target, 5 * torch.eye(5)[target.long()]


@each_loss
class TestLaws:
    def test_shows_the_call_that_makes_it_again(self, loss, rebuild):
        pred, target, _ = day(loss)
        assert torch.equal(rebuild(loss)(pred, target), loss(pred, target))

    def test_is_a_scalar_in_the_graph(self, loss):
        pred, target, _ = day(loss)
        value = loss(pred.requires_grad_(), target)
        assert isinstance(loss, Loss)
        assert value.shape == ()
        assert value.requires_grad

    @pytest.mark.parametrize("seed", range(3))
    def test_the_order_of_the_stocks_does_not_matter(self, loss, seed):
        pred, target, _ = day(loss, seed=seed)
        order = torch.randperm(50, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(loss(pred[order], target[order]), loss(pred, target))

    def test_nor_does_it_among_equal_predictions(self, loss):
        pred, target, _ = day(loss)
        pred[:] = pred[0].clone()
        order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(loss(pred, target[order]), loss(pred, target))

    @pytest.mark.parametrize("stocks", [1, 2, 50])
    @pytest.mark.parametrize("scale", [0.0, 1.0, 1e3])
    def test_finite_with_a_finite_gradient(self, loss, stocks, scale):
        pred, target, _ = day(loss, stocks)
        pred = (scale * pred).requires_grad_()
        value = loss(pred, target)
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(pred.grad).all()

    @pytest.mark.parametrize("label", [0.0, 2.0, 4.0])
    @pytest.mark.parametrize("stocks", [1, 3, 50])
    def test_labels_that_are_all_equal(self, loss, stocks, label):
        pred, target, _ = day(loss, stocks)
        value = loss(pred.requires_grad_(), torch.full_like(target, label))
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(pred.grad).all()

    def test_is_at_least_0(self, loss):
        """So that balancers that take a logarithm can have it."""
        pred, target, fit = day(loss)
        assert min(loss(fit, target), loss(pred, target), loss(torch.zeros_like(pred), target)) >= 0

    def test_the_better_prediction_has_the_lower_loss(self, loss):
        pred, target, fit = day(loss)
        assert loss(fit, target) < loss(pred, target)
        assert loss(pred, target) < loss(-fit, target) or loss in MOVING

    def test_the_gradient_reaches_every_stock_and_points_down(self, loss):
        pred, target, _ = day(loss)
        before = loss(pred.requires_grad_(), target)
        before.backward()
        gradient = pred.grad.reshape(50, -1)
        reached = (gradient.abs().sum(dim=1) > 0).sum()
        assert reached >= (45 if isinstance(loss, HINGES) else 50)
        step = 1e-3 / gradient.norm()
        assert loss((pred - step * pred.grad).detach(), target) < before

    def test_low_precision_predictions_give_float32(self, loss):
        pred, target, _ = day(loss)
        assert loss(pred.bfloat16(), target).dtype == torch.float32
        assert loss(pred.double(), target).dtype == torch.float64

    def test_leaves_its_arguments_alone(self, loss):
        pred, target, _ = day(loss)
        before = copy.deepcopy((pred, target))
        loss(pred, target)
        torch.testing.assert_close((pred, target), before)

    def test_is_deterministic(self, loss):
        pred, target, _ = day(loss)
        assert loss(pred, target) == loss(pred, target)

    @pytest.mark.parametrize("device", DEVICES)
    def test_float32_on_any_device_agrees_with_float64(self, loss, device):
        pred, target, _ = day(loss, stocks=300)
        found = loss(pred.to(device), target.to(device))
        assert found.device.type == device
        torch.testing.assert_close(found.cpu().double(), loss(pred.double(), target), atol=1e-5, rtol=1e-5)

    def test_has_no_parameters_of_its_own(self, loss):
        assert not list(loss.parameters())

    def test_an_empty_day_is_an_error(self, loss):
        pred, target, _ = day(loss)
        with pytest.raises(UserError, match="at least 1 labelled stock, found 0"):
            loss(pred[:0], target[:0])

    def test_one_label_a_stock(self, loss):
        pred, target, _ = day(loss)
        for wrong in (target[:-1], target.repeat(2), target[:, None]):
            with pytest.raises(UserError, match=r"one label a stock \[N\], found .* for 50 predictions"):
                loss(pred, wrong)


@pytest.mark.parametrize("loss", CLASSIFICATION, ids=lambda loss: type(loss).__name__)
class TestClasses:
    def test_two_are_enough(self, loss):
        """A head that tells rise from fall is a classification."""
        target = (torch.arange(50) % 2).float()
        fit = 5 * torch.eye(2)[target.long()]
        assert loss(fit, target) < loss(-fit, target)

    def test_one_is_none(self, loss):
        with pytest.raises(UserError, match=r"of at least 2 classes, found the shape \(50, 1\)"):
            loss(torch.zeros(50, 1), torch.zeros(50))
