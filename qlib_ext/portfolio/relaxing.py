"""Where no weights keep to all limits of a day: which of them conflict, and which give way, by how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cvxpy as cp
import numpy as np

from qlib_ext.checks import UserError, nearest, words
from qlib_ext.portfolio.constraints.base import Constraint
from qlib_ext.portfolio.constraints.limits import Box, Limit, Linear, Weights, percent
from qlib_ext.portfolio.problem import TOLERANCE, Infeasible, Problem
from qlib_ext.portfolio.solving import least, minimise, share

CASH = "cash"  # the name of the invested share
SPARE = 1e-3  # of what a limit gives way by: so that there is a choice within it


@dataclass(frozen=True)
class Relaxed:
    """A limit that gave way.

    Attributes
    ----------
    name
        Of the constraint.
    was, became
        The limit before and after, in words.
    before, after
        The bound as it was stated and as it was widened, as it is said; a deviation's by the year.
    """

    name: str
    was: str
    became: str
    before: float
    after: float

    @property
    def words(self) -> str:
        """What it was and what it became, as a sentence."""
        return f"{self.was} gave way to {self.became}"

    def then(self, later: Relaxed) -> Relaxed:
        """The two as one, of a limit that gave way twice in a day."""
        return replace(self, became=later.became, after=later.after)

    def goes_on(self, later: Relaxed) -> bool:
        """Whether another is of the same limit, which gave way again."""
        return self.name == later.name and (self.name == CASH or self.became == later.was)


def joined(relaxed: Sequence[Relaxed], more: Sequence[Relaxed]) -> list[Relaxed]:
    """What gave way, and what did later on the same day: a limit that did twice once, from what it was to what it came to."""
    found = list(relaxed)
    for later in more:
        places = [at for at, one in enumerate(found) if one.goes_on(later)]
        if places:
            found[places[0]] = found[places[0]].then(later)
        else:
            found.append(later)
    return found


def check_order(order: Sequence[str], constraints: Sequence[Constraint]) -> tuple[str, ...]:
    """Return the order of relaxing if it names constraints that are there, or the share that is invested.

    Raises
    ------
    UserError
        If it names another, or one twice.
    """
    known = {CASH, *(constraint.name for constraint in constraints)}
    for name in words("relax", order):
        if name not in known:
            raise UserError(
                f"`relax` must name constraints of the portfolio, {', '.join(sorted(known))}; found {name!r}"
                f"{nearest(name, sorted(known))}"
            )
    return tuple(order)


def settle(problem: Problem, order: Sequence[str]) -> tuple[Problem, list[Relaxed]]:
    """The problem with limits as much wider as it takes for some weights to keep to all.

    The first of the order gives way alone, if that is enough; else the first two, and so on. Of those that may give way
    the last of the order gives way by as little as possible, then the one before it, up to the first. So what comes late in
    the order gives way late and little, and what is not in it never does; neither do bounds of stocks that cannot be traded.

    Parameters
    ----------
    problem
        What is asked.
    order
        Names of constraints; `cash` is the share that is invested.

    Returns
    -------
    The problem, as it is where some weights keep to all of it, and what gave way.

    Raises
    ------
    Infeasible
        If no weights keep to the limits even so: the message says which of them conflict.
    """
    if _has_weights(problem):
        return problem, []
    for count in range(1, len(order) + 1):
        found = _give_way(problem, order[:count])
        if found is not None:
            return found
    raise Infeasible(conflict_in_words(problem, order))


def conflict(problem: Problem) -> list[Limit]:
    """Limits that no weights keep to all of, but weights do to any of them less one; empty where nothing conflicts.

    Source: Junker, "QuickXplain: Preferred explanations and relaxations for over-constrained problems", AAAI 2004.

    Notes
    -----
    There may be several such sets; this is one. Limits that a user set, and rows of them, are looked at before what the
    exchange forbids.
    """
    pieces = _Pieces.of(problem)
    parts = [
        part for limit in (*pieces.limits[1:], pieces.limits[0]) for part in limit.parts()
    ] + pieces.exchange
    whole = [pieces.bounds, *parts]
    return [] if _feasible(whole) or not _feasible(whole[:1]) else _shrink(whole[:1], [], parts)


def conflict_in_words(problem: Problem, order: Sequence[str] = ()) -> str:
    """Which limits conflict, as a sentence.

    Parameters
    ----------
    problem
        What is asked.
    order
        Names of constraints that may give way as far as it takes, and do not help.
    """
    rest = replace(problem, limits=tuple(limit for limit in problem.limits if limit.name not in order))
    said = " and ".join(limit.words for limit in conflict(rest) or conflict(problem))
    if not said:
        return "no weights keep within the bounds of the single stocks"
    return f"{said} cannot all be kept" + (f", whatever gives way of {', '.join(order)}" if order else "")


# -- a problem as limits -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pieces:
    """A problem taken apart.

    Attributes
    ----------
    bounds
        The bounds that no constraint set.
    limits
        The invested share, the boxes and the limits of the problem; each may give way.
    exchange
        What cannot be sold, a limit a stock, and what cannot be bought.
    """

    bounds: Box
    limits: list[Limit]
    exchange: list[Limit]

    @classmethod
    def of(cls, problem: Problem) -> _Pieces:
        """A constraint's bound does not hold of a stock that lies outside of it since it cannot be traded."""
        stuck, shut = _stuck(problem), _shut(problem)
        lower = np.where(stuck, np.minimum(problem.lower, 0.0), problem.lower)
        upper = np.where(shut, np.inf, problem.upper)
        boxes = list[Limit]()
        for box in problem.boxes:
            low = np.where(box.low > problem.lower + TOLERANCE, -np.inf, box.low)
            high = np.where(box.high < problem.upper - TOLERANCE, np.inf, box.high)
            lower = np.where((low > 0) & (low > problem.lower - TOLERANCE), 0.0, lower)
            upper = np.where((high > 0) & (high < problem.upper + TOLERANCE), np.inf, upper)
            boxes.append(replace(box, low=low, high=high))
        bounds = Box("bounds", "bounds of the weights", lower, upper)
        return cls(bounds, [share(problem), *boxes, *problem.limits], _untradable(problem, stuck, shut))

    def with_limits(self, problem: Problem, limits: Sequence[Limit]) -> Problem:
        """The problem with others in the place of these limits, but for the invested share."""
        boxes = [limit for limit in limits[1:] if isinstance(limit, Box)]
        lower = np.where(_stuck(problem), problem.lower, self.bounds.low)
        upper = np.where(_shut(problem), problem.upper, self.bounds.high)
        return replace(
            problem,
            lower=np.max([lower, *(box.low for box in boxes)], axis=0),
            upper=np.min([upper, *(box.high for box in boxes)], axis=0),
            boxes=tuple(boxes),
            limits=tuple(limit for limit in limits[1:] if not isinstance(limit, Box)),
        )


