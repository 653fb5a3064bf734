import torch

from qlib_ext.model.balancers.equal import EqualWeighting


def test_the_step_is_the_gradient_of_the_sum():
    losses = torch.tensor([2.0, 0.5, 7.0])
    balancer = EqualWeighting()
    balancer.setup(["score", "momentum", "volume"])
    assert torch.equal(balancer.transform(losses), losses)
    assert torch.equal(balancer.weights(losses), torch.ones(3))
