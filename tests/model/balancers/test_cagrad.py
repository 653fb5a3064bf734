"""CAGrad against a dense grid, against a solver of the primal problem, and against its laws."""

import cvxpy
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchjd import aggregation

from qlib_ext.checks import UserError
from qlib_ext.model.balancers.cagrad import CAGrad


def started(k, c=0.4):
    balancer = CAGrad(c)
    balancer.setup([f"task_{i}" for i in range(k)])
    return balancer


def step(gradients, c=0.4):
    return started(len(gradients), c).aggregate(torch.as_tensor(gradients)).numpy()


def random_gradients(k, p, seed, spread=1.0):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(k, p)) * 10.0 ** draw.uniform(-spread, spread, (k, 1))


class TestDefinition:
    @pytest.mark.parametrize("c", [0.1, 0.4, 0.9])
    @pytest.mark.parametrize("seed", range(8))
    def test_two_tasks_against_a_dense_grid_of_the_dual(self, seed, c):
        one, two = gradients = random_gradients(2, 3, seed)
        mean = gradients.mean(axis=0)
        radius = c * np.linalg.norm(mean)
        w = np.linspace(0, 1, 200_001)[:, None]
        mixed = w * one + (1 - w) * two  # [points, P]
        best = mixed[(mixed @ mean + radius * np.linalg.norm(mixed, axis=1)).argmin()]
        expected = mean + radius * best / np.linalg.norm(best)
        np.testing.assert_allclose(step(gradients, c), expected, atol=1e-3 * np.linalg.norm(mean))

    @settings(deadline=None, max_examples=25)
    @given(
        k=st.integers(1, 6),
        p=st.integers(7, 12),
        seed=st.integers(0, 2**16),
        c=st.sampled_from([0.1, 0.4, 0.9]),
    )
    def test_the_worst_served_task_against_a_solver_of_the_primal(self, k, p, seed, c):
        gradients = random_gradients(k, p, seed)
        gradients /= np.linalg.norm(gradients.mean(axis=0))
        mean = gradients.mean(axis=0)
        d = cvxpy.Variable(p)
        problem = cvxpy.Problem(cvxpy.Maximize(cvxpy.min(gradients @ d)), [cvxpy.norm(d - mean) <= c])
        problem.solve(cvxpy.CLARABEL)
        found = step(gradients, c)
        assert np.linalg.norm(found - mean) == pytest.approx(c)
        assert (gradients @ found).min() >= problem.value - 1e-6

    @pytest.mark.parametrize("k", [2, 3, 5])
    def test_against_torchjd(self, k):
        jacobian = torch.from_numpy(random_gradients(k, 20, seed=k))
        expected = aggregation.CAGrad(c=0.4, norm_eps=0.0)(jacobian)
        torch.testing.assert_close(started(k).aggregate(jacobian), expected, atol=1e-4, rtol=1e-4)

    def test_golden_at_right_angles(self):
        # by symmetry the weights are equal: the mean, longer by c
        np.testing.assert_allclose(step([[2.0, 0.0], [0.0, 2.0]]), [1.4, 1.4])

    def test_golden_in_conflict(self):
        found = step([[3.0, 0.0, 1.0], [-1.0, 1.0, 0.5]])
        np.testing.assert_allclose(found, [0.6409890, 0.8590110, 0.9295055], rtol=1e-6)

    def test_one_task_is_lengthened(self):
        np.testing.assert_allclose(step([[3.0, 4.0]]), [4.2, 5.6])


class TestLaws:
    def test_without_a_radius_it_is_the_mean(self):
        gradients = random_gradients(3, 6, seed=0)
        np.testing.assert_allclose(step(gradients, c=0), gradients.mean(axis=0))

    @pytest.mark.parametrize("factor", [1e-6, 1e6])
    def test_scaling_all_scales_the_step(self, factor):
        gradients = random_gradients(3, 6, seed=1)
        np.testing.assert_allclose(step(factor * gradients), factor * step(gradients))

    def test_turning_all_turns_the_step(self):
        gradients = random_gradients(4, 6, seed=2)
        turn = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
        np.testing.assert_allclose(step(gradients @ turn), step(gradients) @ turn, atol=1e-9)

    @pytest.mark.parametrize("seed", range(5))
    def test_the_step_lowers_the_mean_loss_and_serves_the_worst_task_better_than_the_mean(self, seed):
        gradients = random_gradients(3, 8, seed)
        mean, found = gradients.mean(axis=0), step(gradients)
        assert found @ mean > 0
        assert (gradients @ found).min() > (gradients @ mean).min()

    def test_gradients_of_very_different_length(self):
        gradients = random_gradients(3, 30, seed=4) * np.array([[1e-6], [1.0], [1e6]])
        mean = gradients.mean(axis=0)
        found = step(gradients)
        assert np.linalg.norm(found - mean) == pytest.approx(0.4 * np.linalg.norm(mean))
        served = gradients @ found
        for _ in range(200):  # no other point of the ball serves the worst task better
            other = np.random.default_rng(_).normal(size=30)
            other = mean + 0.4 * np.linalg.norm(mean) * other / np.linalg.norm(other)
            assert served.min() >= (gradients @ other).min()

    def test_float32_is_enough_for_nearly_opposite_gradients(self):
        one = np.random.default_rng(0).normal(size=2000)
        two = -one + 1e-3 * np.random.default_rng(1).normal(size=2000)
        gradients = np.stack([one, two]).astype(np.float32)
        exact = step(gradients.astype(np.float64))
        np.testing.assert_allclose(step(gradients), exact, atol=1e-2 * np.abs(exact).max())

    @pytest.mark.parametrize("copies", [2, 3])
    def test_tasks_that_agree_are_lengthened(self, copies):
        np.testing.assert_allclose(step([[3.0, 4.0]] * copies), [4.2, 5.6])

    def test_a_task_without_a_gradient_counts_in_the_mean_alone(self):
        moving = random_gradients(2, 5, seed=5)
        found = step(np.vstack([moving, np.zeros(5)]))
        # of the other two: mean of both times 2/3, and the ball with it
        np.testing.assert_allclose(found, step(moving) * 2 / 3)

    def test_no_gradient_at_all_is_no_step(self):
        assert step(np.zeros((2, 3))).tolist() == [0, 0, 0]

    @pytest.mark.parametrize("gradients", [[[1.0, 0.0], [-1.0, 0.0]], [[2.0, 0.0], [-1.0, 0.0]]])
    def test_opposite_gradients_leave_a_finite_step(self, gradients):
        found = step(gradients)
        mean = np.mean(gradients, axis=0)
        assert np.isfinite(found).all()
        assert np.linalg.norm(found - mean) <= 0.4 * np.linalg.norm(mean) + 1e-12


class TestArguments:
    @pytest.mark.parametrize("c", [-0.1, 1.0])
    def test_c(self, c):
        with pytest.raises(UserError, match=rf"`c` must lie in \[0, 1\), found {c}"):
            CAGrad(c)

    def test_the_papers_c_by_default(self):
        assert CAGrad().c == 0.4

    def test_too_many_tasks(self):
        started(10)
        with pytest.raises(UserError, match=r"for at most 10, found 11: take `torchjd.aggregation.CAGrad`"):
            started(11)
