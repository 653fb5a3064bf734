"""Random expressions, as deep as people write them, have Qlib's values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from qlib.data import D

from benchmarks.features import difference
from benchmarks.random_expressions import random_expressions
from qlib_ext.features.engine import evaluation
from qlib_ext.features.market_panel import MarketPanel

NUMBER = 30  # of a few stocks; `benchmarks/features.py` takes 500 of real ones


@pytest.mark.filterwarnings("ignore")  # what numpy says of Qlib's infinite values
def test_their_values_are_qlibs(panel: MarketPanel) -> None:
    texts = random_expressions(NUMBER, first=1)
    table = D.features(list(panel.instruments), texts, freq="day")
    days = panel.calendar.get_indexer(table.index.get_level_values("datetime"))
    stocks = pd.Index(panel.instruments).get_indexer(table.index.get_level_values("instrument"))
    different = {}
    for i, text in enumerate(texts):
        theirs = np.full(panel.members.shape, np.nan, np.float32)
        theirs[days, stocks] = table.iloc[:, i]
        found = difference(evaluation.evaluate(text, panel), theirs)
        if found["different"]:
            different[text] = found
    assert different == {}


def test_the_judge_sees_what_differs() -> None:
    values = np.array([1.0, 2.0, np.nan, np.inf])
    assert difference(values, values)["different"] == 0
    for wrong in (
        [1.0, 2.1, np.nan, np.inf],
        [1.0, np.nan, np.nan, np.inf],
        [1.0, 2.0, 0.0, np.inf],
        [1.0, 2.0, np.nan, -np.inf],
    ):
        assert difference(np.array(wrong), values)["different"] == 1
    assert difference(np.array([1.0, 1e-9]), np.array([1.0, 2e-9]))["below_qlibs_digits"] == 1
