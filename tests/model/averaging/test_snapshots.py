from __future__ import annotations

import numpy as np
import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.model.averaging.snapshots import Snapshots


def test_keeps_the_newest_ends_of_cycles():
    network = torch.nn.Linear(1, 1, bias=False)
    snapshots = Snapshots(cycle=2, members=2).begun(network)
    found = []
    for weight in range(6):
        torch.nn.init.constant_(network.weight, weight)
        snapshots.end_epoch(network)
        judged = snapshots.judged(network)
        found.append(judged and [member.weight.item() for member in judged.members])
    assert found == [None, [1.0], None, [1.0, 3.0], None, [3.0, 5.0]]


def test_the_learning_rate_falls_along_a_cosine_and_begins_again():
    """Equation 2 of the paper, with T/M = 30 steps of 10 an epoch."""
    snapshots = Snapshots(cycle=3)
    steps = np.arange(90)
    expected = 0.2 / 2 * (np.cos(np.pi * np.mod(steps, 30) / 30) + 1)
    np.testing.assert_allclose(
        [snapshots.learning_rate(0.2, step / 10) for step in steps], expected, atol=1e-12
    )


@pytest.mark.parametrize("argument", ["cycle", "members"])
def test_messages(argument):
    with pytest.raises(UserError, match=f"`{argument}` must be at least 1, found 0"):
        Snapshots(**{"cycle": 2, argument: 0})
