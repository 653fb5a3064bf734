"""A portfolio: what is expected, what is risked and what is allowed, put together day by day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qlib_ext.checks import UserError, above, between, brief, counted, instance, integer, one_of
from qlib_ext.config.build import build
from qlib_ext.market.store import QlibStore
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.allocation import Allocation, Decision
from qlib_ext.portfolio.constraints.base import Constraint
from qlib_ext.portfolio.constraints.limits import Linear
from qlib_ext.portfolio.expected_returns.base import ExpectedReturns
from qlib_ext.portfolio.expected_returns.no_forecast import NoForecast
from qlib_ext.portfolio.known_day import Bools, KnownDay
from qlib_ext.portfolio.market_history import BENCHMARKS
from qlib_ext.portfolio.nearest import nearest as nearest_allowed
from qlib_ext.portfolio.optimisers.base import Optimiser
from qlib_ext.portfolio.problem import TOLERANCE, Infeasible, Problem
from qlib_ext.portfolio.relaxing import Relaxed, check_order, joined, settle
from qlib_ext.portfolio.risk import Risk
from qlib_ext.portfolio.risk_models.base import RiskModel
from qlib_ext.portfolio.risk_models.covariance import Covariance

BROKEN = 100 * TOLERANCE  # what a limit may be missed by without a word
LEAVERS = "leavers"
LEDOIT_WOLF = {"class": "skfolio.moments.LedoitWolf"}


@dataclass(frozen=True)
class Costs:
    """What trading costs in the objective.

    Attributes
    ----------
    buy, sell
        Share of a trade's value.
    holding_days
        Trading days that a stock is held, over which its cost is spread: expected returns are of a day.
    """

    buy: float
    sell: float
    holding_days: float

    @classmethod
    def of(cls, given: Mapping[str, Any] | Costs | None) -> Costs:
        """From a mapping `{buy, sell, holding_days}`; none for None.

        Raises
        ------
        UserError
            If a key is missing or unknown, or a number out of its range.
        """
        if isinstance(given, Costs):
            return given
        if given is None:
            return cls(0.0, 0.0, 1.0)
        if not isinstance(given, Mapping) or {*given} != {"buy", "sell", "holding_days"}:
            raise UserError(f"`costs` must be a mapping of buy, sell and holding_days, found {brief(given)}")
        return cls(
            between("costs.buy", given["buy"], 0, 1, open_high=True),
            between("costs.sell", given["sell"], 0, 1, open_high=True),
            above("costs.holding_days", given["holding_days"], 0),
        )


class Portfolio(Allocation):
    """Target weights from what is known at a close.

    Each day the risk model says what is risked, the expected returns what there is to gain, constraints come to bounds and
    limits, and the optimiser finds the best weights within. Weights of an optimiser that does not know a limit are moved to the
    nearest that keep to all, by the risk model. Where no weights do, limits give way in the stated order, each by as little as
    possible, and the day says which. Where some do and the optimiser finds none, the allowed weights nearest to what is held are
    taken, and the day says why. Who cannot be sold keeps its weight, and who cannot be bought gets no more; what left the
    universe is sold, or bought back where it is held short.

    Parameters
    ----------
    optimiser, risk_model, expected_returns
        `{class, kwargs}` or objects. By default the Ledoit-Wolf covariance of 250 days, and no forecast.
    constraints
        A list of them.
    costs
        `{buy, sell, holding_days}`: what trades cost in the objective, for optimisers that take it; None leaves them out.
    invested
        Share of the account that is invested, in (0, 1], where no constraint says it.
    benchmark
        What deviations are measured from: `equal`, the universe at equal weight, or `value`, by market value.
    index
        Code of the index that betas are to; None for the mean of the stocks.
    relax
        Names of the constraints that may give way, the first first; `cash` is the share that is invested. Those not named never
        do. That what left the universe is sold gives way before all.
    horizon
        `[first, days]`: a score of day s foretells the return from the close of s + `first` over `days` days.
    min_trade
        Smallest change of a weight that is traded, unless a holding is sold whole.

    Raises
    ------
    UserError
        If an argument does not fit, `relax` names a constraint that is not there, two constraints have one name, or two leave
        nothing to invest.
    """

    def __init__(
        self,
        optimiser: Mapping[str, Any] | Optimiser,
        risk_model: Mapping[str, Any] | RiskModel | None = None,
        expected_returns: Mapping[str, Any] | ExpectedReturns | None = None,
        constraints: Sequence[Mapping[str, Any] | Constraint] = (),
        costs: Mapping[str, Any] | Costs | None = None,
        invested: float = 0.95,
        benchmark: str = "equal",
        index: str | None = None,
        relax: Sequence[str] = (),
        horizon: Sequence[int] = (1, 1),
        min_trade: float = 0.0,
    ) -> None:
        self.optimiser = build(optimiser, Optimiser, name="optimiser")
        self.risk_model = (
            Covariance(LEDOIT_WOLF) if risk_model is None else build(risk_model, RiskModel, name="risk_model")
        )
        self.expected_returns = (
            NoForecast()
            if expected_returns is None
            else build(expected_returns, ExpectedReturns, name="expected_returns")
        )
        asks = self.optimiser.needs_forecast
        if asks is not None and isinstance(self.expected_returns, NoForecast):
            raise UserError(
                f"{asks} needs expected returns, and the portfolio has none: name a model of them under `expected_returns`, or "
                "take an optimiser of risk alone"
            )
        if isinstance(constraints, (str, Mapping)):
            raise UserError(f"`constraints` must be a list of them, found {brief(constraints)}")
        self.constraints = [
            build(one, Constraint, name=f"constraints[{k}]") for k, one in enumerate(constraints)
        ]
        names = [one.name for one in self.constraints]
        for name in names:
            if names.count(name) > 1 or name == LEAVERS:
                raise UserError(
                    f"`constraints` must have names of their own, found {name} twice: give one a `name`"
                )
        self.shorts = any(one.shorts for one in self.constraints)
        self.costs = Costs.of(costs)
        self.invested = float(between("invested", invested, 0, 1, open_low=True))
        self.benchmark = one_of("benchmark", benchmark, BENCHMARKS)
        self.index = None if index is None else instance("index", index, str)
        self.relax = (LEAVERS, *check_order(relax, self.constraints))
        if not isinstance(horizon, (list, tuple)) or len(horizon) != 2:
            raise UserError(f"`horizon` must be two numbers, first and days, found {brief(horizon)}")
        first, days = horizon
        self.horizon = integer("horizon[0]", first, 0), integer("horizon[1]", days, 1)
        self.min_trade = float(between("min_trade", min_trade, 0, 1))
        least, most = self._invested()
        if least > most:
            raise UserError(
                f"`constraints` leave nothing to invest: one asks for at least {least:.1%} of the account, and another for at "
                f"most {most:.1%}"
            )

    @property
    def days_back(self) -> int:
        """Days of the market that a decision looks back over."""
        own = (self.optimiser.days_back, self.risk_model.days_back, self.expected_returns.days_back)
        return max(*own, *(one.days_back for one in self.constraints)) + sum(self.horizon)

    @property
    def asks(self) -> set[str]:
        """Names of the side data that no decision can do without."""
        return super().asks.union(self.expected_returns.asks, *(one.asks for one in self.constraints))

    def check_store(self, store: QlibStore) -> None:
        """Raise a UserError where a constraint names what the store and the risk model cannot have."""
        factors = self.risk_model.factors(store)
        for one in self.constraints:
            one.check_store(store, factors)

    def decide(self, known: KnownDay) -> Decision:
        """Weights for a day.

        Raises
        ------
        UserError
            If something that a part needs is not known of the market.
        """
        risk, told = self.risk_model.estimate(known)
        expected = self.expected_returns.estimate(known, risk)
        if self.optimiser.needs_forecast and (expected is None or not np.any(np.nan_to_num(expected))):
            told = [*told, "nothing is expected of any stock yet: risk alone decides"]
        inside = risk.known
        if not inside.any():
            said = "the risk of no stock is known: the account stays as it is"
            return Decision(known, known.held, risk, expected, told=(*told, said), kept=True)
        # Of what nothing is known, a holding stays; unless it left the universe.
        closable = np.where(known.held < 0, known.buyable, known.sellable)
        left = ~inside & ~np.isfinite(known.score) & closable
        weights = np.where(inside | left, 0.0, known.held)
        problem, more = self._problem(known, risk, expected, float(weights.sum()))
        told = [*told, *more]
        try:
            found, moved, problem, relaxed, more = self._solve(problem)
        except Infeasible as error:
            said = f"no weights were found, and the account stays as it is: {error}"
            return Decision(known, known.held, risk, expected, told=(*told, said), kept=True)
        weights[inside] = found
        told += [*(one.words for one in relaxed), *more]
        missed = problem.broken(found, BROKEN)
        if missed:
            told.append(f"the solver's weights miss by more than its rounding: {', '.join(missed)}")
        if found.sum() < self._invested()[0] - float(weights[~inside].sum()) - 10 * TOLERANCE:
            told.append(f"only {weights.sum():.2%} of the account could be invested")
        return Decision(known, weights, risk, expected, tuple(relaxed), moved, tuple(told), problem=problem)

    def _invested(self) -> tuple[float, float]:
        """Least and most that is invested, as shares of the account."""
        said = [share for one in self.constraints if (share := one.invested()) is not None]
        if not said:
            return self.invested, self.invested
        return max(least for least, _ in said), min(most for _, most in said)

    def _problem(
        self, known: KnownDay, risk: Risk, expected: Floats | None, outside: float
    ) -> tuple[Problem, list[str]]:
        """The problem of the stocks whose risk is known, beside what is held of the others."""
        inside = risk.known
        day, own = known.take(inside), risk.take(inside)
        told = [note for one in self.constraints for note in one.notes(day, own)]
        boxes = [box for one in self.constraints if (box := one.box(day)) is not None]
        limits = [limit for one in self.constraints for limit in one.limits(day, own)]
        nothing = np.full(len(day.codes), -np.inf)
        lower = np.max([nothing, *(box.low for box in boxes)], axis=0)
        if not self.shorts:
            lower = np.maximum(lower, 0.0)
        upper = np.min([-nothing, *(box.high for box in boxes)], axis=0)
        forecasts, buyable = None, day.buyable
        leaving = ~np.isfinite(day.score) & (day.held != 0)
        if expected is not None:
            lacking = ~np.isfinite(expected[inside])
            # Nothing is bought, nor sold short, of what nothing is expected of.
            buyable = buyable & ~lacking
            lower = np.where(lacking, np.maximum(lower, np.minimum(day.held, 0.0)), lower)
            worst = np.where(
                day.held < 0,
                np.nanmax(expected[inside], initial=0.0),
                np.nanmin(expected[inside], initial=0.0),
            )
            forecasts = np.where(lacking, worst, expected[inside])
        covered = (day.held < 0) & day.buyable  # a purchase that ends a short sale is always allowed
        # The exchange's word comes before any constraint.
        lower, upper = reachable(lower, upper, day.held, buyable | covered, day.sellable)
        lower, upper = towards_none(lower, upper, day.held, leaving | (~buyable & covered))
        if leaving.any():
            limits.append(_sold(leaving, day.held, lower, upper))
        stuck = ~day.sellable & (day.held != 0)
        if stuck.any():
            what = counted(int(stuck.sum()), "holding")
            told.append(f"{what} that cannot be sold: {day.held[stuck].sum():.2%} of the account")
        least, most_invested = (share - outside for share in self._invested())
        cost = self.costs
        problem = Problem(
            known=day,
            expected=forecasts,
            risk=own,
            lower=lower,
            upper=upper,
            invested=most_invested,
            limits=tuple(limits),
            buy_cost=cost.buy / cost.holding_days,
            sell_cost=cost.sell / cost.holding_days,
            boxes=tuple(boxes),
            least_invested=least if least < most_invested else None,
        )
        return within_reach(problem), told

    def _solve(self, problem: Problem) -> tuple[Floats, float, Problem, list[Relaxed], list[str]]:
        """Allowed weights, how far the optimiser's own were from them, what gave way, and what else is to be told."""
        found, moved, problem, relaxed, told = self._settled(problem)
        for _ in range(problem.count):  # each time a stock less, at least
            kept = np.ones(problem.count, dtype=bool)
            for constraint in self.constraints:
                some = constraint.kept(found, problem.known)
                kept &= True if some is None else some
            if not ((np.abs(found) > TOLERANCE) & ~kept & (problem.lower <= TOLERANCE)).any():
                break
            found, moved, problem, more, told = self._settled(within_reach(problem.only(kept)))
            relaxed = joined(relaxed, more)
        return found, moved, problem, relaxed, told

    def _settled(self, problem: Problem) -> tuple[Floats, float, Problem, list[Relaxed], list[str]]:
        relaxed: list[Relaxed] = []
        try:
            return *self._allowed(problem), problem, relaxed, []
        except Infeasible as error:
            why = error
        problem, relaxed = settle(problem, self.relax)
        if relaxed:
            try:
                return *self._allowed(problem), problem, relaxed, []
            except Infeasible as error:
                why = error
        # Some weights keep to all limits, and the optimiser has a reason of its own to find none.
        instead = nearest_allowed(problem, problem.known.held)
        said = f"{why}: of the weights that keep to all limits, those nearest to what is held are taken"
        return instead, 0.0, problem, relaxed, [said]

    def _allowed(self, problem: Problem) -> tuple[Floats, float]:
        own = self.optimiser.solve(problem)
        if not problem.broken(own):
            return own, 0.0
        allowed = nearest_allowed(problem, own)
        return allowed, problem.risk.volatility(allowed - own)


