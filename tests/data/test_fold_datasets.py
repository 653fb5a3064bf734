"""The dataset of a fold and that of all, from the configuration of one that walks forward."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.data.fold_datasets import (
    folds_of,
    of_all_folds,
    of_fold,
    read_plan,
    walks_forward,
    with_segments,
)
from qlib_ext.data.folds import FoldPlan
from qlib_ext.data.labels.horizon import HorizonReturn
from qlib_ext.market.store import QlibStore
from tests.data.conftest import UNIVERSE

PLAN = {"train": "12w", "valid": "6w", "test": "8w"}
HORIZON = f"{HorizonReturn.__module__}.HorizonReturn"


def dataset(labels: Any = None, **kwargs: Any) -> dict[str, Any]:
    processor = {
        "class": "qlib.data.dataset.processor.RobustZScoreNorm",
        "kwargs": {"fit_start_time": "2000-01-01"},
    }
    processor["kwargs"]["fit_end_time"] = "2001-01-01"
    handler = {"instruments": UNIVERSE, "infer_processors": [processor]}
    if labels is not None:
        handler = {"instruments": UNIVERSE, "labels": labels}
    return {
        "class": "qlib_ext.data.dataset.DailyPanelDataset",
        "kwargs": {
            "handler": {"class": "qlib_ext.data.handlers.panel.PanelHandler", "kwargs": handler},
            "segments": {"walk_forward": PLAN},
            **kwargs,
        },
    }


def test_all_that_is_fitted_is_fitted_on_the_days_of_the_fold(store: QlibStore) -> None:
    config = dataset({"RETURN": "Ref($close, -2) / Ref($close, -1) - 1"})
    last = folds_of(config, store)[-1]
    plain = of_fold(dataset(), last)["kwargs"]
    assert plain["segments"] == last.segments
    handler = plain["handler"]["kwargs"]
    for holder in (handler, handler["infer_processors"][0]["kwargs"]):
        assert [holder["fit_start_time"], holder["fit_end_time"]] == last.segments["train"]
    assert config["kwargs"]["segments"] == {"walk_forward": PLAN}, "left as it was"


STRETCHES = [["2016-01-04", "2016-03-31"], ["2016-06-01", "2016-08-31"], ["2016-10-03", "2016-12-30"]]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_what_is_trained_in_stretches_is_fitted_on_them(number: int) -> None:
    segments = {"train": STRETCHES[:number], "test": ["2016-09-01", "2016-09-30"]}
    own = dataset({"RETURN": "Ref($close, -2) / Ref($close, -1) - 1"})
    own["kwargs"]["handler"]["kwargs"] |= {"fit_start_time": "2000-01-01", "fit_end_time": "2001-01-01"}
    found = with_segments(own, segments, judging=True)["kwargs"]
    handler = found["handler"]["kwargs"]
    assert (found["segments"], handler["fit_spans"]) == (segments, STRETCHES[:number])
    assert found["judging"] is True
    assert not {"fit_start_time", "fit_end_time"} & {*handler}
    with pytest.raises(UserError, match="RobustZScoreNorm' is fitted from one day to another"):
        with_segments(dataset(), segments)


@pytest.mark.parametrize("days", [1, 5])
def test_segments_lie_as_far_apart_as_the_longest_label_reaches(store: QlibStore, days: int) -> None:
    labels = {"RETURN": {"class": HORIZON, "kwargs": {"days": days}}, "NEXT": "Ref($close, -1) / $close - 1"}
    reach = HorizonReturn(days=days).horizon_days
    for fold in folds_of(dataset(labels), store):
        train, valid, test = (
            store.calendar.get_indexer(part) for part in (fold.train, fold.valid, fold.test)
        )
        assert valid[0] - train[1] == test[0] - valid[1] == reach + 1


def test_the_dataset_of_all_reaches_from_the_first_score_to_the_last(store: QlibStore) -> None:
    config = dataset({"RETURN": "Ref($close, -2) / Ref($close, -1) - 1"}, cache="somewhere")
    folds = folds_of(config, store)
    kwargs = of_all_folds(config, (folds[0].test[0], folds[-1].test[1]))["kwargs"]
    assert [pd.Timestamp(day) for day in kwargs["segments"]["test"]] == [folds[0].test[0], folds[-1].test[1]]
    assert "cache" not in kwargs
    assert kwargs["handler"]["kwargs"]["features"]["class"].endswith("NoFeatures")


@pytest.mark.parametrize(
    "given", [None, {}, {"kwargs": None}, {"kwargs": {"segments": [1]}}, {"class": "x", "kwargs": {}}]
)
def test_what_names_no_folds_does_not_walk(given: Any) -> None:
    assert not walks_forward(given)


def test_a_dataset_of_others_cannot_walk() -> None:
    config = {
        "class": "qlib.data.dataset.DatasetH",
        "kwargs": {"handler": {}, "segments": {"walk_forward": PLAN}},
    }
    assert walks_forward(config)
    with pytest.raises(UserError, match="must be a DailyPanelDataset"):
        read_plan(config, FoldPlan)
