"""What a phase of a training holds while it goes on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam

from qlib_ext.checks import UserError
from qlib_ext.model.averaging.base import Averaging
from qlib_ext.model.averaging.members import newest_member, shaped
from qlib_ext.model.schedule import Phase, Plateau

logger = logging.getLogger(__name__)


class PhaseState:
    """Optimizer, learning rate, average of the weights and best epoch of a phase, which no other phase sees.

    Parameters
    ----------
    phase
        What it trains, and for how long.
    number, of
        Its place among the phases, from 0, and how many there are.
    first_epoch
        Epochs of the training before it.
    network
        Whose parameters are trained. Its gradients are dropped: without one, a head at rest takes no step and no decay.
    plateau
        When the learning rate falls; None: never.
    averaging
        What average of the weights is judged and kept; None: the newest weights are.
    """

    def __init__(
        self,
        phase: Phase,
        number: int,
        of: int,
        first_epoch: int,
        network: nn.Module,
        plateau: Plateau | None,
        averaging: Averaging | None = None,
    ) -> None:
        self.phase = phase
        self.number = number
        self.of = of
        self.first_epoch = first_epoch
        network.zero_grad(set_to_none=True)
        self.optimizer = Adam(network.parameters(), lr=phase.learning_rate, fused=True)
        self.scheduler = None if plateau is None else plateau.scheduler(self.optimizer)
        self.averaging = (averaging or Averaging()).begun(network)
        self.best_epoch = -1
        self.best_score = -np.inf
        self.best_weights: dict[str, Tensor] = {}

    @property
    def learning_rate(self) -> float:
        """The one in force."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def name(self) -> str:
        """` of phase 1`, or nothing where it is the only one."""
        return f" of phase {self.number}" if self.of > 1 else ""

    def conditions(self) -> dict[str, float]:
        """What of the phase is in force, for the record of an epoch."""
        record = {"phase": float(self.number)} if self.of > 1 else {}
        scheduled = self.averaging.learning_rate(self.phase.learning_rate, 0.0) is not None
        if self.of > 1 or self.scheduler is not None or scheduled:
            record["learning_rate"] = self.learning_rate
        return record

    def set_learning_rate(self, progress: float) -> None:
        """As the average needs it after `progress` epochs of the training, the part of the one under way included."""
        rate = self.averaging.learning_rate(self.phase.learning_rate, progress - self.first_epoch)
        if rate is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = rate

    def set_weight_decay(self, weight_decay: float) -> None:
        """Coupled L2 on all parameters, from the next step on."""
        for group in self.optimizer.param_groups:
            group["weight_decay"] = weight_decay

    def is_over(self, epoch: int) -> bool:
        """Whether no epoch is left after `epoch` epochs of the training."""
        return self.phase.is_over(self.first_epoch, epoch, self.best_epoch)

    def note(self, epoch: int, score: float, network: nn.Module) -> bool:
        """Take note of an epoch's validation score; whether it is the best, whose weights are kept, those that it is of."""
        if self.scheduler is not None:
            self.scheduler.step(score)
        best = score > self.best_score
        if best:
            self.best_epoch, self.best_score = epoch, score
            self.best_weights = {name: x.detach().clone() for name, x in network.state_dict().items()}
        return best

    def restore_best(self, network: nn.Module, epoch: int) -> None:
        """Put the best weights into the network, after `epoch` epochs of the training.

        Raises
        ------
        UserError
            If no epoch of the phase has a validation score.
        """
        told = f"{self.name} ({', '.join(self.phase.tasks)})" if self.of > 1 else ""
        if self.best_epoch < 0:
            raise UserError(
                f"no epoch of {epoch - self.first_epoch}{told} has a validation score, so no weights can be chosen: on "
                "every day of `valid` all scores or all labels of the task `score` are equal; lower `learning_rate`, or "
                "look at the labels"
            )
        network.load_state_dict(newest_member(self.best_weights))
        logger.info("best epoch%s %d, validation score %.4f", told, self.best_epoch, self.best_score)

    def best(self, network: nn.Module) -> nn.Module:
        """A network with the best weights: `network`, or an ensemble of copies of it where they are those of several."""
        found = shaped(network, self.best_weights)
        found.load_state_dict(self.best_weights)
        return found

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """The tensors that resuming needs, by group."""
        optimizer = {
            f"{index}/{name}": value
            for index, state in self.optimizer.state_dict()["state"].items()
            for name, value in state.items()
        }
        return {"best": self.best_weights, "optimizer": optimizer, "averaging": self.averaging.tensors()}

    def values(self) -> dict[str, Any]:
        """The values that resuming needs, ready for JSON."""
        return {
            "phase": self.number,
            "first_epoch": self.first_epoch,
            "best_epoch": self.best_epoch,
            "best_score": float(self.best_score),
            "learning_rate": self.learning_rate,
            "plateau": {} if self.scheduler is None else self.scheduler.state_dict(),
            "averaging": self.averaging.values(),
        }

    def load(
        self,
        tensors: Mapping[str, Mapping[str, Tensor]],
        values: Mapping[str, Any],
        device: torch.device,
    ) -> None:
        """Take up what `tensors` and `values` gave."""
        self.first_epoch = values["first_epoch"]
        self.best_epoch, self.best_score = values["best_epoch"], values["best_score"]
        self.best_weights = {name: value.to(device) for name, value in tensors.get("best", {}).items()}
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors["optimizer"].items():
            index, _, name = key.partition("/")
            state.setdefault(int(index), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        groups[0]["lr"] = values["learning_rate"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        if self.scheduler is not None:
            self.scheduler.load_state_dict(values["plateau"])
        self.averaging.load(tensors.get("averaging", {}), values.get("averaging", {}))
