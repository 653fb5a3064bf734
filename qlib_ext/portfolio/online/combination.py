"""Several portfolios in one account, whose shares follow from what each would have earned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError, at_least, brief, integer
from qlib_ext.config.build import build
from qlib_ext.market.store import QlibStore
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.allocation import Allocation, Decision
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.online.base import MixingRule
from qlib_ext.portfolio.online.exponentiated_gradient import ExponentiatedGradient
from qlib_ext.portfolio.online.paper_account import PaperAccount

TOGETHER = ("benchmark", "index", "horizon")  # what all members look at


class OnlineCombination(Allocation):
    """Holds each of several portfolios with a share that follows from what they would have earned by now, after cost.

    Source: Helmbold, Schapire, Singer and Warmuth (1998), "On-line portfolio selection using multiplicative updates"; Cover
    (1991), "Universal portfolios"; both Mathematical Finance.

    Parameters
    ----------
    members
        Name -> `{class, kwargs}` of a portfolio. They share benchmark, index and horizon.
    rule
        `{class, kwargs}` of a rule of `qlib_ext.portfolio.online`; by default exponentiated gradient.
    buy_cost, sell_cost
        Of the members' accounts on paper, as a share of what is traded.
    longest
        Most trading days between two rebalances.

    Notes
    -----
    *Members* each have an account on paper, which trades their weights at the close that scores of their horizon begin with, and
    pays the costs; they are shown what it holds. No model says how they will do: the rule bounds how far the combination
    can fall behind the best of them in hindsight (its regret), whatever they do.

    *Told* on each day are the shares, the regret so far and its bound, both in log wealth, of the rule at daily rebalancing;
    `history` has the days. What members tell comes with their names. The risk of a decision is that of the first member.

    *The exchange.* What cannot be sold stays and what cannot be bought does not grow, whichever member asked for it; the rest is
    scaled to the same sum.

    Examples
    --------
    ::

        portfolio:
          class: qlib_ext.portfolio.online.combination.OnlineCombination
          kwargs:
            members:
              calm: {class: qlib_ext.portfolio.portfolio.Portfolio, kwargs: {...}}
              bold: {class: qlib_ext.portfolio.portfolio.Portfolio, kwargs: {...}}
            rule: {class: qlib_ext.portfolio.online.exponentiated_gradient.ExponentiatedGradient}
    """

    def __init__(
        self,
        members: Mapping[str, Mapping[str, Any] | Allocation],
        rule: Mapping[str, Any] | MixingRule | None = None,
        buy_cost: float = 0.0005,
        sell_cost: float = 0.0015,
        longest: int = 260,
    ) -> None:
        if not isinstance(members, Mapping) or len(members) < 2:
            raise UserError(f"`members` must name two portfolios at least, found {brief(members)}")
        self.members = {
            str(name): build(config, Allocation, name=f"members.{name}") for name, config in members.items()
        }
        self.rule = ExponentiatedGradient() if rule is None else build(rule, MixingRule, name="rule")
        self.buy_cost = float(at_least("buy_cost", buy_cost, 0.0, 1.0))
        self.sell_cost = float(at_least("sell_cost", sell_cost, 0.0, 1.0))
        self.longest = integer("longest", longest, 1)
        first = next(iter(self.members.values()))
        for name, member in self.members.items():
            for key in TOGETHER:
                if getattr(member, key) != getattr(first, key):
                    raise UserError(
                        f"`members` must have one `{key}`, found {getattr(first, key)} and, of {name}, {getattr(member, key)}"
                    )
        self.benchmark, self.index, self.horizon = first.benchmark, first.index, first.horizon
        self.shorts = any(member.shorts for member in self.members.values())
        self.min_trade = min(member.min_trade for member in self.members.values())
        self._days: list[pd.Timestamp] = []
        self._last: pd.Timestamp | None = None
        self._begin()

    @property
    def days_back(self) -> int:
        """The most that a member looks back over, and the longest time between two rebalances."""
        return max(self.longest + 1, *(member.days_back for member in self.members.values()))

    @property
    def history(self) -> pd.DataFrame:
        """By day: `relative/NAME`, a member's value over that of the day before after cost, and its `share/NAME` on it."""
        relatives, shares = self._relatives, self.rule.shares(self._relatives)[:-1]
        columns = [f"{what}/{name}" for what in ("relative", "share") for name in self.members]
        return pd.DataFrame(
            np.hstack([relatives, shares]), index=pd.DatetimeIndex(self._days), columns=columns
        )

    @property
    def regret(self) -> tuple[float, float]:
        """In log wealth: the regret of the rule so far, and its bound."""
        return self.rule.regret(self._relatives), self.rule.bound(self._relatives)

    @property
    def asks(self) -> set[str]:
        """Names of the side data that a member cannot do without."""
        return set().union(*(member.asks for member in self.members.values()))

    def check_store(self, store: QlibStore) -> None:
        """Raise a UserError where a member names what the store cannot have."""
        for member in self.members.values():
            member.check_store(store)

    def decide(self, known: KnownDay) -> Decision:
        """Weights of the members, by their shares."""
        lost = self._catch_up(known)
        shares = self.rule.shares(self._relatives)[-1]
        decisions = []
        for member, account in zip(self.members.values(), self._accounts, strict=True):
            decision = member.decide(replace(known, held=account.held(known.codes)))
            account.aim(known.codes, decision.weights)
            decisions.append(decision)
        wanted = shares @ np.array([decision.weights for decision in decisions])
        return Decision(
            known=known,
            weights=tradable(known, wanted),
            risk=decisions[0].risk,
            expected=None,
            relaxed=tuple(each for decision in decisions for each in decision.relaxed),
            moved=float(shares @ [decision.moved for decision in decisions]),
            told=(*self._told(shares, lost), *self._told_by(decisions)),
            kept=all(decision.kept for decision in decisions),
        )

    def memory(self) -> dict[str, Any]:
        """What the members hold and have earned, ready for JSON."""
        return {
            "last": None if self._last is None else f"{self._last:%Y-%m-%d}",
            "days": [f"{day:%Y-%m-%d}" for day in self._days],
            "relatives": self._relatives.tolist(),
            "accounts": [account.memory() for account in self._accounts],
            "members": [member.memory() for member in self.members.values()],
        }

    def recall(self, kept: Mapping[str, Any]) -> None:
        """Go on from what `memory` gave."""
        self._begin()
        self._last = None if kept["last"] is None else pd.Timestamp(kept["last"])
        self._days = [pd.Timestamp(day) for day in kept["days"]]
        self._relatives = np.array(kept["relatives"], dtype=np.float64).reshape(-1, len(self.members))
        for account, state in zip(self._accounts, kept["accounts"], strict=True):
            account.recall(state)
        for member, state in zip(self.members.values(), kept["members"], strict=True):
            member.recall(state)

    def _begin(self) -> None:
        self._accounts = [PaperAccount(self.horizon[0], self.buy_cost, self.sell_cost) for _ in self.members]
        self._relatives = np.empty((0, len(self.members)))
        self._days = []
        self._last = None

    def _catch_up(self, known: KnownDay) -> bool:
        """Let the members' accounts earn what has come since; whether days were too many to be known."""
        if known.days is None:
            raise UserError("a combination needs `days` of what is known of a day, found none")
        if self._last is not None and known.day <= self._last:  # a backtest begins anew
            self._begin()
        last, self._last = self._last, known.day
        if last is None:
            return False
        new = int((known.days > last).sum())
        if new:
            returns = known.returns[-new:]
            self._relatives = np.vstack(
                [
                    self._relatives,
                    np.array([account.advance(known.codes, returns) for account in self._accounts]).T,
                ]
            )
            self._days += [*known.days[-new:]]
        return new == len(known.days)

    def _told(self, shares: Floats, lost: bool) -> list[str]:
        parts = ", ".join(f"{name} {share:.1%}" for name, share in zip(self.members, shares, strict=True))
        found = [f"the combination is {parts}"]
        if len(self._relatives):
            regret, bound = self.regret
            found.append(
                f"the best in hindsight is {regret:.2%} of log wealth ahead of the combination's rule, which bounds it by {bound:.2%}"
            )
        if lost:
            found.append(
                "what members earned is not known of all days since the last rebalance: raise `longest`"
            )
        return found

    def _told_by(self, decisions: list[Decision]) -> list[str]:
        return [
            f"{name}: {sentence}"
            for name, decision in zip(self.members, decisions, strict=True)
            for sentence in decision.told
        ]


def tradable(known: KnownDay, wanted: Floats) -> Floats:
    """Weights `[N]` as near to the wanted ones as the exchange lets: what is left to choose is scaled to the same sum."""
    low = np.where(known.sellable, -np.inf, known.held)
    high = np.where(known.buyable, np.inf, known.held)
    found = np.clip(wanted, low, high)
    free = known.sellable & known.buyable & (wanted > 0)
    missing, room = wanted.sum() - found.sum(), found[free].sum()
    if room > 0:
        found[free] *= max(0.0, 1.0 + missing / room)
    return found
