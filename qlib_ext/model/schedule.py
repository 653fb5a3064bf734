"""Which tasks a training trains when, and how its learning rate falls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from qlib_ext.checks import UserError, above, at_least, between, brief, integer, one_of
from qlib_ext.model.selection import SELECTIONS

ALL = "all"
LARGEST_RATE = 1_000.0  # of learning
SCORE = "score"  # the task that ranks stocks; `rank_ic` and `authors` measure it


@dataclass(frozen=True)
class Phase:
    """A part of a training: some of its tasks, trained until they get no better.

    Attributes
    ----------
    tasks
        Names of the tasks that are trained.
    epochs
        Epochs at most.
    patience
        The phase ends after this many epochs without a better validation score.
    learning_rate
        Of Adam, when the phase begins.
    selection
        What its validation score is; see `TrainerOptions`.
    """

    tasks: tuple[str, ...]
    epochs: int
    patience: int
    learning_rate: float
    selection: str

    def is_over(self, first_epoch: int, epoch: int, best_epoch: int) -> bool:
        """Whether it ends after `epoch` epochs, if it began at `first_epoch` and its best is `best_epoch` (-1: none)."""
        since_best = epoch - (best_epoch + 1 if best_epoch >= 0 else first_epoch)
        return epoch - first_epoch >= self.epochs or since_best >= self.patience


KEYS = tuple(Phase.__dataclass_fields__)


def plan(
    phases: Sequence[Mapping[str, Any]] | None, tasks: Sequence[str], default: Phase
) -> tuple[Phase, ...]:
    """Turn the `phases` of a workflow into those of a training, every argument checked.

    Parameters
    ----------
    phases
        Mappings with `tasks` (a list of names, or `all`) and, where it differs from the default, `epochs`, `patience`,
        `learning_rate` or `selection`. None: one phase, the default.
    tasks
        Names of all tasks.
    default
        What a phase does not say.

    Raises
    ------
    UserError
        If a phase names an unknown task, a task twice or none, has an unknown key or a value out of range, or is to be
        chosen by a score of the task `score` and does not train it.
    """
    if phases is None:
        return (default,)
    found = tuple(
        _phase(_checked(phase, f"phases[{i}]"), f"phases[{i}]", tasks, default)
        for i, phase in enumerate(phases)
    )
    never = [name for name in tasks if not any(name in phase.tasks for phase in found)]
    if never:
        raise UserError(
            f"`phases` must train every task, found none with {', '.join(never)}: add a phase, or take the task out of "
            "the workflow"
        )
    return found


def check(phases: object) -> None:
    """Check what of `phases` can be checked before the tasks are known."""
    if phases is None:
        return
    if not isinstance(phases, (list, tuple)) or not phases:
        raise UserError(f"`phases` must be a list of at least 1 phase, found {brief(phases)}")
    for i, phase in enumerate(phases):
        _checked(phase, f"phases[{i}]")


def identity(phases: Sequence[Phase]) -> list[dict[str, Any]]:
    """What of the phases decides the weights, ready for JSON: not how long the last one may go on."""
    described = [asdict(phase) for phase in phases]
    del described[-1]["epochs"]
    return described


@dataclass(frozen=True)
class Plateau:
    """Lower the learning rate where the validation score gets no better.

    Attributes
    ----------
    factor
        What the learning rate is multiplied by, in (0, 1).
    patience
        Epochs without a better validation score that are let pass first; the next one lowers it.
    min_learning_rate
        It falls no lower.
    """

    factor: float = 0.5
    patience: int = 5
    min_learning_rate: float = 0.0

    def __post_init__(self) -> None:
        between("plateau.factor", self.factor, 0, 1, open_low=True, open_high=True)
        integer("plateau.patience", self.patience, 0)
        at_least("plateau.min_learning_rate", self.min_learning_rate, 0)

    @classmethod
    def of(cls, config: object) -> Plateau | None:
        """Of a workflow's mapping; None for None."""
        if config is None:
            return None
        if not isinstance(config, Mapping):
            raise UserError(f"`plateau` must be a mapping, found {brief(config)}")
        for key in config:
            one_of("key of plateau", key, tuple(cls.__dataclass_fields__))
        return cls(**config)

    def scheduler(self, optimizer: Optimizer) -> ReduceLROnPlateau:
        """The scheduler of torch, to be given the validation score after every epoch.

        Better is what the trainer calls better: higher at all.
        """
        return ReduceLROnPlateau(
            optimizer,
            mode="max",
            factor=self.factor,
            patience=self.patience,
            threshold=0.0,
            threshold_mode="abs",  # torch's relative one would misread scores below 0
            min_lr=self.min_learning_rate,
        )


def _checked(phase: object, where: str) -> Mapping[str, Any]:
    if not isinstance(phase, Mapping) or "tasks" not in phase:
        raise UserError(f"`{where}` must be a mapping with `tasks`, found {brief(phase)}")
    for key in phase:
        one_of(f"key of {where}", key, KEYS)
    if "epochs" in phase:
        integer(f"{where}.epochs", phase["epochs"], 1)
    if "patience" in phase:
        integer(f"{where}.patience", phase["patience"], 1)
    if "learning_rate" in phase:
        above(f"{where}.learning_rate", phase["learning_rate"], 0, LARGEST_RATE)
    if "selection" in phase:
        one_of(f"{where}.selection", phase["selection"], SELECTIONS)
    return phase


def _phase(given: Mapping[str, Any], where: str, tasks: Sequence[str], default: Phase) -> Phase:
    wanted = given["tasks"]
    if wanted != ALL:
        if not isinstance(wanted, (list, tuple)) or not wanted:
            raise UserError(f"`{where}.tasks` must be a list of tasks or `{ALL}`, found {brief(wanted)}")
        for name in wanted:
            one_of(f"{where}.tasks", name, tasks)
        if len(set(wanted)) < len(wanted):
            raise UserError(f"`{where}.tasks` must name each task once, found {', '.join(wanted)}")
    names = tuple(tasks) if wanted == ALL else tuple(name for name in tasks if name in wanted)
    phase = Phase(**{**asdict(default), **given, "tasks": names})
    if phase.selection != "loss" and SCORE not in names:
        raise UserError(
            f"`{where}` trains {', '.join(names)} and not `{SCORE}`, which the selection `{phase.selection}` measures: "
            "give it `selection: loss`"
        )
    return phase
