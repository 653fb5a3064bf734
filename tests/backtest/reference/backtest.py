"""Hold the best k stocks, day by day and stock by stock: slow, and plain enough to be seen to be right."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tests.backtest.reference.market import Market
from tests.backtest.reference.rules import Rules

NOTHING = 1e-5  # in currency; a trade of no more is no trade


@dataclass(frozen=True)
class Plan:
    """The strategy's settings, as `TopkDropout` takes them, and the cash to begin with."""

    topk: int
    n_drop: int
    hold_thresh: int = 1
    only_tradable: bool = False
    forbid_all_trade_at_limit: bool = True
    risk_degree: float = 0.95
    account: float = 1e6


@dataclass
class Holding:
    shares: float  # adjusted
    price: float  # the last that is known
    days: int = 0  # closes at which it was held


@dataclass
class Account:
    cash: float
    held: dict[str, Holding] = field(default_factory=dict)
    traded: float = 0.0  # value bought and sold today
    paid: float = 0.0  # fees of today


@dataclass(frozen=True)
class Close:
    """What the account is at the close of a day."""

    day: int
    cash: float
    shares: dict[str, float]
    prices: dict[str, float]
    traded: float
    paid: float

    @property
    def value(self) -> float:
        return sum(self.shares[code] * self.prices[code] for code in sorted(self.shares))


def backtest(market: Market, rules: Rules, plan: Plan) -> list[Close]:
    """Trade from the second day to the last but one, each by the scores of the day before."""
    account = Account(plan.account)
    closes = []
    for day in range(1, len(market.days) - 1):
        account.traded = account.paid = 0.0
        scores = market.scores_of(day - 1)
        if scores:
            trade(account, market, rules, plan, day, scores)
        for code, holding in account.held.items():
            holding.days += 1
            if market.bar(code, day).priced:
                holding.price = market.bar(code, day).close
        shares = {code: holding.shares for code, holding in account.held.items()}
        prices = {code: holding.price for code, holding in account.held.items()}
        closes.append(Close(day, account.cash, shares, prices, account.traded, account.paid))
    return closes


def trade(
    account: Account, market: Market, rules: Rules, plan: Plan, day: int, scores: dict[str, float]
) -> None:
    """The sales of a day, then its purchases."""

    def may(side: str, code: str) -> bool:
        buy, sell = rules.may_buy(market, code, day), rules.may_sell(market, code, day)
        if plan.forbid_all_trade_at_limit:
            return buy and sell
        return buy if side == "buy" else sell

    ranked = sorted((code for code in scores if not math.isnan(scores[code])), key=lambda c: (-scores[c], c))
    ranks = {code: rank for rank, code in enumerate(ranked)}

    newcomers: list[str] = []
    for code in ranked:
        if len(newcomers) == plan.n_drop + plan.topk - len(account.held):
            break
        if code not in account.held and (may("buy", code) or not plan.only_tradable):
            newcomers.append(code)

    movable = [
        code for code, held in account.held.items() if may("sell", code) and held.days >= plan.hold_thresh
    ]
    places = plan.topk - (len(account.held) - len(movable))
    by_rank = sorted(movable + newcomers, key=lambda code: (ranks.get(code, len(ranks)), code))
    winners = by_rank[:places]

    for code in reversed(by_rank):
        if code in movable and code not in winners:
            sell(account, market, rules, code, day)

    coming = [code for code in newcomers if code in winners][: plan.topk - len(account.held)]
    part = account.cash * plan.risk_degree / max(1, len(coming))
    for code in coming:
        if may("buy", code):
            buy(account, market, rules, code, day, part)


def sell(account: Account, market: Market, rules: Rules, code: str, day: int) -> None:
    """All of it."""
    value = account.held[code].shares * market.bar(code, day).close
    fee = rules.fee(market, "sell", day, value)
    if value > NOTHING and account.cash + value >= fee:
        account.cash += value - fee
        account.traded += value
        account.paid += fee
        del account.held[code]


def buy(account: Account, market: Market, rules: Rules, code: str, day: int, part: float) -> None:
    """As many whole lots as the part of the cash pays for, fewer where the cash does not pay the fee as well."""
    price = market.bar(code, day).close
    amount = rules.lots(market, code, day, part / price)
    if account.cash < amount * price + rules.fee(market, "buy", day, amount * price):
        most = min(amount, rules.payable(market, day, account.cash) / price)
        amount = rules.lots(market, code, day, most, forgiven=False)
    value = amount * price
    if value > NOTHING:
        fee = rules.fee(market, "buy", day, value)
        account.cash -= value + fee
        account.traded += value
        account.paid += fee
        account.held[code] = Holding(amount, price)
