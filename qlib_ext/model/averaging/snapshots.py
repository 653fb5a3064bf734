"""Snapshots of a learning rate that goes round in cycles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from qlib_ext.checks import UserError, integer
from qlib_ext.model.averaging.base import Averaging, copied
from qlib_ext.model.averaging.members import NetworkEnsemble, shaped


class Snapshots(Averaging):
    """Keep the weights at the end of each cycle of the learning rate, and average what they predict.

    Source: Huang et al., Snapshot Ensembles: Train 1, Get M for Free, 2017. In a cycle of C epochs the learning rate falls from
    that of the phase to 0 along a cosine, by steps, and then begins again (their equation 2)::

        rate(p) = base / 2 (1 + cos(π (p mod C) / C))     p epochs into the phase

    Parameters
    ----------
    cycle
        C, epochs of a cycle.
    members
        How many snapshots at most, the newest ones.

    Notes
    -----
    An epoch that ends a cycle is judged by all snapshots so far together, as `NetworkEnsemble` averages them; any other is
    measured as it stands and never chosen. The next phase, and a training that starts from such a run, begin with the
    newest snapshot. Adam's moments go on over a restart.

    Departures
    ----------
    Huang et al. average the probabilities of classes; scores of stocks have none, and are averaged as z-scores of a day.
    They take the last M snapshots; here as many as are best on validation, the first ones on.
    """

    def __init__(self, cycle: int, members: int = 5) -> None:
        self.cycle = integer("cycle", cycle, 1)
        self.members = integer("members", members, 1)

    def check(self, epochs: int, patience: int) -> None:
        """There must be a whole cycle before patience ends the phase."""
        for name, value in (("epochs", epochs), ("patience", patience)):
            if value < self.cycle:
                raise UserError(
                    f"`averaging.cycle` must be at most the {name} of each phase ({value}), or no cycle may come to its end; "
                    f"found {self.cycle}"
                )

    def learning_rate(self, base: float, progress: float) -> float | None:
        """Along the cosine of the cycle."""
        return base / 2 * (1 + math.cos(math.pi * (progress % self.cycle) / self.cycle))

    def begin(self, network: nn.Module) -> None:
        """Begin without snapshots."""
        self.network = network  # for its shape
        self.snapshots: list[nn.Module] = []
        self.epochs = 0

    def end_epoch(self, network: nn.Module) -> None:
        """Keep the weights at the end of a cycle."""
        self.epochs += 1
        if self.epochs % self.cycle == 0:
            self.snapshots = [*self.snapshots, copied(network)][-self.members :]

    def judged(self, network: nn.Module) -> nn.Module | None:
        """All snapshots together, at the end of a cycle."""
        return None if self.epochs % self.cycle else NetworkEnsemble(self.snapshots)

    def tensors(self) -> dict[str, Tensor]:
        """The weights of the snapshots."""
        return dict(NetworkEnsemble(self.snapshots).state_dict())

    def values(self) -> dict[str, Any]:
        """How many epochs there were."""
        return {"epochs": self.epochs}

    def load(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Take up what `tensors` and `values` gave."""
        self.epochs = values["epochs"]
        together = shaped(self.network, tensors)
        if isinstance(together, NetworkEnsemble):
            together.load_state_dict(tensors)
            self.snapshots = list(together.members)
