"""`qlib-ext ensemble`: how a combiner is named. What it makes of runs is seen in tests/workflow/test_ensemble.py."""

from __future__ import annotations

import pytest

from qlib_ext.checks import UserError
from qlib_ext.cli.ensemble import _combiner


def test_a_combiner_of_the_package_has_a_short_name() -> None:
    assert _combiner("stacking.Stacking", ["ridge=0.5", "non_negative=false"]) == {
        "class": "qlib_ext.model.combiners.stacking.Stacking",
        "kwargs": {"ridge": 0.5, "non_negative": False},
    }


def test_one_of_a_user_has_its_own() -> None:
    assert _combiner("house.combiners.best.Best", None) == {
        "class": "house.combiners.best.Best",
        "kwargs": {},
    }


def test_options_without_a_combiner_are_refused() -> None:
    assert _combiner(None, None) is None
    with pytest.raises(UserError, match="`--option` is for a combiner that `--combine` names, found ridge"):
        _combiner(None, ["ridge=1"])
