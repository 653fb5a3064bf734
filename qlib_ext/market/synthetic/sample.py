"""The sample market: a synthetic A-share market in Qlib's format, so that everything runs without real data.

`qlib-ext data sample --out DIR --seed N` writes it. What the market imitates is told in
`qlib_ext.market.synthetic.simulation`, what can be predicted in it in `qlib_ext.market.synthetic.planted`. The directory holds

- a Qlib store: `calendars/`, `features/`, `instruments/` with the fields open, high, low, close, vwap (adjusted
  yuan), volume (adjusted shares), amount (yuan, = volume * vwap), factor (adjusted = raw * factor) and change
  (a fraction: 0.1 is a limit day);
- the universes sse50, csi100 and csi300, and their indices SH000016, SH000903 and SH000300, whose bars lie with
  those of the stocks and which `all.txt` lists;
- `side/market_value.parquet`, `side/industry.parquet`, `side/planted_score.parquet`, `side/README.md`, and
  `side/sample.json`, the arguments that made it, by which the command knows its own work.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import exchange_calendars
import numpy as np
import pandas as pd

from qlib_ext.market.progress import Progress
from qlib_ext.market.spells import spells_of
from qlib_ext.market.store import write_store
from qlib_ext.market.synthetic.simulation import found_firms, simulate
from qlib_ext.market.synthetic.synthetic_market import (
    SyntheticMarket,
    UniversePlan,
    adjusted,
    choose,
    review_days,
    with_indices,
)

MAXIMUM_STOCKS = 7273  # more codes than Shanghai's main board has numbers for
INDICES = {"sse50": "SH000016", "csi100": "SH000903", "csi300": "SH000300"}


@dataclass(frozen=True)
class SampleMarket(SyntheticMarket):
    """The arguments that make a sample market of A shares, as `SyntheticMarket` has them.

    There are 20 to 7273 `stocks`. From 430 on the universes have 50, 100 and 300 members. With fewer, csi300 has 70 % of
    the firms, csi100 a third of that, and sse50 half of Shanghai's share of csi300.
    """

    VERSION: ClassVar[int] = 2
    EXCHANGE: ClassVar[str] = "XSHG"
    PLACE: ClassVar[str] = "Shanghai"
    MAXIMUM_STOCKS: ClassVar[int] = MAXIMUM_STOCKS

    seed: int = 0
    stocks: int = 430
    start: str = "2010-01-04"
    end: str = "2020-12-31"

    @classmethod
    def _known_days(cls) -> tuple[pd.Timestamp, pd.Timestamp]:
        kind = exchange_calendars.exchange_calendar_xshg.XSHGExchangeCalendar
        return kind.bound_min(), kind.bound_max()

    def _make(self, root: Path, progress: Progress | None) -> None:
        calendar = self.calendar()
        firms = found_firms(self.seed, self.stocks, len(calendar))
        market = simulate(self.seed, firms, calendar, progress)
        members = choose_members(calendar, firms.codes, market.market_value, firms.price * firms.shares)
        bars = with_indices(adjusted(market), market, members.values())
        memberships = {universe: spells_of(calendar, firms.codes, mask) for universe, mask in members.items()}
        write_store(
            root, calendar, [*firms.codes, *(INDICES[u] for u in members)], bars, memberships, progress
        )
        self._write_side(root, README, firms, market)


README = """# A synthetic market

Nothing here is real: no price, no firm, no index. Codes look like those of the Shanghai and Shenzhen exchanges so
that software for them can be tried, and any likeness to the security that bears the same code is chance. Only the
trading calendar is the real one. Results on this market say whether software works, never whether an idea earns.

Made by `qlib-ext data sample {arguments}` (generator version {version}).

| file | columns | point in time |
|---|---|---|
| market_value.parquet | datetime, instrument, market_value (yuan, all shares at the last close) | known at the close of the day |
| industry.parquet | instrument, start, end (both days included), industry | known from `start` on |
| planted_score.parquet | datetime, instrument, score | known at the close of the day |

`planted_score.parquet` is what can be predicted: it follows from the bars of the last 60 days (short-term reversal,
position within the range, volume shock; see `qlib_ext.market.synthetic.planted`) and pushes the return from the close of day
t+1 to the close of day t+2. Its mean daily RankIC against `Ref($close, -2) / Ref($close, -1) - 1` over csi300 is
about 0.10; no model can lastingly do better. Volume is in adjusted shares (raw shares / factor), amount in yuan,
amount = volume * vwap; for indices vwap is a typical price and volume and amount are sums over members.
"""


def choose_members(
    calendar: pd.DatetimeIndex, codes: list[str], market_value: np.ndarray, first_value: np.ndarray
) -> dict[str, np.ndarray]:
    """Members of csi300, csi100 and sse50, day by day, chosen from what was known before: bool `[D, S]` each.

    A review takes effect on the first trading day after the second Friday of June and of December. csi100 is chosen among
    csi300, sse50 among csi300's Shanghai stocks. Market values are yuan: `[D, S]` at the close, NaN when not listed, and
    `[S]` before the first day.
    """
    shanghai = np.array([code.startswith("SH") for code in codes])
    size = min(300, round(0.7 * len(codes)))
    sse50_size = min(50, max(1, round(size * shanghai.mean() / 2)))
    plan = {
        "csi300": UniversePlan(size),
        "csi100": UniversePlan(round(size / 3), lambda chosen: chosen["csi300"]),
        "sse50": UniversePlan(sse50_size, lambda chosen: chosen["csi300"] & shanghai),
    }
    return choose(plan, review_days(calendar, (6, 12), 2), market_value, first_value)
