"""A market in which a factor is planted, small enough for plain loops."""

from __future__ import annotations

import pytest

from qlib_ext.factors.scorecard import Scorecard, scorecard
from qlib_ext.factors.subject import of_file
from qlib_ext.features.expressions import Expressions
from qlib_ext.market.store import QlibStore
from qlib_ext.market.synthetic.sample import SampleMarket

FACTORS = {
    "REVERSAL": "Ref($close, 5)/$close",
    "REVERSAL_AGAIN": "$close/Ref($close, 5)",
    "RETURN20": "$close/Ref($close, 20)-1",
    "CANDLE": "($close-$open)/$open",
    "VOLUME": "$volume/Mean($volume, 20)",
    "AHEAD": "Ref($close, -2)/$close",
}


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> QlibStore:
    root = tmp_path_factory.mktemp("factors") / "store"
    SampleMarket(seed=3, stocks=24, start="2014-09-01", end="2015-06-30").write(root)
    return QlibStore(root)


@pytest.fixture(scope="session")
def found(store: QlibStore) -> Scorecard:
    """The scorecard of some formulas, one of which reads later days."""
    source = Expressions(FACTORS, normalise="none", clip=None)
    return scorecard(of_file("few.yaml", store, "csi300", source, "2014-11-03", "2015-05-29"))
