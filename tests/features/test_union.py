"""A union has what its members have, side by side."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.features.alpha360 import Alpha360
from qlib_ext.features.base import FeatureSet
from qlib_ext.features.expressions import Expressions
from qlib_ext.features.union import Union
from tests.features.arrays import market_of

FIELDS = ("close", "open")
ROC = {"ROC": "Ref($close, 2) / $close"}


def members(days: int) -> list[FeatureSet]:
    return [Alpha360(FIELDS, 4, optional_fields=["open"]), Expressions(ROC, lookback_days=days)]


@pytest.mark.parametrize("days", [4, 1])
def test_it_is_its_members_side_by_side(days: int) -> None:
    market = market_of(np.exp(np.random.default_rng(0).normal(3, 0.2, (2, 30, 5))).astype(np.float32), FIELDS)
    rows = np.arange(30)[:, None] < np.full(5, 20)
    union, alone = Union(members(days)), members(days)
    padded = union.pad(market)
    union.fit(market, rows, padded)
    columns = torch.tensor([4, 0, 1])
    expected = [
        each.fit(market, rows).gather(torch.from_numpy(each.pad(market)), 12, columns) for each in alone
    ]
    found = union.gather(torch.from_numpy(padded), 12, columns)
    if days == 4:
        assert torch.equal(found, torch.cat(expected, dim=2))
        assert union.names == ("close", "open", "ROC")
    else:
        flat = torch.cat([each.transpose(1, 2).reshape(3, -1) for each in expected], dim=1)
        assert torch.equal(found, flat[:, None])
        assert union.column_names() == [
            "CLOSE3",
            "CLOSE2",
            "CLOSE1",
            "CLOSE0",
            "OPEN3",
            "OPEN2",
            "OPEN1",
            "OPEN0",
            "ROC",
        ]
    assert union.optional_fields == ("open",)
    again = Union(members(days))
    again.pad(market)
    again.restore(union.median, union.scale)
    assert torch.equal(again.gather(torch.from_numpy(padded), 12, columns), found)


def test_what_looks_ahead_is_told_of_each_member() -> None:
    union = Union([Expressions(ROC), Expressions({"LATER": "Ref($close, -1)"})])
    assert union.look_ahead() == ["the feature `LATER` reads bars of up to 1 days later"]


def test_errors() -> None:
    with pytest.raises(UserError, match="must be a list of feature sets"):
        Union([])
    with pytest.raises(UserError, match="found twice: ROC"):
        Union([Expressions(ROC), Expressions(ROC)])


def test_features_and_families() -> None:
    windows, flat = Union(members(4)), Union(members(1))
    assert windows.feature_places() == {"close": (0,), "open": (1,), "ROC": (2,)}
    assert flat.feature_places() == {"close": (0, 1, 2, 3), "open": (4, 5, 6, 7), "ROC": (8,)}
    assert flat.names[4:8] == ("OPEN3", "OPEN2", "OPEN1", "OPEN0")
    assert windows.families() == flat.families() == {"Alpha360": ("close", "open"), "Expressions": ("ROC",)}
    nested = Union([Union(members(1)), Expressions({"close": "$close"}, lookback_days=2)])
    assert nested.families() == {"Union": ("close", "open", "ROC"), "Expressions": ("close 2",)}
    places = nested.feature_places()
    assert [nested.names[k] for k in places["close 2"]] == ["close_LAG1", "close_LAG0"]
    assert [k for each in places.values() for k in each] == list(range(len(nested.names)))
