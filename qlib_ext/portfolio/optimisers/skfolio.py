"""Any optimiser of skfolio."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import cvxpy as cp
import numpy as np
import pandas as pd
from cvxpy.reductions.solvers.defines import MI_SOLVERS
from scipy.sparse import csr_matrix
from skfolio.exceptions import SkfolioError
from skfolio.optimization import (
    BaseOptimization,
    BenchmarkTracker,
    ConvexOptimization,
    MeanRisk,
    NestedClustersOptimization,
    ObjectiveFunction,
    RiskBudgeting,
)
from sklearn.base import clone

from qlib_ext.checks import UserError, brief, integer, nearest
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.constraints.limits import Linear
from qlib_ext.portfolio.known_day import Ints
from qlib_ext.portfolio.optimisers.base import Optimiser, forecast
from qlib_ext.portfolio.optimisers.past_returns import past_returns
from qlib_ext.portfolio.optimisers.shares import candidates, holdable, to_invest
from qlib_ext.portfolio.optimisers.skfolio_prior import GivenPrior
from qlib_ext.portfolio.problem import TOLERANCE, Infeasible, Problem
from qlib_ext.portfolio.skfolio_objects import skfolio_object
from qlib_ext.portfolio.solving import not_quite, tidy

# What the portfolio fills in -> where a user says it.
FILLED_IN = {
    "min_weights": "`constraints`",
    "max_weights": "`constraints`",
    "budget": "the portfolio's share that is invested",
    "min_budget": "the portfolio's share that is invested",
    "max_budget": "the portfolio's share that is invested",
    "previous_weights": "the account",
    "transaction_costs": "the portfolio's costs",
    "target_weights": "`relative: true` and the portfolio's benchmark",
    "left_inequality": "`constraints`",
    "right_inequality": "`constraints`",
    "add_constraints": "`constraints`",
    "efficient_frontier_size": "nothing: a portfolio is one point of a frontier",
}
FORECASTING = (
    ObjectiveFunction.MAXIMIZE_RETURN,
    ObjectiveFunction.MAXIMIZE_UTILITY,
    ObjectiveFunction.MAXIMIZE_RATIO,
)
# What only a solver of mixed integers can do -> what a portfolio has for it.
WHOLE_NUMBERS = {
    "cardinality": "take NumberOfNames among the `constraints`",
    "group_cardinalities": "leave it out",
    "threshold_long": "take SmallestWeight among the `constraints`",
    "threshold_short": "leave it out",
}
MOST_WEIGHT = 100.0  # of a stock whose weight has no bound: a solver takes none that is infinite


class Skfolio(Optimiser):
    """An optimiser of skfolio, named by its dotted class.

    Source: Delatte, Nicolini and Manzi, skfolio, whose documentation has the methods and their papers.

    Parameters
    ----------
    method
        `{class, kwargs}` such as `{class: skfolio.optimization.MeanRisk}`. In `kwargs`, at any depth, a mapping with `class`
        stands for an object, and a word such as `CVAR` for a member of an enumeration.
    relative
        Whether the risk is that of the deviation from the portfolio's benchmark; of MeanRisk alone. With MAXIMIZE_RATIO it is
        the information ratio.
    days
        Days of past returns, which measures of risk other than the variance, clusters and BenchmarkTracker are made from.

    Raises
    ------
    UserError
        From the constructor, if the class is none of skfolio's optimisers, or sets what the portfolio fills in; from `solve`,
        if it needs a benchmark and there is none, or if skfolio refuses an argument.

    Notes
    -----
    *Expected returns and risk* are the portfolio's, also of estimators within (`inner_estimator`, `estimators`); where risk has
    factors, the solver takes them apart. A `prior_estimator` of one's own in `kwargs` takes their place. *Past returns* stand
    as they were; of a stock without one the mean of the others stands in. BenchmarkTracker follows the market's past returns
    by skfolio's own estimate.

    On a day without a forecast, objectives with a return in them take the least risk.

    *Bounds* hold for convex methods, HRP, HERC and Schur. *Limits* hold inside of convex methods; where skfolio scales the
    weights afterwards (MAXIMIZE_RATIO, MaximumDiversification, RiskBudgeting), linear ones alone. What a method cannot keep to
    is left to the projection on the nearest allowed weights. *Costs* count in objectives that have a return in them; purchases
    and sales have one rate, their mean, which for a given sum of weights comes to the same.

    Examples
    --------
    ::

        optimiser:
          class: qlib_ext.portfolio.optimisers.skfolio.Skfolio
          kwargs:
            method:
              class: skfolio.optimization.MeanRisk
              kwargs: {objective_function: MAXIMIZE_UTILITY, risk_aversion: 5}
    """

    def __init__(self, method: Mapping[str, Any], relative: bool = False, days: int = 250) -> None:
        self.days_back = integer("days", days, 2)
        self.relative = bool(relative)
        self.method = skfolio_object(method, BaseOptimization, name="method")
        kwargs = (method.get("kwargs") or {}) if isinstance(method, Mapping) else {}
        for key, place in FILLED_IN.items():
            if key in kwargs:
                raise UserError(f"`method.kwargs` must not set `{key}`: that is said by {place}")
        for part in _parts(self.method):
            _check_solver(part)
        if self.relative and (
            not isinstance(self.method, MeanRisk) or isinstance(self.method, BenchmarkTracker)
        ):
            raise UserError(f"`relative` is for skfolio's MeanRisk, found {type(self.method).__name__}")

    @property
    def needs_forecast(self) -> str | None:
        """Objectives with a return in them do, also within."""
        asks = (part for part in _on_stocks(self.method) if _forecasts(part))
        part = next(asks, None)
        return None if part is None else f"{type(part).__name__} with {part.objective_function.name}"

    @property
    def name(self) -> str:
        """Of the class."""
        return type(self.method).__name__

    def solve(self, problem: Problem) -> Floats:
        """What the method makes of the stocks that may be held."""
        mean = forecast(problem)
        self._check(problem, mean)
        places = self._places(problem)
        weights = np.zeros(problem.count)
        estimator = clone(self.method)
        takes = inspect.signature(type(estimator)).parameters
        total = to_invest(problem)
        scale = 1.0 if "budget" in takes else total
        if len(places) == 1 or scale <= TOLERANCE:
            weights[places] = total / len(places)
            return weights
        prior = GivenPrior(mean, problem.risk, problem.known.codes)
        for part in _on_stocks(estimator):
            if mean is None and _forecasts(part):
                part.objective_function = ObjectiveFunction.MINIMIZE_RISK
            if part.prior_estimator is None and not isinstance(part, BenchmarkTracker):
                part.prior_estimator = prior
        if "min_weights" in takes:
            estimator.set_params(**self._bounds(problem, places, scale))
        if isinstance(estimator, ConvexOptimization):
            estimator.set_params(**self._inside(estimator, problem, places, scale))
        weights[places] = self._fitted(estimator, problem, places) * scale
        return tidy(problem, weights) if isinstance(estimator, ConvexOptimization) else weights

    def _places(self, problem: Problem) -> Ints:
        """The stocks that the method is shown."""
        if self.relative:
            return np.arange(problem.count)
        # A solver keeps to limits by itself, such as to sell what left the universe; a risk budget has no weight of 0.
        limited = isinstance(self.method, ConvexOptimization) and not isinstance(self.method, RiskBudgeting)
        return holdable(problem) if limited else candidates(problem)

    def _check(self, problem: Problem, mean: Floats | None) -> None:
        for part in _on_stocks(self.method):
            if (
                mean is not None
                and _forecasts(part)
                and part.objective_function is ObjectiveFunction.MAXIMIZE_RATIO
                and not self.relative
                and np.all(problem.lower >= 0)
                and mean.max() <= part.risk_free_rate
            ):
                raise Infeasible(
                    f"the best expected return of a day is {mean.max():.4%}, from which no ratio above 0 can be made"
                )
        if self.relative and np.isnan(problem.known.benchmark).any():
            raise UserError(
                "`relative` needs a benchmark, and the portfolio has none: name one, or leave it out"
            )

    def _bounds(self, problem: Problem, places: Ints, scale: float) -> dict[str, Any]:
        """Lowest and highest weights in the unit in which the method invests."""
        low, high = problem.lower[places] / scale, problem.upper[places] / scale
        if not isinstance(self.method, ConvexOptimization):
            low, high = np.maximum(low, 0.0), np.clip(high, 0.0, 1.0)
            if low.sum() > 1 + TOLERANCE or high.sum() < 1 - TOLERANCE:
                raise Infeasible(
                    f"the stocks must have {low.sum():.1%} and may have {high.sum():.1%} of what is invested"
                )
        return {
            "min_weights": np.clip(low, -MOST_WEIGHT, MOST_WEIGHT),
            "max_weights": np.clip(high, -MOST_WEIGHT, MOST_WEIGHT),
        }

    def _inside(
        self, estimator: BaseOptimization, problem: Problem, places: Ints, scale: float
    ) -> dict[str, Any]:
        """What a convex method takes account of beside bounds."""
        takes = inspect.signature(type(estimator)).parameters
        found: dict[str, Any] = _budget(problem) if "budget" in takes else {}
        cost = (problem.buy_cost + problem.sell_cost) / 2
        if cost > 0 and _forecasts(estimator):
            found |= {"transaction_costs": cost, "previous_weights": problem.known.held[places]}
        if self.relative:
            found["target_weights"] = problem.known.benchmark
            if estimator.objective_function is ObjectiveFunction.MAXIMIZE_RATIO:
                found["risk_free_rate"] = float(problem.known.benchmark @ np.asarray(problem.expected))
        if not problem.limits:
            return found
        if _scales_afterwards(estimator):
            return found | _inequalities(problem, places)
        spread = csr_matrix(
            (np.full(len(places), scale), (places, np.arange(len(places)))), (problem.count, len(places))
        )

        def limits(weights: Any) -> list[Any]:
            return [each for limit in problem.limits for each in limit.expressions(spread @ weights)]

        return found | {"add_constraints": limits}

    def _fitted(self, estimator: BaseOptimization, problem: Problem, places: Ints) -> Floats:
        codes = [problem.known.codes[place] for place in places]
        returns = pd.DataFrame(past_returns(problem.known, self.days_back, places), columns=codes)
        follows = any(map(_follows, _on_stocks(estimator)))
        market = pd.Series(np.nan_to_num(problem.known.market[-self.days_back :])) if follows else None
        try:
            with (
                not_quite(),
                warnings.catch_warnings(),
            ):  # nested clusters pass returns on without their names
                warnings.filterwarnings("ignore", message="X does not have valid feature names")
                estimator.fit(returns, market)
        except (SkfolioError, cp.SolverError, np.linalg.LinAlgError) as error:
            raise Infeasible(f"skfolio's {self.name} found no weights: {_first_line(error)}") from error
        except (ValueError, TypeError, AttributeError, AssertionError) as error:
            raise UserError(
                f"skfolio's {self.name} does not work with its arguments on {problem.known.day:%Y-%m-%d}: "
                f"{_first_line(error)}"
            ) from error
        found = np.asarray(estimator.weights_, dtype=np.float64)
        if found.shape != (len(places),):
            raise UserError(
                f"skfolio's {self.name} must give one portfolio, found {len(found)}: name one target, not a list"
            )
        return found


def _parts(estimator: Any) -> list[Any]:
    """An optimiser and all that stand in its arguments, at any depth."""
    given = estimator.get_params(deep=True).values()
    return [estimator, *(part for part in given if isinstance(part, BaseOptimization))]


def _check_solver(part: Any) -> None:
    """Raise a UserError where its solver is not there, or cannot do what is asked of it."""
    solver = getattr(part, "solver", None)
    if solver is None:
        return
    there = cp.installed_solvers()
    if solver not in there:
        raise UserError(
            f"`solver` must be one of those that are installed, {', '.join(sorted(there))}; found {brief(solver)}"
            f"{nearest(str(solver), there)}"
        )
    for key, instead in WHOLE_NUMBERS.items():
        if getattr(part, key, None) is not None and solver not in MI_SOLVERS:
            raise UserError(
                f"`{key}` needs a solver of mixed integers, found {solver}: {instead}, or install one that skfolio takes, such as "
                "SCIP, and name it as `solver`"
            )


def _on_stocks(estimator: Any) -> Iterator[Any]:
    """An optimiser and those in it that see stocks, and not the portfolios of others; those without a prior left out."""
    if isinstance(estimator, NestedClustersOptimization) and estimator.inner_estimator is None:
        estimator.inner_estimator = MeanRisk()  # which skfolio takes then
    if "prior_estimator" in estimator.get_params(deep=False):
        yield estimator
    inside = [getattr(estimator, "inner_estimator", None), getattr(estimator, "fallback", None)]
    inside += [part for _, part in getattr(estimator, "estimators", None) or []]
    for part in inside:
        for each in part if isinstance(part, (list, tuple)) else (part,):
            if isinstance(each, BaseOptimization):
                yield from _on_stocks(each)


def _forecasts(estimator: Any) -> bool:
    """Whether the portfolio's expected returns decide."""
    return (
        getattr(estimator, "objective_function", None) in FORECASTING
        and getattr(estimator, "overwrite_expected_return", None) is None
        and (estimator.prior_estimator is None or isinstance(estimator.prior_estimator, GivenPrior))
    )


