from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.data.panel import DailyPanel, DailyPanels
from qlib_ext.model.day_scores import DayScores


class Model:
    """Answers by what a test makes of the dataset that it is given."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self.predict = answer


@pytest.fixture(scope="module")
def days(make_panels: Callable[..., DailyPanels]) -> DailyPanels:
    return make_panels()


@pytest.fixture
def dataset(days: DailyPanels) -> Any:
    return SimpleNamespace(
        handler=SimpleNamespace(features=days.features),
        instruments=days.instruments,
        panels=lambda segment, device: (segment, device),
        prepare=lambda segments, **kwargs: ("the dataset's own", segments, kwargs),
    )


def features(dataset: Any) -> pd.DataFrame:
    return dataset.prepare("test", col_set="feature", data_key="infer")


@pytest.fixture
def panel(days: DailyPanels) -> DailyPanel:
    return days[5]


def test_a_model_of_tables_is_given_the_day_as_qlib_tabulates_it(
    days: DailyPanels, dataset: Any, panel: DailyPanel
) -> None:
    given = []

    def answer(asked: Any) -> pd.Series:
        given.append(features(asked))
        return given[-1]["CLOSE1"]

    found = DayScores(Model(answer), dataset).of(panel)(2 * panel.features)
    table = given[0]
    assert [*table.columns] == days.features.column_names()
    assert {*table.index.get_level_values("datetime")} == {panel.date}
    codes = [days.instruments[k] for k in panel.instruments]
    assert [*table.index.get_level_values("instrument")] == codes
    # CLOSE3, CLOSE2, CLOSE1, CLOSE0: the day before today is the third of four
    np.testing.assert_array_equal(
        table["CLOSE1"], 2 * panel.features[:, 2, days.features.names.index("close")]
    )
    np.testing.assert_array_equal(found, table["CLOSE1"])


def test_scores_come_in_the_order_of_the_panel(dataset: Any, panel: DailyPanel) -> None:
    def answer(asked: Any) -> pd.DataFrame:  # in another order, of some stocks, with more than a score
        table = features(asked)
        return pd.DataFrame({"score": table["CLOSE1"], "more": 0.0}).iloc[:0:-1]

    found = DayScores(Model(answer), dataset).of(panel)(panel.features)
    assert np.isnan(found[0])
    np.testing.assert_array_equal(found[1:], features_of(panel)[1:])


def features_of(panel: DailyPanel) -> np.ndarray:
    return panel.features[:, 2, 0].numpy()


def test_what_else_a_model_asks_is_answered_by_the_dataset(dataset: Any, panel: DailyPanel) -> None:
    def answer(asked: Any) -> pd.Series:
        assert asked.prepare("train", col_set="feature") == (
            "the dataset's own",
            "train",
            {"col_set": "feature"},
        )
        assert asked.instruments == dataset.instruments
        return features(asked)["CLOSE0"]

    assert len(DayScores(Model(answer), dataset).of(panel)(panel.features)) == len(panel)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            lambda asked: asked.prepare("test", col_set=["feature", "label"]),
            r"asks for `col_set` feature, found \['feature', 'label'\]",
        ),
        (
            lambda asked: pd.Series([1.0], pd.MultiIndex.from_tuples([(pd.Timestamp("2001-01-01"), "A")])),
            r"Model was given \d+ stocks of one day, and scored others: found 1 rows",
        ),
    ],
)
def test_a_model_that_does_not_go_by_the_features_of_the_day(
    answer: Callable[[Any], Any], message: str, dataset: Any, panel: DailyPanel
) -> None:
    with pytest.raises(UserError, match=message):
        DayScores(Model(answer), dataset).of(panel)(panel.features)


def test_a_model_of_tables_reads_panels_on_the_processor(dataset: Any) -> None:
    assert DayScores(Model(features), dataset).panels("valid") == ("valid", "cpu")
