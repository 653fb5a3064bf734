"""What a member of a combination would hold and earn on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qlib_ext.metrics.cross_section import Floats

LEAST = 1e-6  # of a value: an account in debt has no logarithm


class PaperAccount:
    """An account on paper that trades target weights at closes, at a cost and without any other rule of the exchange.

    Parameters
    ----------
    lag
        Days from the close at which weights are decided on to that at which they are traded.
    buy_cost, sell_cost
        As a share of what is traded.
    """

    def __init__(self, lag: int, buy_cost: float, sell_cost: float) -> None:
        self.lag, self.buy_cost, self.sell_cost = lag, buy_cost, sell_cost
        self._weights: dict[str, float] = {}
        self._waiting: list[tuple[int, Mapping[str, float]]] = []
        self._owed = 0.0  # the cost of what was traded at once, which the next day pays

    def held(self, codes: Sequence[str]) -> Floats:
        """`[N]` weights now."""
        return np.array([self._weights.get(code, 0.0) for code in codes])

    def aim(self, codes: Sequence[str], weights: Floats) -> None:
        """Trade to weights `[N]`, and none of any other stock, `lag` days from now."""
        self._waiting.append((self.lag, dict(zip(codes, weights.tolist(), strict=True))))
        self._owed += self._trade()

    def advance(self, codes: Sequence[str], returns: Floats) -> Floats:
        """Value at the end of each day over that of the day before, after cost, `[D]`; returns `[D, N]` of the days.

        A stock that is held and not among `codes` stands still until it is sold.
        """
        found = np.ones(len(returns))
        place = {code: place for place, code in enumerate(codes)}
        for day, row in enumerate(np.nan_to_num(returns)):
            own = {code: row[place[code]] if code in place else 0.0 for code in self._weights}
            grown = {code: weight * (1.0 + own[code]) for code, weight in self._weights.items()}
            found[day] = max(LEAST, 1.0 + sum(grown.values()) - sum(self._weights.values()))
            self._weights = {code: weight / found[day] for code, weight in grown.items()}
            self._waiting = [(left - 1, weights) for left, weights in self._waiting]
            found[day] = max(LEAST, found[day] * (1.0 - self._owed) * (1.0 - self._trade()))
            self._owed = 0.0
        return found

    def memory(self) -> dict[str, Any]:
        """What it holds, and what it is still to trade and to pay, ready for JSON."""
        return {
            "weights": self._weights,
            "waiting": [[left, dict(weights)] for left, weights in self._waiting],
            "owed": self._owed,
        }

    def recall(self, kept: Mapping[str, Any]) -> None:
        """Go on from what `memory` gave."""
        self._weights = {str(code): float(weight) for code, weight in kept["weights"].items()}
        self._waiting = [
            (int(left), {str(code): float(weight) for code, weight in weights.items()})
            for left, weights in kept["waiting"]
        ]
        self._owed = float(kept["owed"])

    def _trade(self) -> float:
        """Trade what is due; what it costs, as a share of the account."""
        due = [weights for left, weights in self._waiting if left <= 0]
        self._waiting = [(left, weights) for left, weights in self._waiting if left > 0]
        if not due:
            return 0.0
        change = [
            due[-1].get(code, 0.0) - self._weights.get(code, 0.0) for code in {**self._weights, **due[-1]}
        ]
        self._weights = {code: weight for code, weight in due[-1].items() if weight != 0}
        bought, sold = sum(max(each, 0.0) for each in change), sum(max(-each, 0.0) for each in change)
        return bought * self.buy_cost + sold * self.sell_cost
