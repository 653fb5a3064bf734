import math

import pytest
import torch
from sklearn.metrics import log_loss

from qlib_ext.checks import UserError
from qlib_ext.model.losses.cross_entropy import CrossEntropy


class TestCrossEntropy:
    def test_golden(self):
        logits = torch.tensor([[0.0, math.log(3)], [math.log(4), 0.0]])
        expected = -(math.log(3 / 4) + math.log(1 / 5)) / 2
        assert CrossEntropy()(logits, torch.tensor([1.0, 1.0])).item() == pytest.approx(expected, rel=1e-6)

    def test_equals_scikit_learn(self):
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(60, 5, generator=generator, dtype=torch.float64)
        target = torch.randint(5, (60,), generator=generator)
        expected = log_loss(target, logits.softmax(-1), labels=range(5))
        assert CrossEntropy()(logits, target).item() == pytest.approx(expected)

    def test_classes_may_be_floats(self):
        logits, target = torch.randn(10, 5), torch.arange(10) % 5
        assert CrossEntropy()(logits, target.float()) == CrossEntropy()(logits, target)

    def test_no_preference_costs_the_log_of_the_classes(self):
        assert CrossEntropy()(torch.zeros(4, 5), torch.arange(4)).item() == pytest.approx(math.log(5))

    @pytest.mark.parametrize("shape", [(4,), (4, 1)])
    def test_shape_of_predictions(self, shape):
        with pytest.raises(UserError, match=r"logits .* of at least 2 classes, found the shape"):
            CrossEntropy()(torch.zeros(shape), torch.zeros(4))
