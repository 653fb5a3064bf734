"""What the steps of an epoch say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from qlib_ext.checks import UserError
from qlib_ext.model.gradients import norms_and_cosine


class NonFiniteError(UserError, FloatingPointError):
    """A loss, or a score, that is no number: the message says where, and what to do about it."""


class StepLog:
    """Losses and gradients of an epoch's steps, left on the device that trains until they are read.

    Parameters
    ----------
    tasks
        Names of the K tasks that are trained.
    balancer
        Name of the balancer, for messages.
    epoch
        Number of the epoch.
    dates
        Days of the segment that is trained on.
    """

    def __init__(self, tasks: Sequence[str], balancer: str, epoch: int, dates: pd.DatetimeIndex) -> None:
        self.tasks = tuple(tasks)
        self.balancer = balancer
        self.epoch = epoch
        self.dates = dates
        self._positions: list[int] = []
        # [2, K] each: as the tasks give them, and as the balancer transforms them
        self._losses: list[Tensor] = []
        self._totals = np.zeros(len(self.tasks))
        self._read = 0
        self._gradients: tuple[Tensor, Tensor] | None = None  # sums of norms [K] and of cosines
        self._looks = 0

    def add(self, position: int, losses: Tensor, transformed: Tensor, jacobian: Tensor | None) -> None:
        """Keep a step on the day at `position`.

        Parameters
        ----------
        position
            Of the day in the segment.
        losses, transformed
            `[K]`, before and after the balancer.
        jacobian
            Gradients `[K, P]` of the tasks, where the step has made them.
        """
        self._positions.append(position)
        self._losses.append(torch.stack([losses.detach(), transformed.detach()]))
        if jacobian is None:
            return
        found = norms_and_cosine(jacobian)
        past = self._gradients
        self._gradients = found if past is None else (past[0] + found[0], past[1] + found[1])
        self._looks += 1

    def read(self) -> str:
        """Read the losses since the last time; the mean of each task so far.

        Raises
        ------
        NonFiniteError
            If one is not finite: the message names the first such day.
        """
        if self._losses:
            both = torch.stack(self._losses).cpu().numpy()  # [steps, 2, K]
            for position, (losses, transformed) in zip(self._positions, both, strict=True):
                self._check(self.dates[position], losses, transformed)
            self._totals += both[:, 0].sum(axis=0, dtype=np.float64)
            self._read += len(both)
            self._positions, self._losses = [], []
        return self._named(self._totals / max(1, self._read), " ", ".4f")

    def _check(self, date: pd.Timestamp, losses: np.ndarray, transformed: np.ndarray) -> None:
        if not np.isfinite(losses).all():
            raise NonFiniteError(
                f"a loss is not finite on {date:%Y-%m-%d} in epoch {self.epoch} ({self._named(losses)}): lower "
                "`learning_rate`, or look for infinite prices that day; resuming starts from the last whole epoch"
            )
        if not np.isfinite(transformed).all():
            raise NonFiniteError(
                f"{self.balancer} makes a loss not finite on {date:%Y-%m-%d} in epoch {self.epoch} "
                f"({self._named(losses)}): a balancer that takes logarithms needs losses of at least 0"
            )

    def _named(self, values: np.ndarray, between: str = ", ", form: str = "") -> str:
        return between.join(f"{task} {value:{form}}" for task, value in zip(self.tasks, values, strict=True))

    def gradients(self) -> dict[str, float]:
        """Mean norms and cosine of the tasks' gradients, for the record of the epoch; empty where no step had them."""
        if self._gradients is None:
            return {}
        norms, cosine = self._gradients
        record = {
            f"gradient/norm/{task}": norm / self._looks
            for task, norm in zip(self.tasks, norms.tolist(), strict=True)
        }
        if len(self.tasks) > 1:
            record["gradient/cosine"] = float(cosine) / self._looks
        return record


def check_measured(segment: str, losses: Mapping[str, float], epoch: int) -> None:
    """Stop before weights that the last step of an epoch has spoilt reach a checkpoint."""
    for name, value in losses.items():
        if not np.isfinite(value):
            raise NonFiniteError(
                f"the loss of task {name} on `{segment}` is not finite after epoch {epoch} ({value}): lower "
                "`learning_rate`, or look for infinite prices; resuming starts from the epoch before"
            )
