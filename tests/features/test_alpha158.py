"""Alpha158 has Qlib's names, formulas and normalised numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from qlib.contrib.data.handler import Alpha158 as Theirs
from qlib.contrib.data.loader import Alpha158DL

from qlib_ext.checks import UserError
from qlib_ext.features.alpha158 import SELECTED, Alpha158
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.market.store import QlibStore
from tests.data.conftest import UNIVERSE


def test_the_formulas_are_qlibs() -> None:
    texts, names = Alpha158DL.get_feature_config()
    assert Alpha158().expressions == dict(zip(names, texts, strict=True))
    assert Alpha158().column_names() == names


@pytest.mark.usefixtures("qlib_reads_the_store")
def test_the_table_is_qlibs(store: QlibStore) -> None:
    handler = Theirs(instruments=UNIVERSE, infer_processors=[], learn_processors=[])
    theirs = handler.fetch(col_set="feature", data_key="raw")
    features = Alpha158(normalise="none", clip=None)
    market = MarketPanel.load(store, UNIVERSE, features.fields)
    features.join(store, market)
    padded = torch.from_numpy(features.pad(market))
    features.fit(market, market.present)
    compared = 0
    for day in range(0, len(market.calendar), 7):
        stocks = np.flatnonzero(market.present[day])
        found = features.gather(padded, day, torch.from_numpy(stocks))[:, 0].numpy()
        rows = [(market.calendar[day], market.instruments[stock]) for stock in stocks]
        expected = np.nan_to_num(theirs.loc[rows].to_numpy(), nan=0.0, posinf=0.0, neginf=0.0)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        compared += expected.size
    assert compared > 10_000


def test_some_of_them_in_windows() -> None:
    features = Alpha158(names="selected", lookback_days=20)
    assert features.names == tuple(SELECTED)
    assert len(SELECTED) == 20
    assert features.column_names()[:2] == ["RESI5_LAG19", "RESI5_LAG18"]
    assert Alpha158(names=["ROC7"], windows=[7]).expressions == {"ROC7": "Ref($close, 7)/$close"}
    with pytest.raises(UserError, match=r"must be features of Alpha158, found 'ROC7' \(did you mean ROC"):
        Alpha158(names=["ROC7"])


def test_families_are_the_candle_the_prices_and_a_formula_with_all_its_days() -> None:
    families = Alpha158().families()
    assert list(families)[:4] == ["KBAR", "PRICE", "ROC", "MA"]
    assert families["PRICE"] == ("OPEN0", "HIGH0", "LOW0", "VWAP0")
    assert families["ROC"] == ("ROC5", "ROC10", "ROC20", "ROC30", "ROC60")
    assert len(families) == 2 + 29
    assert [name for family in families.values() for name in family] == list(Alpha158().names)
    assert Alpha158(["ROC7", "KMID", "ROC3"], windows=[3, 7]).families() == {
        "ROC": ("ROC7", "ROC3"),
        "KBAR": ("KMID",),
    }
