"""A day to look at: more stocks than the smallest, in concepts, with market values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from qlib_ext.data.panel import DailyPanel

CONCEPTS, MARKET = 5, 7  # concepts, and features of the whole market


def known_of(stocks: int, seed: int) -> dict[str, torch.Tensor]:
    """Market values and concepts of some stocks, one without a concept, one concept without a stock; and the market's."""
    draw = torch.Generator().manual_seed(seed)
    concepts = (torch.rand(stocks, CONCEPTS, generator=draw) < 0.4).float()
    concepts[1] = 0
    concepts[:, 3] = 0
    if stocks > 2:
        concepts[0, 0] = concepts[2, 0] = 1
    value = torch.randn(stocks, generator=draw).mul(2).exp() * 1e9
    return {
        "concepts": concepts,
        "market_value": value,
        "market_status": torch.randn(MARKET, generator=draw).clamp(-3, 3),
    }


@pytest.fixture(scope="session")
def make_day(make_panels: Callable[..., Any]) -> Callable[..., DailyPanel]:
    """One day of the made market, with what is known of its stocks beside their prices."""

    def make(seed: int = 0, stocks: int = 12, device: str = "cpu", **changes: Any) -> DailyPanel:
        panel = make_panels(stocks=stocks, seed=seed, device=device)[5]
        known = {name: values.to(device) for name, values in known_of(len(panel), seed).items()}
        return replace(panel, **{**known, **changes})

    return make