def _stuck(problem: Problem) -> np.ndarray:
    """`[N]`: held, cannot be sold, and bound to stay."""
    known = problem.known
    return ~known.sellable & (known.held > 0) & (np.abs(problem.lower - known.held) < TOLERANCE)


def _shut(problem: Problem) -> np.ndarray:
    """`[N]`: cannot be bought, and bound not to be."""
    known = problem.known
    return ~known.buyable & (np.abs(problem.upper - np.maximum(known.held, 0.0)) < TOLERANCE)


def _untradable(problem: Problem, stuck: np.ndarray, shut: np.ndarray) -> list[Limit]:
    known, found = problem.known, list[Limit]()
    for at in np.flatnonzero(stuck):
        held = f"{known.codes[at]} held at {percent(known.held[at])} (cannot be sold)"
        row = (np.arange(problem.count) == at).astype(np.float64)[None]
        most = problem.upper[[at]] if shut[at] else np.array([np.inf])
        found.append(
            Linear("exchange", held, row, problem.lower[[at]], np.maximum(problem.lower[[at]], most))
        )
    others = shut & ~stuck
    if others.any():
        # As equations where nothing is held: a method of inner points needs room between two bounds.
        low = np.where(others & (problem.upper == 0) & (problem.lower == 0), 0.0, -np.inf)
        high = np.where(others, problem.upper, np.inf)
        said = f"no purchase of {int(others.sum())} of {problem.count} stocks (cannot be bought)"
        found.append(Box("exchange", said, low, high))
    return found


