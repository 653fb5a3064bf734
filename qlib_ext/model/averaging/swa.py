"""Stochastic weight averaging."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import get_swa_multi_avg_fn

from qlib_ext.checks import UserError, above, integer
from qlib_ext.model.averaging.base import RunningAverage


class SWA(RunningAverage):
    """The mean of the weights at the ends of epochs, from some epoch on.

    Source: Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, 2018, Algorithm 1, with a
    cycle of one epoch. With θ(e) the weights after epoch e of a phase, from 0::

        a(e) = mean of θ(start), ..., θ(e)

    Parameters
    ----------
    start
        Epochs of a phase before those that are averaged. They are judged as they stand.
    learning_rate
        Constant learning rate of the epochs that are averaged, high enough that the weights keep moving; None leaves it as
        it is.

    Departures
    ----------
    Izmailov et al. take the last average. Here the best on validation is kept, as always, and that may be an epoch before
    `start`. Their learning rate may go round in cycles too; here it is constant.
    """

    def __init__(self, start: int, learning_rate: float | None = None) -> None:
        self.start = integer("start", start, 0)
        self.rate = None if learning_rate is None else float(above("learning_rate", learning_rate, 0))

    def check(self, epochs: int, patience: int) -> None:
        """There must be an epoch to average before patience ends the phase."""
        for name, value in (("epochs", epochs), ("patience", patience)):
            if value <= self.start:
                raise UserError(
                    f"`averaging.start` must be below the {name} of each phase ({value}), or nothing may be averaged; found "
                    f"{self.start}"
                )

    def learning_rate(self, base: float, progress: float) -> float | None:
        """The constant one from `start` on, where there is one."""
        if self.rate is None:
            return None
        return self.rate if progress >= self.start else base

    def begin(self, network: nn.Module) -> None:
        """Begin with a copy of the weights."""
        super().begin(network)
        self.epochs = 0

    def end_epoch(self, network: nn.Module) -> None:
        """Take the weights into the mean."""
        super().end_epoch(network)
        self.epochs += 1
        if self.epochs > self.start:
            get_swa_multi_avg_fn()(*self.parameters(network), self.count)
            self.count += 1

    def values(self) -> dict[str, Any]:
        """How many epochs there were, and how many of them are in the mean."""
        return {**super().values(), "epochs": self.epochs}

    def load(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Take up what `tensors` and `values` gave."""
        super().load(tensors, values)
        self.epochs = values["epochs"]
