"""From target weights to whole lots, with the least loss of tracking that the cash allows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.known_day import Bools
from qlib_ext.portfolio.risk import Risk

TINY = 1e-9  # relative, of shares
PAIRED = 200  # changes that are tried two at once: those that raise the loss least by themselves
GAIN = 1e-12  # of the account's variance; less is no improvement


@dataclass(frozen=True)
class Lots:
    r"""What can be traded of N stocks, and what it takes.

    Attributes
    ----------
    price
        `[N]` of a share; NaN where there is none, and then nothing is traded.
    held
        `[N]` shares.
    value
        `[N]` what they are worth, at the last price where there is none today.
    step
        `[N]` shares of a lot; 0 where lots do not count.
    smallest
        `[N]` shares of the smallest purchase.
    buyable, sellable
        `[N]`.
    cash
        In the account.
    buy_cost, sell_cost
        As shares of a trade's value.
    min_cost
        Least cost of a trade, in currency.
    min_value
        Least value of a trade, in currency, unless a holding is sold whole.
    """

    price: Floats
    held: Floats
    value: Floats
    step: Floats
    smallest: Floats
    buyable: Bools
    sellable: Bools
    cash: float
    buy_cost: float = 0.0
    sell_cost: float = 0.0
    min_cost: float = 0.0
    min_value: float = 0.0

    @property
    def account(self) -> float:
        """Cash and holdings, in currency."""
        return self.cash + float(self.value.sum())

    def shares(self, targets: Floats, risk: Risk) -> Floats:
        r"""The shares `[N]` to hold.

        .. math:: \min_x\; (w(x) - w)^\top \Sigma\, (w(x) - w)
                  \quad\text{over whole lots } x \text{ that the cash pays for}

        All trades are first rounded down. Then one trade after the other is rounded up or down, or left out, the one that lowers the
        loss most; where none does, two at once.

        Parameters
        ----------
        targets
            `[N]` shares of the account.
        risk
            Of these stocks. One of which nothing is known counts as one of the mean variance, that moves with no other.

        Notes
        -----
        Never worse than all trades rounded down, as far as the cash pays for these. The least loss of all is not looked for: on
        made accounts of four stocks it is missed by a half at the most, and by 3% on average
        (`tests/portfolio/test_lots.py`).
        """
        search = _Search(self, np.asarray(targets, float), _filled(risk))
        while not search.affordable:
            search.give_up()
        while search.better(search.single()) or search.better(search.pair()):
            pass
        return search.shares

    def cost(self, trade: Floats) -> Floats:
        """Cash that trades of so many shares take, `[...]`; below 0 where they bring some."""
        value = trade * np.nan_to_num(self.price)[(..., *[None] * (trade.ndim - 1))]
        rate = np.where(value > 0, self.buy_cost, self.sell_cost)
        return value + np.where(value == 0, 0.0, np.maximum(rate * np.abs(value), self.min_cost))


class _Search:
    """Positions of N stocks, each one of a few choices, and the loss of each change."""

    def __init__(self, lots: Lots, targets: Floats, risk: Risk) -> None:
        self.lots, self.risk = lots, risk
        wanted = np.array([*_choices(lots, targets * lots.account)], dtype=object)
        most = max((len(each) for each in wanted), default=1)
        # One that has fewer choices has its last one several times.
        self.choices = np.array([[*each, *[each[-1]] * (most - len(each))] for each in wanted]).reshape(
            -1, most
        )
        self.at = np.zeros(len(wanted), int)
        weight = np.nan_to_num(lots.price) / lots.account
        self.weights = self.choices * weight[:, None]  # but for those without a price
        own = lots.value / lots.account
        self.weights += (own - lots.held * weight)[:, None]
        self.takes = lots.cost(self.choices - lots.held[:, None])
        self.variances = risk.variances()
        self.slope = risk.times(self._now(self.weights) - targets)
        self.scale = float(self.variances.mean()) if len(targets) else 0.0

    def _now(self, table: Floats) -> Floats:
        return np.take_along_axis(table, self.at[:, None], axis=1)[:, 0]

    @property
    def shares(self) -> Floats:
        return self._now(self.choices)

    @property
    def left(self) -> float:
        """Cash."""
        return self.lots.cash - float(self._now(self.takes).sum())

    @property
    def affordable(self) -> bool:
        bought = self._now(self.choices) > self.lots.held
        return self.left >= -TINY * self.lots.account or not bought.any()

    def _changes(self) -> tuple[Floats, Floats, Floats]:
        """Of each choice of each stock `[N, C]`: the change of weight, of the loss, and of the cash that it takes."""
        change = self.weights - self._now(self.weights)[:, None]
        loss = 2 * change * self.slope[:, None] + change**2 * self.variances[:, None]
        return change, loss, self.takes - self._now(self.takes)[:, None]

    def give_up(self) -> None:
        """Take back what frees cash at the least loss for it."""
        _, loss, takes = self._changes()
        rate = np.where(takes < 0, loss / np.where(takes < 0, -takes, 1.0), np.inf)
        stock, choice = np.unravel_index(np.argmin(rate), rate.shape)
        self._move(int(stock), int(choice))

    def single(self) -> list[tuple[int, int]]:
        """The change of one stock that lowers the loss most, as the cash allows."""
        _, loss, takes = self._changes()
        loss = np.where(takes <= self.left, loss, np.inf)
        best = np.unravel_index(np.argmin(loss), loss.shape) if loss.size else None
        return [] if best is None or loss[best] > -GAIN * self.scale else [(int(best[0]), int(best[1]))]

    def pair(self) -> list[tuple[int, int]]:
        """The changes of two stocks at once that lower the loss most, as the cash allows."""
        change, loss, takes = self._changes()
        stock, choice = np.nonzero(change)
        first = np.argsort(loss[stock, choice], kind="stable")[:PAIRED]
        stock, choice = stock[first], choice[first]
        change, loss, takes = (each[stock, choice] for each in (change, loss, takes))
        if not len(stock):
            return []
        some = self.risk.take(stock)
        both = some.components @ some.components.T * np.outer(change, change)
        total = loss[:, None] + loss[None] + 2 * both
        total[(takes[:, None] + takes[None] > self.left) | (stock[:, None] == stock[None])] = np.inf
        one, other = np.unravel_index(np.argmin(total), total.shape)
        if total[one, other] > -GAIN * self.scale:
            return []
        return [(int(stock[at]), int(choice[at])) for at in (one, other)]

    def better(self, changes: list[tuple[int, int]]) -> bool:
        """Make changes; whether there are any."""
        for stock, choice in changes:
            self._move(stock, choice)
        return bool(changes)

    def _move(self, stock: int, choice: int) -> None:
        change = self.weights[stock, choice] - self.weights[stock, self.at[stock]]
        self.slope += self.risk.components @ (self.risk.components[stock] * change)
        self.slope[stock] += self.risk.specific[stock] * change
        self.at[stock] = choice


def _choices(lots: Lots, wanted: Floats) -> Iterator[list[float]]:
    """Of each stock the shares that it may come to, the first with its trade rounded down."""
    for at, value in enumerate(wanted):
        price, held = float(lots.price[at]), float(lots.held[at])
        trade = value / price - held if price > 0 else 0.0
        if (
            not price > 0
            or abs(trade) <= TINY * max(1.0, held)
            or not (lots.buyable if trade > 0 else lots.sellable)[at]
        ):
            yield [held]
        elif trade > 0:
            yield [held + each for each in _purchases(lots, at, trade)]
        else:
            yield [held - each for each in _sales(lots, at, -trade, short=value < 0)]


def _purchases(lots: Lots, at: int, trade: float) -> list[float]:
    step, smallest = float(lots.step[at]), float(lots.smallest[at])
    below, above = _around(trade, step)
    sizes = [max(each, smallest) if each > 0 else 0.0 for each in (below, above)]
    allowed = [each for each in sizes if each * lots.price[at] >= lots.min_value]
    down = [each for each in allowed if 0 < each <= trade * (1 + TINY)]
    return [*down, 0.0, *[each for each in allowed if each not in down and each > 0]]


def _sales(lots: Lots, at: int, trade: float, *, short: bool) -> list[float]:
    held = float(lots.held[at])
    if held > 0 and trade >= held * (1 - TINY) and not short:
        return [held]
    below, above = _around(trade, float(lots.step[at]))
    sizes = [each for each in (below, above) if each <= held or short]
    allowed = [each for each in sizes if each > 0 and each * lots.price[at] >= lots.min_value]
    whole = [held] if held > 0 and not short and held not in allowed else []
    down = [each for each in allowed if each <= trade * (1 + TINY)]
    return [*down, 0.0, *[each for each in allowed if each not in down], *whole]


def _around(trade: float, step: float) -> tuple[float, float]:
    """Whole lots below and above."""
    if not step > 0:
        return trade, trade
    lots = trade / step
    return step * np.floor(lots + TINY), step * np.ceil(lots - TINY)


def _filled(risk: Risk) -> Risk:
    """Without what is not known."""
    known = risk.known
    usual = float(risk.take(known).variances().mean()) if known.any() else 1.0
    components = np.where(known[:, None], risk.components, 0.0)
    return Risk(components, np.where(known, risk.specific, usual))
