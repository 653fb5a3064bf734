"""How a search goes, as its file says it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qlib_ext.checks import LARGEST_SEED, UserError, at_least, brief, instance, integer, nearest, one_of
from qlib_ext.config.security import check_classes
from qlib_ext.files import load_yaml, read_text
from qlib_ext.records.validation import COST_BPS, FIGURES, TOPK
from qlib_ext.workflow.search.space import Space, Values

SAMPLERS = ("tpe", "random", "grid")
SEEDS = "seeds"  # of a rung
ENOUGH_SEEDS = 3
MOST_SEEDS, MOST_RUNGS, MOST_FACTOR = 100, 20, 100


@dataclass(frozen=True)
class Rung:
    """A step of the ladder that a trial climbs: how long, and with how many seeds, it is trained before it is judged.

    Attributes
    ----------
    values
        What is written into the workflow on this rung, by name, such as `N_EPOCHS`.
    seeds
        How many seeds are trained; the trial's value is their mean.
    """

    values: Values = dataclasses.field(default_factory=dict)
    seeds: int = 1

    @classmethod
    def of(cls, given: Any, where: str) -> Rung:
        """From a mapping such as `{N_EPOCHS: 10, seeds: 3}`."""
        if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
            raise UserError(
                f"`{where}` must be a mapping such as {{N_EPOCHS: 10, seeds: 3}}, found {brief(given)}"
            )
        values = {name: value for name, value in given.items() if name != SEEDS}
        return cls(values, integer(f"{where}.{SEEDS}", given.get(SEEDS, 1), 1, MOST_SEEDS))

    def __str__(self) -> str:
        parts = [f"{name.rpartition('.')[2]} {value}" for name, value in self.values.items()]
        return ", ".join([*parts, f"{self.seeds} seed{'s' if self.seeds > 1 else ''}"])


@dataclass(frozen=True)
class Plan:
    """A search, as a YAML file describes it.

    Parameters
    ----------
    space
        Name -> what it may be; see `qlib_ext.workflow.search.space.Parameter`.
    objective
        What is to be high on the days of validation: `rank_ic`, `rank_icir`, `ic`, `icir`, or of the portfolio of the `topk`
        highest scored `excess_return` (over all stocks at equal weight, after cost, a day) or `information_ratio`.
    label
        Raw label that scores are held against.
    topk, cost_bps
        Of that portfolio: stocks, and what a trade one way costs, in basis points.
    sampler
        `tpe` (Optuna's), `random` or `grid`.
    rungs
        What a trial climbs: from each rung the best 1 / `factor` of those that have come so far go on.
    factor
        See `rungs`.
    seed
        Of the sampler.
    seed_name
        The seed of the workflow: a variable or a path.

    Raises
    ------
    UserError
        If an argument is of another kind or out of its range, or a rung has fewer seeds than the one below.
    """

    space: Space
    objective: str = "rank_ic"
    label: str = "RETURN"
    topk: int = TOPK
    cost_bps: float = COST_BPS
    sampler: str = "tpe"
    rungs: tuple[Rung, ...] = (Rung(), Rung(seeds=ENOUGH_SEEDS))
    factor: int = 3
    seed: int = 0
    seed_name: str = "task.model.kwargs.seed"

    def __post_init__(self) -> None:
        one_of("objective", self.objective, FIGURES)
        instance("label", self.label, str)
        integer("topk", self.topk, 1)
        at_least("cost_bps", self.cost_bps, 0)
        one_of("sampler", self.sampler, SAMPLERS)
        integer("factor", self.factor, 2, MOST_FACTOR)
        integer("seed", self.seed, 0, LARGEST_SEED)
        instance("seed_name", self.seed_name, str)
        searched = {parameter.name for parameter in self.space}
        for name in {self.seed_name, *(name for rung in self.rungs for name in rung.values)} & searched:
            raise UserError(
                f"`space` must not hold `{name}`, which `rungs` and `seed_name` set: search something else"
            )
        for k, (lower, upper) in enumerate(zip(self.rungs[:-1], self.rungs[1:], strict=True), start=1):
            if upper.seeds < lower.seeds or (upper.seeds == lower.seeds and upper.values == lower.values):
                raise UserError(
                    f"`rungs[{k}]` must ask for more than the rung before it, found {upper} after {lower}"
                )

    @classmethod
    def of(cls, given: Any) -> Plan:
        """From the mapping of a file."""
        fields = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(given, Mapping) or "space" not in given:
            raise UserError(
                f"a space file must be a mapping with `space`, and where needed {', '.join(fields[1:])}; found {brief(given)}"
            )
        for key in given:
            if key not in fields:
                raise UserError(
                    f"a space file has no place for `{key}`{nearest(str(key), fields)}; it takes {', '.join(fields)}"
                )
        arguments = {**given, "space": Space.of(given["space"])}
        if "rungs" in given:
            rungs = given["rungs"]
            if not isinstance(rungs, (list, tuple)) or not 1 <= len(rungs) <= MOST_RUNGS:
                raise UserError(
                    f"`rungs` must be a list such as [{{N_EPOCHS: 3}}, {{N_EPOCHS: 20, seeds: 3}}], found {brief(rungs)}"
                )
            arguments["rungs"] = tuple(Rung.of(rung, f"rungs[{k}]") for k, rung in enumerate(rungs))
        return cls(**arguments)

    @classmethod
    def read(cls, path: Path) -> Plan:
        """From a YAML file.

        Raises
        ------
        UserError
            If it cannot be read, or describes no search.
        """
        try:
            given = load_yaml(read_text(path))
        except UserError:
            raise
        except (OSError, ValueError) as error:
            raise UserError(f"the space file `{path}` cannot be read: {error}") from error
        plan = cls.of(given)
        check_classes(given, f"space file {path.name}")
        return plan

    @property
    def last(self) -> Rung:
        """The rung on which trials are told apart in the end."""
        return self.rungs[-1]

    def identity(self) -> dict[str, Any]:
        """What decides which trials there are and what they are worth, ready for JSON."""
        return dataclasses.asdict(dataclasses.replace(self, space=Space(self.space)))
