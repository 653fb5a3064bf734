from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from qlib_ext.model.averaging.members import (
    NetworkEnsemble,
    mean_of_classes,
    mean_of_values,
    newest_member,
    number_of_members,
    shaped,
)


def test_values_are_means_of_z_scores():
    values = (
        torch.randn(3, 40, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0], [5.0], [0.1]])
        + 2
    )
    found = mean_of_values(values).numpy()
    expected = stats.zscore(values.numpy(), axis=1).mean(axis=0)
    np.testing.assert_allclose(stats.zscore(found), stats.zscore(expected), atol=1e-5)
    np.testing.assert_allclose(found.mean(), values.mean(), rtol=1e-5)


def test_a_member_without_an_order_has_no_say():
    level, other = torch.full((5,), 3.0), torch.tensor([1.0, 4.0, 2.0, 2.5, 0.0])
    found = mean_of_values(torch.stack([level, other]))
    assert found.argsort().tolist() == other.argsort().tolist()
    assert torch.isfinite(mean_of_values(torch.ones(2, 1))).all()


def test_equal_members_are_one():
    values = torch.randn(7)
    torch.testing.assert_close(mean_of_values(torch.stack([values, values])), values)
    logits = torch.randn(7, 3)
    torch.testing.assert_close(
        mean_of_classes(torch.stack([logits, logits])).softmax(dim=1), logits.softmax(dim=1)
    )


def test_classes_are_means_of_probabilities():
    logits = 4 * torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        mean_of_classes(logits).softmax(dim=1), logits.softmax(dim=2).mean(dim=0), atol=1e-6, rtol=1e-5
    )


def test_the_weights_say_how_many_there_are():
    network = torch.nn.Linear(2, 1)
    members = [torch.nn.Linear(2, 1) for _ in range(11)]
    weights = NetworkEnsemble(members).state_dict()
    assert number_of_members(weights) == 11
    assert torch.equal(newest_member(weights)["weight"], members[10].weight)
    again = shaped(network, weights)
    again.load_state_dict(weights)
    assert torch.equal(again.members[3].weight, members[3].weight)
    alone = network.state_dict()
    assert number_of_members(alone) == 0
    assert newest_member(alone).keys() == alone.keys()
    assert shaped(network, alone) is network
