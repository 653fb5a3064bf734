"""How a training goes, as a workflow says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from qlib_ext import checks
from qlib_ext.model import schedule
from qlib_ext.model.augment import Augmenter
from qlib_ext.model.schedule import Phase, Plateau
from qlib_ext.model.selection import SELECTIONS


@dataclass(frozen=True)
class TrainerOptions:
    """How to train.

    Attributes
    ----------
    n_epochs
        Epochs at most, of each phase where there are several.
    patience
        Stop after this many epochs without a better validation score.
    learning_rate
        Of Adam.
    precision
        `float32`, or `bfloat16` for the backbone under autocast (parameters, heads, losses and optimizer stay
        float32).
    selection
        Validation score, higher is better: `rank_ic`, the mean daily RankIC on raw labels; `authors`, the sum over the
        tasks of the relative gain in RankIC and in accuracy over the first epoch; or `loss`, minus the sum of the
        trained tasks' validation losses, each times its constant weight under the balancer (1 where it has none). An
        epoch without a RankIC (all scores of a day equal, on every day) has no score by the first two and is never the
        best.
    phases
        The training in parts, one after the other: mappings with `tasks` (names, or `all`) and where they differ from
        the fields above `epochs`, `patience`, `learning_rate` and `selection`. None: all tasks at once.
    plateau
        Lower the learning rate where the validation score gets no better: a mapping of `Plateau`'s `factor`, `patience`
        and `min_learning_rate`. None: it stays.
    augmentations
        Random changes of the training windows, `{class, kwargs}` each, applied in this order.
    """

    n_epochs: int = 100
    patience: int = 30
    learning_rate: float = 2e-4
    precision: str = "float32"
    selection: str = "rank_ic"
    phases: Sequence[Mapping[str, Any]] | None = None
    plateau: Mapping[str, Any] | None = None
    augmentations: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        checks.integer("n_epochs", self.n_epochs, 1)
        checks.integer("patience", self.patience, 1)
        checks.above("learning_rate", self.learning_rate, 0)
        checks.one_of("precision", self.precision, ("float32", "bfloat16"))
        checks.one_of("selection", self.selection, SELECTIONS)
        schedule.check(self.phases)
        Plateau.of(self.plateau)
        Augmenter(self.augmentations, 0, torch.device("cpu"))

    def plan(self, tasks: Sequence[str]) -> tuple[Phase, ...]:
        """The phases of a training of these tasks, at least one."""
        default = Phase(tuple(tasks), self.n_epochs, self.patience, self.learning_rate, self.selection)
        return schedule.plan(self.phases, tasks, default)
