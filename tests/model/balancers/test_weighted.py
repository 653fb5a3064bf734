import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.model.balancers.base import Balancer
from qlib_ext.model.balancers.cqb import CQB
from qlib_ext.model.balancers.equal import EqualWeighting
from qlib_ext.model.balancers.single_task import SingleTask
from qlib_ext.model.balancers.weighted import Weighted

TASKS = ("score", "direction", "volume")


def start(balancer: Balancer, tasks=TASKS):
    balancer.setup(tasks)
    return balancer


class TestWeights:
    def test_are_those_of_the_tasks_in_their_order(self):
        balancer = start(Weighted({"volume": 3.0, "score": 0.5}))
        found = balancer.weights(torch.rand(3))
        assert found.tolist() == [0.5, 1.0, 3.0]
        assert balancer.loss_weights() == {"score": 0.5, "direction": 1.0, "volume": 3.0}

    def test_golden(self):
        """Eq. 4 by hand: 0.5 · 2 + 1 · 3 + 3 · 5."""
        losses = torch.tensor([2.0, 3.0, 5.0])
        balancer = start(Weighted({"volume": 3.0, "score": 0.5}))
        assert (balancer.weights(losses) @ losses).item() == 19.0

    def test_all_1_is_equal_weighting(self):
        losses = torch.rand(3)
        expected = start(EqualWeighting()).weights(losses)
        assert torch.equal(start(Weighted()).weights(losses), expected)
        assert torch.equal(start(Weighted({"score": 1})).weights(losses), expected)

    def test_they_decay_no_parameter_unless_told_to(self):
        assert start(Weighted({"score": 0.5})).report() == {"weight_decay": 0.0}
        assert start(Weighted(weight_decay=1e-3)).report() == {"weight_decay": 1e-3}

    def test_one_alone_is_single_task(self):
        losses = torch.rand(3)
        alone = start(Weighted({"score": 0, "volume": 0}))
        assert torch.equal(alone.weights(losses), start(SingleTask("direction")).weights(losses))
        assert alone.loss_weights() == start(SingleTask("direction")).loss_weights()

    def test_in_a_phase_are_those_of_its_tasks(self):
        balancer = start(Weighted({"volume": 3.0, "score": 0.5}))
        balancer.begin_phase(("direction", "volume"))
        assert balancer.weights(torch.rand(2)).tolist() == [1.0, 3.0]
        assert balancer.loss_weights() == {"direction": 1.0, "volume": 3.0}
        balancer.begin_phase(TASKS)
        assert balancer.weights(torch.rand(3)).tolist() == [0.5, 1.0, 3.0]

    def test_of_balancers_without_constant_ones_are_1_in_a_selection(self):
        assert start(CQB()).loss_weights() == dict.fromkeys(TASKS, 1.0)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 2.0, 3.0], r"`weights` must be a mapping of tasks to numbers, found \[1.0, 2.0, 3.0\]"),
        ({"score": -1}, "`weights.score` must be at least 0, found -1"),
        ({"score": "1e-3"}, "`weights.score` must be at least 0, found '1e-3'"),
        ({"scores": 1}, "`weights` must be one of direction, score, volume, found 'scores' .did you mean"),
        (dict.fromkeys(TASKS, 0), "`weights` must be above 0 for at least 1 task, found 0 for score"),
    ],
)
def test_messages(weights, message):
    with pytest.raises(UserError, match=message):
        start(Weighted(weights))


def test_a_phase_of_tasks_that_learn_nothing():
    balancer = start(Weighted({"score": 0}))
    with pytest.raises(UserError, match="`weights` must be above 0 for at least 1 task, found 0 for score"):
        balancer.begin_phase(("score",))