def _sold(leaving: Bools, held: Floats, lower: Floats, upper: Floats) -> Linear:
    """What left the universe goes to the weight nearest to none that it can have."""
    row = np.where(leaving, np.sign(held), 0.0)
    most = np.array([row @ np.where(leaving, np.clip(0.0, lower, upper), 0.0)])
    return Linear(LEAVERS, "what left the universe is sold", row[None], np.array([-np.inf]), most)


def towards_none(lower: Floats, upper: Floats, held: Floats, some: Bools) -> tuple[Floats, Floats]:
    """Bounds `[N]` that let some stocks go no further from 0 than they are held, and not beyond it."""
    least, most = np.minimum(held, 0.0), np.maximum(held, 0.0)
    return np.where(some, np.clip(lower, least, most), lower), np.where(
        some, np.clip(upper, least, most), upper
    )


def within_reach(problem: Problem) -> Problem:
    """The problem with no more, and no less, to be invested than its bounds let be."""
    leaving = [limit for limit in problem.limits if limit.name == LEAVERS and isinstance(limit, Linear)]
    upper = problem.upper
    for limit in leaving:
        upper = np.where(limit.matrix[0] > 0, problem.lower, upper)
    most = max(min(problem.invested, float(upper.sum())), float(problem.lower.sum()))
    least = problem.least_invested
    return replace(problem, invested=most, least_invested=None if least is None or least >= most else least)


def reachable(
    lower: Floats, upper: Floats, held: Floats, buyable: Bools, sellable: Bools
) -> tuple[Floats, Floats]:
    """Bounds that the exchange allows: who cannot be sold keeps its weight, who cannot be bought gets no more.

    All `[N]`. A bound that is out of reach gives way: a holding beyond its largest weight that cannot be sold stays.
    """
    lower = np.where(sellable, lower, np.maximum(lower, held))
    upper = np.maximum(upper, lower)
    upper = np.where(buyable, upper, np.minimum(upper, held))
    return np.minimum(lower, upper), upper