def _budget(problem: Problem) -> dict[str, Any]:
    """The sum of the weights, or its bounds."""
    if problem.least_invested is None:
        return {"budget": problem.invested}
    return {"budget": None, "min_budget": problem.least_invested, "max_budget": problem.invested}


def _follows(estimator: Any) -> bool:
    """Whether the past returns of the market are asked for; where they are not, some methods stumble over them."""
    return (
        isinstance(estimator, BenchmarkTracker) or getattr(estimator, "max_tracking_error", None) is not None
    )


def _scales_afterwards(estimator: Any) -> bool:
    """Whether the solver's unknown is not the weights but a multiple of them."""
    ratio = getattr(estimator, "objective_function", None) is ObjectiveFunction.MAXIMIZE_RATIO
    return ratio or isinstance(estimator, RiskBudgeting)


def _inequalities(problem: Problem, places: Ints) -> dict[str, Any]:
    """Linear limits as skfolio takes them."""
    rows, most = [np.zeros((0, len(places)))], [np.zeros(0)]
    for limit in problem.limits:
        if isinstance(limit, Linear):
            over, under = np.isfinite(limit.high), np.isfinite(limit.low)
            rows += [limit.matrix[over][:, places], -limit.matrix[under][:, places]]
            most += [limit.high[over], -limit.low[under]]
    left, right = np.concatenate(rows), np.concatenate(most)
    return {"left_inequality": left, "right_inequality": right} if len(left) else {}


def _first_line(error: BaseException) -> str:
    """What an error says, and what it comes from says, without an end."""
    said = " ".join(str(error).split())
    return f"{said} ({error.__cause__})" if error.__cause__ is not None else said or type(error).__name__
