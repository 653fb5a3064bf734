"""The exponential moving average of the weights."""

from __future__ import annotations

from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from qlib_ext.checks import between
from qlib_ext.model.averaging.base import RunningAverage


class EMA(RunningAverage):
    """Average the weights over the steps, the newest with the most weight.

    Source: averaging of iterates, Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992. With θ(t)
    the weights after step t of a phase, and a(0) those with which it begins::

        a(t) = d(t) a(t - 1) + (1 - d(t)) θ(t)
        d(t) = min(decay, (1 + t) / (10 + t))

    Parameters
    ----------
    decay
        Share of the past, in [0, 1). At 0.999 half of the weight lies on the last 690 steps; a step is a trading day, and
        five years have 1,200 of them. 0 averages nothing.

    Departures
    ----------
    Polyak and Juditsky weigh all iterates alike. Here the past fades, as is the practice with networks, since their first
    weights are far from the last. d(t) rises to `decay`, so that the weights which the seed drew fade at once.
    """

    def __init__(self, decay: float = 0.999) -> None:
        self.decay = float(between("decay", decay, 0, 1, open_high=True))

    def end_step(self, network: nn.Module) -> None:
        """Move the average towards the weights after a step."""
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        get_ema_multi_avg_fn(decay)(*self.parameters(network), 0)
