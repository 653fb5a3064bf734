from __future__ import annotations

import torch

from qlib_ext.model.batch_norm import renew_statistics


def test_statistics_are_the_means_over_the_batches():
    network = torch.nn.BatchNorm1d(2).eval()
    network.running_mean.fill_(99.0)
    batches = [torch.randn(6, 2), 3 + 2 * torch.randn(6, 2)]
    renew_statistics(network, iter(batches))
    torch.testing.assert_close(
        network.running_mean, torch.stack([b.mean(dim=0) for b in batches]).mean(dim=0)
    )
    torch.testing.assert_close(network.running_var, torch.stack([b.var(dim=0) for b in batches]).mean(dim=0))
    assert not network.training
    assert network.momentum == 0.1


def test_a_network_without_is_not_run():
    def panels():
        raise AssertionError("no day is read")
        yield

    renew_statistics(torch.nn.Linear(2, 1), panels())
