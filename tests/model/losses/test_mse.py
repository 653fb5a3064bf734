import numpy as np
import pytest
import torch
from sklearn.metrics import mean_squared_error

from qlib_ext.checks import UserError
from qlib_ext.model.losses.mse import MSE


class TestMSE:
    def test_golden(self):
        assert MSE()(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 0.0, 1.0])).item() == pytest.approx(
            13 / 3
        )

    def test_equals_scikit_learn(self):
        pred, target = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
        assert MSE()(pred, target).item() == pytest.approx(mean_squared_error(target, pred), rel=1e-6)

    def test_a_column_is_a_vector(self):
        pred, target = torch.randn(2, 20)
        assert MSE()(pred[:, None], target) == MSE()(pred, target)

    def test_gradient(self):
        pred = torch.tensor([1.0, 2.0], requires_grad=True)
        MSE()(pred, torch.tensor([0.0, 5.0])).backward()
        np.testing.assert_allclose(pred.grad, [1.0, -3.0])

    def test_target_in_float64(self):
        assert MSE()(torch.zeros(2), torch.ones(2, dtype=torch.float64)).dtype == torch.float32

    def test_shape_of_predictions(self):
        with pytest.raises(UserError, match=r"predictions \[N\] or \[N, 1\], found the shape \(4, 2\)"):
            MSE()(torch.zeros(4, 2), torch.zeros(4))
