"""How a training goes, as a workflow says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qlib_ext.checks import UserError, above, brief, integer, one_of
from qlib_ext.config.build import build
from qlib_ext.model import schedule
from qlib_ext.model.augmentations.base import Augmentation
from qlib_ext.model.averaging.base import Averaging
from qlib_ext.model.schedule import LARGEST_RATE, Phase, Plateau
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
        Lower the learning rate where the validation score gets no better. None: it stays.
    augmentations
        Random changes of the training windows, applied in this order.
    averaging
        What average of the weights is judged on validation and kept. None: the newest weights are.
    """

    n_epochs: int = 100
    patience: int = 30
    learning_rate: float = 2e-4
    precision: str = "float32"
    selection: str = "rank_ic"
    phases: Sequence[Mapping[str, Any]] | None = None
    plateau: Plateau | None = None
    augmentations: tuple[Augmentation, ...] = ()
    averaging: Averaging | None = None

    def __post_init__(self) -> None:
        integer("n_epochs", self.n_epochs, 1)
        integer("patience", self.patience, 1)
        above("learning_rate", self.learning_rate, 0, LARGEST_RATE)
        one_of("precision", self.precision, ("float32", "bfloat16"))
        one_of("selection", self.selection, SELECTIONS)
        schedule.check(self.phases)
        if self.plateau is not None and self.averaging is not None and self.averaging.learning_rate(1.0, 0.0):
            raise UserError(
                f"`plateau` must be left out, found it beside {self.averaging!r}, which sets the learning rate itself"
            )

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> TrainerOptions:
        """Of a workflow's mapping, in which `plateau` is a mapping, and `averaging` and each of `augmentations` are `{class, kwargs}`."""
        for key in config:
            one_of("key of trainer", key, tuple(cls.__dataclass_fields__))
        given = config.get("augmentations", ())
        if not isinstance(given, (list, tuple)):
            raise UserError(f"`augmentations` must be a list, found {brief(given)}")
        augmentations = tuple(
            build(each, Augmentation, name=f"augmentations[{i}]") for i, each in enumerate(given)
        )
        averaging = config.get("averaging")
        if averaging is not None:
            averaging = build(averaging, Averaging, name="averaging")
        plateau = Plateau.of(config.get("plateau"))
        made = {"plateau": plateau, "augmentations": augmentations, "averaging": averaging}
        return cls(**{**config, **made})

    def plan(self, tasks: Sequence[str]) -> tuple[Phase, ...]:
        """The phases of a training of these tasks, at least one."""
        default = Phase(tuple(tasks), self.n_epochs, self.patience, self.learning_rate, self.selection)
        phases = schedule.plan(self.phases, tasks, default)
        for phase in phases:
            if self.averaging is not None:
                self.averaging.check(phase.epochs, phase.patience)
        return phases
