from __future__ import annotations

import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.model.averaging.ema import EMA


def after(average, weights):
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(network.weight, 10.0)
    begun = average.begun(network)
    for weight in weights:
        torch.nn.init.constant_(network.weight, weight)
        begun.end_step(network)
    begun.end_epoch(network)
    return begun.judged(network).weight.item()


def test_is_the_formula():
    weights = [1.0, -2.0, 4.0, 0.5, 3.0]
    for decay in (0.3, 0.999):
        expected = 10.0
        for t, weight in enumerate(weights, start=1):
            share = min(decay, (1 + t) / (10 + t))
            expected = share * expected + (1 - share) * weight
        assert after(EMA(decay), weights) == pytest.approx(expected, rel=1e-6)


def test_forgets_where_it_began():
    assert after(EMA(0.999), [1.0] * 60) == pytest.approx(1.0, abs=1e-6)


def test_messages():
    for wrong in (1, -0.1, "0.9"):
        with pytest.raises(UserError, match="`decay` must "):
            EMA(wrong)
