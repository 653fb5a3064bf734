"""Days to train on: a made market small enough for a test, with missing labels and one day of a single stock."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from qlib_ext.config.rebuildable import Rebuildable
from qlib_ext.data.panel import DailyPanels
from qlib_ext.features.alpha360 import FIELDS, Alpha360
from tests.features.arrays import market_of

LOOKBACK_DAYS = 4


def panels(
    days: int = 10,
    stocks: int = 8,
    seed: int = 0,
    *,
    device: str = "cpu",
    change: Callable[[dict[str, np.ndarray]], None] = lambda arrays: None,
) -> DailyPanels:
    """Panels of a random market in which the last day's move says something about the return.

    `change` may edit the `[D, S]` arrays `present`, `RETURN` and `MOMENTUM` in place.
    """
    draw = np.random.default_rng(seed)
    move = draw.normal(0, 0.02, (days, stocks))
    close = 10 * np.exp(move.cumsum(axis=0))
    fields = [close * np.exp(draw.normal(0, 0.01, close.shape)) for _ in range(5)]
    values = np.stack([close, *fields]).astype(np.float32)
    score = 0.7 * move / 0.02 + draw.normal(0, 1, move.shape)
    arrays = {
        "present": draw.random(move.shape) < 0.9,
        "RETURN": score,
        "MOMENTUM": np.digitize(score + draw.normal(0, 0.5, move.shape), [-1.5, -0.5, 0.5, 1.5]),
    }
    arrays = {name: array.astype(bool if name == "present" else float) for name, array in arrays.items()}
    arrays["present"][:, :3] = True
    arrays["RETURN"][draw.random(move.shape) < 0.1] = np.nan
    arrays["MOMENTUM"][draw.random(move.shape) < 0.1] = np.nan
    for name in ("RETURN", "MOMENTUM"):
        arrays[name][:, :2] = np.nan_to_num(arrays[name][:, :2])
    change(arrays)
    market = market_of(values, FIELDS)
    feature_set = Alpha360(lookback_days=LOOKBACK_DAYS).fit(market, np.ones_like(arrays["present"]))
    labels: dict[str, Any] = {name: arrays[name].astype(np.float32) for name in ("RETURN", "MOMENTUM")}
    return DailyPanels(
        features=feature_set,
        padded=torch.from_numpy(feature_set.pad(market)).to(device),
        calendar=pd.bdate_range("2020-01-01", periods=days),
        instruments=tuple(f"SH6{i:05d}" for i in range(stocks)),
        days=np.arange(days),
        present=arrays["present"],
        labels=labels,
        raw_labels=labels,
    )


@pytest.fixture(scope="session")
def make_panels() -> Callable[..., DailyPanels]:
    """`panels`, for the tests that ask for it by this name."""
    return panels


def rebuilt(thing: Rebuildable) -> Any:
    """Another one, made of the class and the arguments that its `repr` names; no code is evaluated."""

    def made(node: ast.expr) -> Any:
        if isinstance(node, ast.List):
            return [made(item) for item in node.elts]
        if not isinstance(node, ast.Call):
            return ast.literal_eval(node)
        (kind,) = (kind for kind in subclasses(Rebuildable) if kind.__name__ == ast.unparse(node.func))
        assert not node.args, "arguments are named"
        return kind(**{str(keyword.arg): made(keyword.value) for keyword in node.keywords})

    again = made(ast.parse(repr(thing), mode="eval").body)
    assert type(again) is type(thing)
    assert repr(again) == repr(thing)
    return again


def subclasses(kind: type) -> set[type]:
    """Those of the package, however far down."""
    below = {kind for kind in kind.__subclasses__() if kind.__module__.startswith("qlib_ext.")}
    return below.union(*map(subclasses, below))


@pytest.fixture(scope="session")
def rebuild() -> Callable[[Rebuildable], Any]:
    """`rebuilt`, for the tests that ask for it by this name."""
    return rebuilt
