from __future__ import annotations

import numpy as np
import pytest
import torch

from qlib_ext.model.gradients import norms_and_cosine


class TestNormsAndCosine:
    @pytest.mark.parametrize("k", [1, 2, 3, 4])
    def test_against_pairs(self, k):
        jacobian = torch.randn(k, 11, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
        norms, cosine = norms_and_cosine(jacobian)
        rows = jacobian.numpy()
        np.testing.assert_allclose(norms, [np.sqrt(sum(x**2 for x in row)) for row in rows])
        cosines = [
            rows[i] @ rows[j] / np.linalg.norm(rows[i]) / np.linalg.norm(rows[j])
            for i in range(k)
            for j in range(i)
        ]
        assert cosine.item() == pytest.approx(np.mean(cosines) if cosines else 0.0, abs=1e-12)

    @pytest.mark.parametrize(
        ("second", "expected"), [([2.0, 4.0], 1.0), ([-3.0, -6.0], -1.0), ([2.0, -1.0], 0.0)]
    )
    def test_of_two_directions(self, second, expected):
        _, cosine = norms_and_cosine(torch.tensor([[1.0, 2.0], second]))
        assert cosine.item() == pytest.approx(expected, abs=1e-6)

    def test_a_task_without_a_gradient_is_at_right_angles_to_all(self):
        norms, cosine = norms_and_cosine(torch.tensor([[3.0, 4.0], [0.0, 0.0], [3.0, 4.0]]))
        assert norms.tolist() == [5.0, 0.0, 5.0]
        assert cosine.item() == pytest.approx(1 / 3)

    def test_of_tiny_and_large_gradients(self):
        norms, cosine = norms_and_cosine(torch.tensor([[1e-15, 1e-15], [1e15, 1e15]]))
        assert torch.isfinite(norms).all()
        assert cosine.item() == pytest.approx(1.0, abs=1e-6)
