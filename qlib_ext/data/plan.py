"""How a workflow cuts its days into many trainings, as its segments say it: what every such plan has."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import pandas as pd

from qlib_ext.checks import UserError, brief, integer, nearest, one_of
from qlib_ext.data.days import as_day

MOST_WORKERS = 256

Days = tuple[pd.Timestamp, pd.Timestamp]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `segments: {<name>: {...}}` says of many trainings.

    Parameters
    ----------
    start, end
        First and last day that is scored. By default all there are.
    embargo
        Trading days that are kept apart beyond those that a label reaches ahead.
    resume
        Take trainings that earlier runs have finished with the same configuration, data and version; train the others.
    workers
        Trainings side by side, each in a process of its own.
    ray
        Where on Ray they are trained, as `qlib_ext.model.trainings.side_by_side.Places` takes it; None for processes of this
        machine.

    Raises
    ------
    UserError
        If an argument is of another kind.
    """

    name: ClassVar[str]
    example: ClassVar[str]

    start: Any = None
    end: Any = None
    embargo: int = 0
    resume: bool | int = False
    workers: int = 1
    ray: Any = None

    @classmethod
    def of(cls, given: Any) -> Self:
        """From a workflow's mapping; a UserError names the nearest of an unknown key."""
        name = f"segments.{cls.name}"
        fields = dataclasses.fields(cls)
        known = [field.name for field in fields]
        if not isinstance(given, Mapping):
            raise UserError(f"`{name}` must be a mapping such as {cls.example}, found {brief(given)}")
        for key in given:
            if key not in known:
                raise UserError(
                    f"`{name}` has no place for `{key}`{nearest(str(key), known)}; it takes {', '.join(known)}"
                )
        for field in fields:
            if field.default is dataclasses.MISSING and field.name not in given:
                raise UserError(
                    f"`{name}` must have `{field.name}`, as in {cls.example}, found {', '.join(given) or 'nothing'}"
                )
        return cls(**given)

    def __post_init__(self) -> None:
        integer(f"{self.name}.embargo", self.embargo, 0)
        one_of(f"{self.name}.resume", self.resume, (0, 1))
        integer(f"{self.name}.workers", self.workers, 1, MOST_WORKERS)
        for name in ("start", "end"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, as_day(f"{self.name}.{name}", getattr(self, name)))
        if self.start is not None and self.end is not None and self.start > self.end:
            raise UserError(
                f"`{self.name}.start` must not lie after `end`, found {self.start:%Y-%m-%d} and {self.end:%Y-%m-%d}"
            )
