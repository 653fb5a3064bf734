"""What every feature set does."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qlib_ext.config.build import locate
from qlib_ext.features import base
from qlib_ext.features.base import FeatureSet
from qlib_ext.features.market_panel import MarketPanel
from tests.features.arrays import market_of

DAYS, STOCKS = 40, 5
# What the sets that have no defaults are made of.
NEEDED: dict[str, dict[str, Any]] = {
    "Expressions": {"expressions": {"ROC": "Ref($close, 5) / $close", "RANK": "CSRank($open)"}},
    "NoFeatures": {"fields": ["open", "close"]},
    "Union": {
        "members": [
            {"class": "qlib_ext.features.daily_bars.DailyBars", "kwargs": {"lookback_days": 1}},
            {
                "class": "qlib_ext.features.expressions.Expressions",
                "kwargs": {"expressions": ["$high / $close"]},
            },
        ]
    },
}


def feature_sets() -> list[type[FeatureSet]]:
    """All of the package, found by walking its folder."""
    found = []
    for path in sorted(Path(base.__file__).parent.glob("*.py")):
        module = importlib.import_module(f"qlib_ext.features.{path.stem}")
        found += [
            kind
            for kind in vars(module).values()
            if inspect.isclass(kind)
            and issubclass(kind, FeatureSet)
            and kind.__module__ == module.__name__
            and not inspect.isabstract(kind)
        ]
    return found


every_set = pytest.mark.parametrize("kind", feature_sets(), ids=lambda kind: kind.__name__)


@pytest.fixture
def market_for() -> Callable[..., MarketPanel]:
    def make(features: FeatureSet, seed: int = 0) -> MarketPanel:
        draw = np.random.default_rng(seed)
        values = np.exp(draw.normal(3, 0.2, (len(features.fields), DAYS, STOCKS))).astype(np.float32)
        values[draw.random(values.shape) < 0.05] = np.nan
        return market_of(values, features.fields)

    return make


def made(kind: type[FeatureSet], **more: Any) -> FeatureSet:
    return kind(**NEEDED.get(kind.__name__, {}), **more)


def rows(last: int) -> np.ndarray:
    return np.arange(DAYS)[:, None] < np.full(STOCKS, last)


def test_there_are_some() -> None:
    assert {"Alpha158", "Alpha360", "DailyBars", "Expressions", "Union"} <= {
        kind.__name__ for kind in feature_sets()
    }


@every_set
class TestLaws:
    def test_windows_are_finite_and_have_the_sizes_that_it_says(self, kind: Any, market_for: Any) -> None:
        features = made(kind)
        market = market_for(features)
        features.fit(market, rows(30))
        padded = torch.from_numpy(features.pad(market))
        assert tuple(padded.shape) == features.padded_shape(market)
        assert features.median.shape == features.scale.shape == (features.lookback_days, len(features.names))
        for day in (0, 25, DAYS - 1):
            found = features.gather(padded, day, torch.tensor([3, 0]))
            assert found.shape == (2, features.lookback_days, len(features.names))
            assert found.isfinite().all()
        assert len(features.column_names()) == features.lookback_days * len(features.names)

    def test_a_day_knows_nothing_of_the_next(self, kind: Any, market_for: Any) -> None:
        features = made(kind)
        market, other = market_for(features), market_for(features, seed=1)
        t = 25
        other.values[:, : t + 1] = market.values[:, : t + 1]
        assert features.look_ahead() == []
        found = []
        for each in (market, other):
            features.fit(each, rows(t + 1))
            padded = torch.from_numpy(features.pad(each))
            found.append([features.gather(padded, day, torch.arange(STOCKS)) for day in (t, t + 1)])
        assert torch.equal(found[0][0], found[1][0])
        assert not torch.equal(found[0][1], found[1][1]) or not features.names

    def test_its_repr_and_its_identity_say_how_it_was_made(self, kind: Any) -> None:
        given = NEEDED.get(kind.__name__) or {"lookback_days": 7}
        shown = ", ".join(f"{name}={value!r}" for name, value in given.items())
        assert repr(kind(**given)) == f"{kind.__name__}({shown})"
        if "lookback_days" in inspect.signature(kind).parameters:
            assert made(kind, lookback_days=7).identity() != made(kind, lookback_days=8).identity()
        assert locate(f"{kind.__module__}.{kind.__name__}", name="features") is kind

    def test_unnormalised_it_gives_what_it_normalises(
        self, kind: Any, market_for: Callable[..., MarketPanel]
    ) -> None:
        features = made(kind)
        market = market_for(features)
        padded = torch.from_numpy(features.pad(market))
        features.fit(market, rows(DAYS))
        plain = features.unnormalised()
        day, columns = DAYS - 1, torch.tensor([3, 0, 2])
        found = plain.gather(torch.from_numpy(plain.pad(market)), day, columns)
        given = features.gather(padded, day, columns)
        assert found.shape == given.shape
        expected = (found - torch.from_numpy(features.median)) / torch.from_numpy(features.scale)
        inside = expected.abs() < 2.9  # what is beyond may have been clipped
        torch.testing.assert_close(given[inside], expected[inside], rtol=1e-4, atol=1e-5)
        assert (given[expected.isnan()] == 0).all()

    def test_close_is_always_read(self, kind: Any) -> None:
        features = made(kind)
        assert "close" in features.fields
        assert set(features.required_fields) == set(features.fields) - set(features.optional_fields)
