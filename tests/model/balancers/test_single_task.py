import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.model.balancers.single_task import SingleTask


@pytest.mark.parametrize(("task", "expected"), [("score", [1.0, 0.0]), ("momentum", [0.0, 1.0])])
def test_one_task_has_all_the_weight(task, expected):
    balancer = SingleTask(task)
    balancer.setup(["score", "momentum"])
    assert balancer.weights(torch.tensor([3.0, 4.0])).tolist() == expected


def test_the_task_must_be_there():
    with pytest.raises(
        UserError, match=r"`task` must be one of momentum, score, found 'scores' .did you mean score"
    ):
        SingleTask("scores").setup(["score", "momentum"])
