from __future__ import annotations

import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.model.averaging.swa import SWA


def test_is_the_mean_of_the_ends_of_epochs():
    network = torch.nn.Linear(1, 1, bias=False)
    average = SWA(start=2).begun(network)
    found = []
    for weight in (1.0, 5.0, 2.0, 3.0, 10.0):
        torch.nn.init.constant_(network.weight, 77.0)
        average.end_step(network)  # steps do not count
        torch.nn.init.constant_(network.weight, weight)
        average.end_epoch(network)
        found.append(average.judged(network).weight.item())
    assert found == pytest.approx([1.0, 5.0, 2.0, 2.5, 5.0])


def test_its_learning_rate_holds_from_its_start_on():
    average = SWA(start=2, learning_rate=0.5)
    assert [average.learning_rate(0.1, p) for p in (0, 1.9, 2, 7.3)] == [0.1, 0.1, 0.5, 0.5]
    assert SWA(start=2).learning_rate(0.1, 3) is None


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"start": -1}, "`start` must be at least 0, found -1"),
        ({"start": 1, "learning_rate": 0}, "`learning_rate` must be above 0, found 0"),
    ],
)
def test_messages(kwargs, message):
    with pytest.raises(UserError, match=message):
        SWA(**kwargs)