# -- a set that conflicts ------------------------------------------------------------------------------------------------


def _shrink(hard: list[Limit], added: list[Limit], parts: list[Limit]) -> list[Limit]:
    """Those of the parts that conflict with the hard limits, the first of which is a box; `added` are the newest of these."""
    if added and not _feasible(hard):
        return []
    if len(parts) == 1:
        return parts
    first, second = parts[: len(parts) // 2], parts[len(parts) // 2 :]
    of_second = _shrink(hard + first, first, second)
    of_first = _shrink(hard + of_second, of_second, first)
    return of_first + of_second


def _feasible(limits: Sequence[Limit]) -> bool:
    bounds = limits[0]
    assert isinstance(bounds, Box)
    weights = Weights(len(bounds.low))
    said = [each for limit in limits for each in limit.expressions(weights)]
    try:
        minimise(cp.Constant(0), said, weights)
    except Infeasible:
        return False
    return True


def _has_weights(problem: Problem) -> bool:
    try:
        least(problem, lambda _: cp.Constant(0))
    except Infeasible:
        return False
    return True


# -- giving way ----------------------------------------------------------------------------------------------------------


def _give_way(problem: Problem, names: Sequence[str]) -> tuple[Problem, list[Relaxed]] | None:
    """The problem with the limits of some names wider; None where no weights keep to it, however wide they are."""
    pieces = _Pieces.of(problem)
    parts = [limit.parts() for limit in pieces.limits]
    flat = [part for each in parts for part in each]
    soft = {limit: cp.Variable(nonneg=True) for limit in flat if limit.name in names}
    if not soft:
        return None
    weights = Weights(problem.count)
    said = [
        each
        for limit in (pieces.bounds, *flat, *pieces.exchange)
        for each in limit.expressions(weights, soft.get(limit, 0.0))
    ]
    try:
        for name in reversed(names):
            own = [slack for limit, slack in soft.items() if limit.name == name]
            if own:
                given = cp.sum(cp.hstack(own))
                fewest = minimise(given, said, weights)
                said.append(given <= max(fewest, 0.0) * (1 + SPARE / 10) + TOLERANCE / 10)
    except Infeasible:
        return None
    ways = [np.array([_way(soft.get(limit)) for limit in each]) for each in parts]
    wider = [limit.widened(by) if by.any() else limit for limit, by in zip(pieces.limits, ways, strict=True)]
    settled = _with_share(
        pieces.with_limits(problem, wider), float(weights.value.sum()), float(ways[0].max())
    )
    wider[0] = share(settled)
    told = [
        Relaxed(
            before.name,
            before.words,
            after.words,
            before.bound(weights.value),
            after.bound(weights.value),
        )
        for old, new, each in zip(parts, wider, ways, strict=True)
        for before, after, by in zip(old, new.parts(), each, strict=True)
        if by > 0
    ]
    return settled, sorted(told, key=lambda one: names.index(one.name))


def _with_share(problem: Problem, total: float, by: float) -> Problem:
    """The problem with more or less invested, to the side on which a sum of weights lies."""
    if not by:
        return problem
    if problem.least_invested is None:
        return replace(problem, invested=problem.invested + np.sign(total - problem.invested) * by)
    if total > problem.invested:
        return replace(problem, invested=problem.invested + by)
    return replace(problem, least_invested=problem.least_invested - by)


def _way(slack: cp.Variable | None) -> float:
    """What a limit is widened by for the slack that was found; what is less than the solver's rounding is none."""
    found = 0.0 if slack is None else float(slack.value)
    return found * (1 + SPARE) + TOLERANCE if found > TOLERANCE / 10 else 0.0
