from __future__ import annotations

import datetime as dt
import logging
import sys
import types
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
from qlib.contrib.model.gbdt import LGBModel
from torch import nn

from qlib_ext.checks import UserError
from qlib_ext.config.allowlist import VARIABLE
from qlib_ext.config.build import build, dotted
from qlib_ext.config.described import described, in_notebook
from qlib_ext.model.balancers.cqb import CQB
from qlib_ext.model.combiners.ic_weights import ICWeights
from qlib_ext.model.losses.base import Loss
from qlib_ext.model.losses.cross_entropy import CrossEntropy
from qlib_ext.model.losses.mse import MSE
from qlib_ext.model.losses.weighted_sum import WeightedSum

HERE = "qlib_ext.model.losses"


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of a user, in which a loss stands."""
    module = types.ModuleType("my_losses")
    vars(module)["Mine"] = type("Mine", (MSE,), {"__module__": "my_losses", "__qualname__": "Mine"})
    monkeypatch.setitem(sys.modules, "my_losses", module)
    monkeypatch.setenv(VARIABLE, "")
    return module


class TestCalls:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (MSE(), {"class": f"{HERE}.mse.MSE"}),
            (MSE, {"class": f"{HERE}.mse.MSE"}),
            (partial(CQB, 0.7), {"class": "qlib_ext.model.balancers.cqb.CQB", "kwargs": {"beta": 0.7}}),
            (
                WeightedSum([MSE(), MSE()], weights=[0.5, np.float64(0.5)]),
                {
                    "class": f"{HERE}.weighted_sum.WeightedSum",
                    "kwargs": {"losses": [{"class": f"{HERE}.mse.MSE"}] * 2, "weights": [0.5, 0.5]},
                },
            ),
            ({"a": [1, "b", None, dt.date(2020, 1, 2)]}, {"a": [1, "b", None, dt.date(2020, 1, 2)]}),
        ],
    )
    def test_an_object_is_its_call(self, given: Any, expected: Any) -> None:
        assert described(given, name="x") == expected

    def test_what_is_described_is_built_again(self) -> None:
        made = WeightedSum([CrossEntropy(), CrossEntropy()], weights=[0.3, 0.7])
        again = build(described(made, name="loss"), Loss, name="loss")
        assert described(again, name="loss") == described(made, name="loss")

    def test_of_other_objects_attributes_tell(self) -> None:
        found = described(LGBModel(num_leaves=31, early_stopping_rounds=9), name="model")
        assert found == {
            "class": "qlib.contrib.model.gbdt.LGBModel",
            "kwargs": {"num_leaves": 31, "early_stopping_rounds": 9},
        }

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (nn.Linear(2, 3), r"`x` is a Linear of which the arguments are not known.*partial\(Linear"),
            (pd.Series([1.0]), "found data, a Series"),
            (np.zeros(2), "found data, a ndarray"),
            (partial(nn.Sequential, nn.ReLU()), "by their names"),
            (partial(MSE, 1, 2), "`x` does not fit MSE"),  # type: ignore[call-arg]
        ],
    )
    def test_what_cannot_be_made_again_is_refused(self, given: Any, said: str) -> None:
        with pytest.raises(UserError, match=said):
            described(given, name="x")

    def test_nor_a_model_that_was_fitted(self) -> None:
        model = LGBModel()
        model.model = object()
        with pytest.raises(UserError, match="no object that was used already"):
            described(model, name="model")

    def test_nor_one_of_the_package_that_learned(self) -> None:
        combiner = ICWeights()
        assert described(combiner, name="combine") == {"class": dotted(ICWeights)}
        draws = np.random.default_rng(0).normal(size=(2, 5, 9))
        combiner.fit(draws, draws.sum(axis=0))
        with pytest.raises(UserError, match=r"`combine` must be as its call .* make it anew, ICWeights\("):
            described(combiner, name="combine")


class TestPlaces:
    def test_a_module_of_ones_own_is_trusted_and_told(
        self, mine: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            found = described(mine.Mine(), name="loss")
            described(mine.Mine(), name="loss")
        assert build(found, Loss, name="loss").__class__ is mine.Mine
        assert len(caplog.records) == 1
        assert "set QLIB_EXT_PACKAGES=my_losses there" in caplog.text

    def test_a_class_that_was_defined_anew_is_told(self, mine: Any) -> None:
        old = mine.Mine()
        mine.Mine = type("Mine", (MSE,), {"__module__": "my_losses", "__qualname__": "Mine"})
        with pytest.raises(UserError, match="was defined anew since"):
            described(old, name="loss")

    def test_a_class_inside_of_a_function_is_refused(self) -> None:
        class Inside(MSE):
            pass

        with pytest.raises(UserError, match="define it at the top of a module, or of the notebook"):
            described(Inside(), name="loss")

    def test_classes_of_a_notebook_are_seen_at_any_depth(self) -> None:
        config = {"model": {"class": "a.B", "kwargs": {"losses": [{"class": "__main__.Mine"}]}}}
        assert in_notebook(config) == ["__main__.Mine"]
