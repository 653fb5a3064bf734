"""Decisions of a portfolio, made by hand for tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from qlib_ext.portfolio.allocation import Decision
from qlib_ext.portfolio.constraints.limits import Box, Turnover
from tests.portfolio.problems import day_of, problem_of, risk_of

NAMES = 5  # stocks held
MOST = 0.25


def decisions(
    days: Sequence[pd.Timestamp], codes: Sequence[str], every: int = 5, seed: int = 0
) -> Iterator[tuple[pd.Timestamp, Decision]]:
    """Each `every` days a decision for the day after: five stocks in turn, two at their largest weight of 25%.

    The first is unbound; of the others a turnover binds.
    """
    rng = np.random.default_rng(seed)
    held = np.zeros(len(codes))
    for at in range(0, len(days) - 1, every):
        turn = at // every
        weights = np.zeros(len(codes))
        weights[(np.arange(NAMES) + turn) % len(codes)] = [MOST, MOST, 0.2, 0.15, 0.1]
        moved = np.abs(weights - held).sum()
        expected = rng.normal(3e-4, 2e-4, len(codes))
        known = day_of(
            len(codes),
            held=held,
            seed=seed,
            day=days[at],
            codes=tuple(codes),
            buyable=np.ones(len(codes), bool),
        )
        limit = Turnover("turnover", f"turnover of at most {moved:.1%}", held, moved + (turn == 0))
        largest = Box(
            "weight", "weights of at most 25%", np.full(len(codes), -np.inf), np.full(len(codes), MOST)
        )
        problem = problem_of(
            len(codes),
            [limit],
            most=MOST,
            known=known,
            expected=expected,
            invested=0.95,
            seed=seed,
            boxes=(largest,),
        )
        yield days[at + 1], Decision(known, weights, risk_of(len(codes), seed), expected, problem=problem)
        held = weights * rng.uniform(0.97, 1.03, len(codes))
