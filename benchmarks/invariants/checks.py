"""What must hold of a backtest, checked trade by trade."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.invariants import plain_rules
from benchmarks.invariants.cases import Case
from benchmarks.invariants.markets import NO_PRICES

RELATIVE = 1e-9  # of the value of the account or the trade
SHARE = 1e-6  # of a share, for amounts that went through a factor and back
YUAN = 100  # fen; below it half a fen is more than the margin by which moves are compared


def violations(case: Case) -> tuple[list[str], Counter[str]]:
    """Sentences on what does not hold, none where all does; and how many days, orders and trades were looked at."""
    book = _Book(case)
    counted: Counter[str] = Counter()
    by_day = dict([*case.done.orders.groupby(level="datetime", sort=False)])
    for number in range(case.first, case.last + 1):
        day = case.market.calendar[number]
        book.open(number)
        for (_, code), row in by_day.get(day, pd.DataFrame()).iterrows():
            counted["orders"] += 1
            if row["filled"] > 0:
                counted["trades"] += 1
                book.trade(code, row)
            else:
                counted[f"unfilled: {row['reason']}"] += 1
        book.close()
        counted["days"] += 1
    if len(case.done.daily) != case.last - case.first + 1:
        book.found.append(f"{len(case.done.daily)} days traded of {case.last - case.first + 1}")
    return [f"case {case.name}: {said}" for said in book.found], counted


class _Book:
    """An account that is kept beside the backtest's own, from its trades alone."""

    def __init__(self, case: Case):
        self.case, self.market = case, case.market
        self.china = case.settings["rules"] == "cn"
        self.cash, self.held = case.account, dict[str, float]()
        self.found: list[str] = []
        self.day = 0
        self.mornings: dict[str, float] = {}
        self.sold: dict[str, float] = defaultdict(float)
        self.traded = self.paid = self.value = 0.0
        self.before = case.account

    def say(self, code: str, what: str) -> None:
        self.found.append(f"{what} ({code} on {self.market.calendar[self.day]:%Y-%m-%d})")

    def open(self, day: int) -> None:
        self.day, self.mornings = day, dict(self.held)
        self.sold = defaultdict(float)
        self.traded = self.paid = 0.0

    def trade(self, code: str, row: Any) -> None:
        """Look at a trade and book it."""
        market, day, s = self.market, self.day, self.market.codes.index(code)
        buying = row["direction"] == "buy"
        price = self._price(s, buying)
        amount, value = row["filled"], row["value"]
        if market.still[day, s]:
            self.say(code, "traded while suspended")
            return
        if abs(value - amount * price) > 1e-6 * value:  # the store has prices in single precision
            self.say(code, f"a trade of {amount} at {price} has a value of {value}")
        if self.china:
            self._limits(code, s, buying)
        self._lots(code, s, buying, amount)
        settings = self.case.settings
        commission, minimum = (
            settings.get("commission", 0.0005),
            settings.get("min_cost", 5 if self.china else 1),
        )
        due = plain_rules.cost(value, buying, market.calendar[day].date(), commission, minimum, self.china)
        if abs(due - row["cost"]) > RELATIVE * max(1.0, due):
            self.say(code, f"cost {row['cost']} where {due} is due")
        if buying:
            self.cash -= value + row["cost"]
            self.held[code] = self.held.get(code, 0.0) + amount
        else:
            self.cash += value - row["cost"]
            self.sold[code] += amount
            limit = (
                self.mornings.get(code, 0.0)
                if self.china
                else self.held.get(code, 0.0) + self.sold[code] - amount
            )
            if self.sold[code] > limit * (1 + RELATIVE) + 1e-9:
                self.say(code, f"sold {self.sold[code]} of {limit} that could be sold")
            self.held[code] = self.held.get(code, 0.0) - amount
            if self.held[code] <= RELATIVE * amount:
                del self.held[code]
        if self.cash < -1e-9 * max(1.0, self.case.account):
            self.say(code, f"cash of {self.cash} after a trade")
        self.traded += value
        self.paid += row["cost"]

    def close(self) -> None:
        """Compare with the account at the close."""
        day = self.market.calendar[self.day]
        daily, position = self.case.done.daily.loc[day], self.case.done.held[day]
        scale = max(1.0, self.before)
        if daily["cash"] < 0:
            self.say("cash", f"cash of {daily['cash']}")
        if abs(daily["cash"] - self.cash) > RELATIVE * scale:
            self.say("cash", f"cash of {daily['cash']} where {self.cash} is left")
        amounts = position.get_stock_amount_dict()
        if {*amounts} != {*self.held}:
            self.say("holdings", f"held {sorted(amounts)} where {sorted(self.held)} were bought and not sold")
        value = 0.0
        for code, amount in amounts.items():
            if abs(amount - self.held.get(code, 0.0)) > RELATIVE * amount:
                self.say(code, f"{amount} held where {self.held.get(code)} were bought and not sold")
            s = self.market.codes.index(code)
            last = np.flatnonzero(self.market.prices["close"][: self.day + 1, s])[-1]
            value += amount * self.market.prices["close"][last, s] / 100 * self._ratio(s, int(last))
        single = 1e-6 * scale  # the closes are in single precision
        if (
            abs(daily["value"] - value) > single
            or abs(daily["account"] - daily["cash"] - daily["value"]) > 1e-9 * scale
        ):
            self.say("account", f"stocks are worth {daily['value']} where {value} is their value")
        if abs(daily["turnover"] * self.before - self.traded) > RELATIVE * max(scale, self.traded):
            self.say("turnover", f"{daily['turnover'] * self.before} told, {self.traded} traded")
        if abs(daily["cost"] * self.before - self.paid) > RELATIVE * scale:
            self.say("cost", f"{daily['cost'] * self.before} told, {self.paid} paid")
        growth = (daily["account"] + self.paid) / self.before - 1
        if abs(daily["return"] - growth) > 1e-8:
            self.say("return", f"{daily['return']} told, {growth} made")
        self.before = daily["account"]

    def _ratio(self, s: int, day: int) -> float:
        """Adjusted over true price, whatever the store's factor says."""
        wrong = 1.2345 if self.market.codes[s] == NO_PRICES else 1.0
        return float(self.market.factor[day, s] / wrong)

    def _price(self, s: int, buying: bool) -> float:
        return self._fen(s, buying) / 100 * self._ratio(s, self.day)

    def _fen(self, s: int, buying: bool) -> int:
        deal = self.case.settings["deal_price"]
        name = deal if isinstance(deal, str) else deal[0 if buying else 1].lstrip("$")
        return int(self.market.prices[name][self.day, s])

    def _limits(self, code: str, s: int, buying: bool) -> None:
        market, day = self.market, self.day
        if market.reference[day, s] < YUAN and (not market.has_factor or code == NO_PRICES):
            return  # a limit that was rounded so much cannot be seen where nothing leads to real prices
        fen, up, down = self._fen(s, buying), market.up[day, s], market.down[day, s]
        if buying and ((up and fen >= up) or market.closed_to_buyers[day, s]):
            self.say(code, f"bought at the upper limit, {fen} of {up}")
        if not buying and down and fen <= down:
            self.say(code, f"sold at the lower limit, {fen} of {down}")

    def _lots(self, code: str, s: int, buying: bool, amount: float) -> None:
        if not self.market.has_factor:
            return
        shares = amount * self.market.factor[self.day, s]
        least, step = plain_rules.least_and_step(code) if self.china else (1, 1)
        whole = round(shares)
        tolerance = SHARE * max(1.0, 1e-6 * shares)
        in_lots = abs(shares - whole) < tolerance and whole >= least and (whole - least) % step == 0
        if in_lots or (not buying and abs(amount - self.held.get(code, 0.0)) <= RELATIVE * amount):
            return
        self.say(code, f"{'bought' if buying else 'sold'} {shares} shares")
