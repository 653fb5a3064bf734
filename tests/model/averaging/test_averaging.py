from __future__ import annotations

import torch

from qlib_ext.model.averaging.base import Averaging, RunningAverage, copied


def test_without_an_average_the_newest_weights_are_judged():
    network = torch.nn.Linear(1, 1)
    none = Averaging().begun(network)
    none.end_step(network)
    none.end_epoch(network)
    assert none.judged(network) is network
    assert none.learning_rate(0.1, 3.0) is None
    assert (none.tensors(), none.values()) == ({}, {})


def test_a_copy_is_apart_and_is_not_trained():
    network = torch.nn.Linear(1, 1)
    network(torch.ones(1, 1)).backward()
    again = copied(network)
    torch.nn.init.constant_(network.weight, 9.0)
    assert again.weight.item() != 9.0
    assert not again.weight.requires_grad
    assert again.weight.grad is None


def test_what_is_no_parameter_is_taken_over():
    network = torch.nn.BatchNorm1d(2)
    average = RunningAverage().begun(network)
    network(torch.randn(5, 2))
    average.end_epoch(network)
    assert torch.equal(average.average.running_mean, network.running_mean)
    assert average.average.num_batches_tracked == 1
