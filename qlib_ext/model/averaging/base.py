"""What every average of weights promises."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from qlib_ext.config.rebuildable import Rebuildable


class Averaging(Rebuildable):
    """What of the weights that a phase of a training passes through is judged on validation and kept.

    This one keeps no average: the newest weights are judged. A phase has one of its own, which `begun` makes, so that
    nothing of an average goes over into the next phase.

    Notes
    -----
    What is judged is another network than the one that is trained, and training never sees it. Where it has batch
    normalisation, the trainer computes its running statistics anew. `end_step` reads no value back from the device.
    """

    def begun(self, network: nn.Module) -> Self:
        """Another one like this, at the beginning of a phase that trains `network`."""
        again = copy.copy(self)
        again.begin(network)
        return again

    def check(self, epochs: int, patience: int) -> None:
        """Raise a UserError where a phase of at most `epochs`, which ends by `patience`, may have nothing to average."""

    def learning_rate(self, base: float, progress: float) -> float | None:
        """The learning rate after `progress` epochs of the phase, where the average needs one; None leaves it alone.

        Parameters
        ----------
        base
            The learning rate with which the phase begins.
        progress
            Epochs, with the part of the one under way.
        """
        return None

    def begin(self, network: nn.Module) -> None:
        """Take note of the weights with which a phase begins."""

    def end_step(self, network: nn.Module) -> None:
        """Take in the weights after a step."""

    def end_epoch(self, network: nn.Module) -> None:
        """Take in the weights after an epoch."""

    def judged(self, network: nn.Module) -> nn.Module | None:
        """What is judged after an epoch; None where the epoch cannot be chosen."""
        return network

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that resuming needs, by name."""
        return {}

    def values(self) -> dict[str, Any]:
        """The values that resuming needs, ready for JSON."""
        return {}

    def load(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Take up what `tensors` and `values` gave."""


class RunningAverage(Averaging):
    """An average that is one network, of the same shape as that which is trained.

    Attributes
    ----------
    average
        The network that holds it.
    count
        How often weights were taken in.
    """

    average: nn.Module
    count: int

    def begin(self, network: nn.Module) -> None:
        """Begin with a copy of the weights."""
        self.average = copied(network)
        self.count = 0

    def end_epoch(self, network: nn.Module) -> None:
        """Take over what is no parameter, such as running statistics."""
        with torch.no_grad():
            for own, buffer in zip(self.average.buffers(), network.buffers(), strict=True):
                own.copy_(buffer)

    def judged(self, network: nn.Module) -> nn.Module | None:
        """The average, as soon as there is one."""
        return self.average if self.count else network

    def parameters(self, network: nn.Module) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Those of the average and those of the network, in the same order."""
        return tuple(self.average.parameters()), tuple(network.parameters())

    def tensors(self) -> dict[str, Tensor]:
        """The weights of the average."""
        return dict(self.average.state_dict())

    def values(self) -> dict[str, Any]:
        """How many weights are in it."""
        return {"count": self.count}

    def load(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Take up what `tensors` and `values` gave."""
        self.average.load_state_dict(tensors)
        self.count = values["count"]


def copied(network: nn.Module) -> nn.Module:
    """A network with the same weights that is never trained."""
    again = copy.deepcopy(network).requires_grad_(False)
    again.zero_grad(set_to_none=True)
    for module in again.modules():
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()  # in one piece again, as cuDNN wants them
    return again
