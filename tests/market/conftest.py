"""One small sample market for all tests of this folder, and the real store where there is one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qlib_ext.market.store import QlibStore
from qlib_ext.market.synthetic.sample import INDICES, SampleMarket
from qlib_ext.market.synthetic.simulation import Firms, Market, found_firms, simulate

REAL = Path(__file__).parents[3] / "shared" / "market" / "cn"


@dataclass(frozen=True)
class Sample:
    """A written market, and the simulation that it was written from."""

    arguments: SampleMarket
    store: QlibStore
    calendar: pd.DatetimeIndex
    firms: Firms
    market: Market

    @property
    def stocks(self) -> list[str]:
        return [code for code in self.store.instruments() if code not in INDICES.values()]

    def read(self, *fields: str) -> np.ndarray:
        """Bars of the stocks, float64 [F, D, S]."""
        return self.store.read(fields, self.stocks).astype(float)


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    arguments = SampleMarket(seed=3, stocks=60, start="2014-01-01", end="2016-12-31")
    store, written = arguments.write(tmp_path_factory.mktemp("market") / "sample")
    assert written
    calendar = arguments.calendar()
    firms = found_firms(3, 60, len(calendar))
    return Sample(arguments, store, calendar, firms, simulate(3, firms, calendar))


@pytest.fixture
def real_store() -> QlibStore:
    if not REAL.is_dir():
        pytest.skip("the real store ../shared/market/cn is not on this machine")
    return QlibStore(REAL)
