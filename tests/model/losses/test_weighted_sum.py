import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.model.losses.cross_entropy import CrossEntropy
from qlib_ext.model.losses.list_mle import ListMLE
from qlib_ext.model.losses.mse import MSE
from qlib_ext.model.losses.pairwise import Pairwise
from qlib_ext.model.losses.weighted_sum import WeightedSum
from qlib_ext.model.task import Task

SQUARED = {"class": "qlib_ext.model.losses.mse.MSE"}
PAIRS = {"class": "qlib_ext.model.losses.pairwise.Pairwise"}
ENTROPY = {"class": "qlib_ext.model.losses.cross_entropy.CrossEntropy"}


class TestWeightedSum:
    def test_of_values(self):
        pred, target = torch.randn(2, 20, generator=torch.Generator().manual_seed(0))
        expected = MSE()(pred, target) + 4 * Pairwise()(pred, target)
        torch.testing.assert_close(WeightedSum([SQUARED, PAIRS], [1, 4.0])(pred, target), expected)

    def test_of_classes(self):
        logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
        target = torch.arange(20) % 5
        ranking = {"class": PAIRS["class"], "kwargs": {"classification": True}}
        expected = 0.2 * CrossEntropy()(logits, target) + 0.8 * Pairwise(classification=True)(logits, target)
        assert torch.equal(WeightedSum([ENTROPY, ranking], [0.2, 0.8])(logits, target), expected)

    def test_weights_are_1_by_default(self):
        pred, target = torch.randn(2, 20)
        torch.testing.assert_close(WeightedSum([MSE(), MSE()])(pred, target), 2 * MSE()(pred, target))

    def test_knows_its_kind(self):
        assert not WeightedSum([SQUARED]).classification
        assert WeightedSum([CrossEntropy(), ListMLE(classification=True)]).classification

    def test_in_a_task(self):
        config = {"class": "qlib_ext.model.losses.weighted_sum.WeightedSum", "kwargs": {"losses": [ENTROPY]}}
        task = Task.from_config("momentum", {"label": "MOMENTUM", "loss": config, "classes": 5})
        assert task.classification

    @pytest.mark.parametrize(
        ("losses", "weights", "message"),
        [
            ([], None, r"`losses` must be a list of at least 1 loss, found \[\]"),
            (SQUARED, None, "`losses` must be a list of at least 1 loss, found {"),
            ([{"class": "torch.nn.MSELoss"}], None, r"`losses\[0\].class` must be a Loss, found torch"),
            (
                [SQUARED, ENTROPY],
                None,
                r"must all be of values or all of classes, found MSE \(values\), CrossEntropy \(classes\)",
            ),
            ([SQUARED, PAIRS], [1.0], r"`weights` must be a list of 2 numbers, one a loss, found \[1.0\]"),
            ([SQUARED], 2.0, "`weights` must be a list of 1 numbers, one a loss, found 2.0"),
            ([SQUARED, PAIRS], [1.0, 0], r"`weights\[1\]` must be above 0, found 0"),
        ],
    )
    def test_messages(self, losses, weights, message):
        with pytest.raises(UserError, match=message):
            WeightedSum(losses, weights)
