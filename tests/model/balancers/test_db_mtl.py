"""DB-MTL against its definition in plain numpy, and against CQB without what CQB adds."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.model.balancers.cqb import CQB
from qlib_ext.model.balancers.db_mtl import DBMTL

TASKS = ("score", "momentum", "volume")


def started(k=2, **kwargs):
    balancer = DBMTL(**kwargs)
    balancer.setup(TASKS[:k])
    return balancer


class TestDefinition:
    @settings(deadline=None)
    @given(seed=st.integers(0, 2**16), k=st.integers(1, 3), beta=st.floats(0, 0.95))
    def test_steps(self, seed, k, beta):
        draw = np.random.default_rng(seed)
        balancer = started(k, beta=beta)
        average = None
        for _ in range(5):
            gradients = draw.normal(0, 10.0 ** draw.uniform(-3, 3, (k, 1)), (k, 5))
            average = gradients if average is None else beta * average + (1 - beta) * gradients
            norms = [math.sqrt(sum(x**2 for x in row)) for row in average]
            expected = sum(max(norms) * row / norm for row, norm in zip(average, norms, strict=True))
            found = balancer.aggregate(torch.from_numpy(gradients))
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-9)
            balancer.end_epoch({}, {})

    def test_golden(self):
        balancer = started(beta=0.25)
        balancer.aggregate(torch.tensor([[8.0, 0.0], [0.0, 4.0]]))
        step = balancer.aggregate(torch.tensor([[0.0, 8.0], [0.0, -4.0]]))
        # score: (2, 6), norm sqrt(40); momentum: (0, 1 - 3) = (0, -2), norm 2
        torch.testing.assert_close(step, torch.tensor([2.0, 6.0 - math.sqrt(40)]))

    def test_is_cqb_without_its_two_balances(self):
        ours = started(3, beta=0.4, weight_decay=2e-3)
        cqb = CQB(beta=0.4, decay=2e-3, window=1, balance_beta=False, balance_decay=False)
        cqb.setup(TASKS)
        generator = torch.Generator().manual_seed(0)
        for _ in range(4):
            losses, jacobian = torch.rand(3, generator=generator), torch.randn(3, 6, generator=generator)
            assert torch.equal(ours.transform(losses), cqb.transform(losses))
            assert torch.equal(ours.aggregate(jacobian), cqb.aggregate(jacobian))
            for balancer in (ours, cqb):
                balancer.end_epoch(dict.fromkeys(TASKS, 1.0), dict.fromkeys(TASKS, 2.0))
            assert ours.weight_decay == cqb.weight_decay == 2e-3


class TestLaws:
    @pytest.mark.parametrize("factor", [1e-4, 1e4])
    def test_scaling_a_task_moves_the_length_and_not_the_direction(self, factor):
        generator = torch.Generator().manual_seed(0)
        plain, scaled = started(3), started(3)
        scale = torch.tensor([[factor], [1.0], [1.0]], dtype=torch.float64)
        for _ in range(4):
            jacobian = torch.randn(3, 6, generator=generator, dtype=torch.float64)
            one, other = plain.aggregate(jacobian), scaled.aggregate(jacobian * scale)
        torch.testing.assert_close(other / other.norm(), one / one.norm())

    def test_the_scale_of_a_loss_does_not_matter(self):
        x = torch.tensor([0.3, 2.0], dtype=torch.float64, requires_grad=True)
        slopes = [
            torch.autograd.grad(started().transform(scale * x.square()).sum(), x)[0] for scale in (1, 1e3)
        ]
        torch.testing.assert_close(slopes[0], slopes[1])

    def test_without_memory_each_step_stands_alone(self):
        balancer = started(beta=0)
        balancer.aggregate(torch.randn(2, 3))
        jacobian = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 10.0]])
        torch.testing.assert_close(balancer.aggregate(jacobian), torch.tensor([6.0, 8.0, 10.0]))

    def test_a_task_without_a_gradient_adds_nothing(self):
        jacobian = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
        torch.testing.assert_close(started().aggregate(jacobian), jacobian[0])
        assert started().aggregate(torch.zeros(2, 3)).tolist() == [0.0, 0.0, 0.0]


class TestState:
    def test_is_taken_up_with_the_next_step(self):
        jacobian, later = torch.tensor([[8.0, 0.0], [0.0, 4.0]]), torch.tensor([[0.0, 8.0], [0.0, -4.0]])
        straight, resumed = started(beta=0.25), started(beta=0.25)
        straight.aggregate(jacobian)
        tensors, values = straight.state()
        assert torch.equal(tensors["average"], jacobian)  # the average starts at the first gradient
        expected = straight.aggregate(later)
        assert torch.equal(tensors["average"], jacobian)  # and what was given away stands still
        resumed.load_state(tensors, values)
        assert torch.equal(resumed.aggregate(later), expected)
        assert torch.equal(tensors["average"], jacobian)

    def test_before_the_first_step_there_is_none(self):
        assert started().state() == ({}, {})
        balancer, jacobian = started(), torch.tensor([[3.0, 4.0], [0.0, 10.0]])
        balancer.aggregate(torch.ones(2, 2))
        balancer.load_state({}, {})
        assert torch.equal(balancer.aggregate(jacobian), started().aggregate(jacobian))


def test_without_arguments_it_is_the_papers():
    balancer = started()
    assert balancer.beta == 0.5
    assert balancer.report() == {"weight_decay": 0.0}


@pytest.mark.parametrize("beta", [1.0, -0.1])
def test_beta(beta):
    with pytest.raises(UserError, match=rf"`beta` must lie in \[0, 1\), found {beta}"):
        DBMTL(beta=beta)
