"""The US sample market: a synthetic market of American shares with macro series, in Qlib's format.

`qlib-ext data sample --region us --out DIR --seed N` writes it. It is the market of `qlib_ext.market.synthetic.simulation`
under American rules: the calendar of the New York exchange, moves of up to 28 % a day, one share is a lot, hardly any
suspension, dividends each quarter, splits of shares above 80 dollars. Two things can be predicted in it: the score of
`qlib_ext.market.synthetic.planted`, which says which stocks do better than others, and the state of the economy of
`qlib_ext.market.synthetic.macro`, which says on which days all of them rise a little. The directory holds

- a Qlib store with the fields open, high, low, close, vwap (adjusted dollars), volume (adjusted shares), amount
  (dollars, = volume * vwap), factor (adjusted = raw * factor) and change (a fraction);
- the universes `sp500` (the largest) and `stocks` (all firms while they are listed), and the index of sp500, `^GSPC`,
  whose bars lie with those of the stocks and which `all.txt` lists;
- `side/macro.parquet` with releases and revisions, `side/market_value.parquet`, `side/industry.parquet`; what is
  planted in `side/planted_score.parquet` and `side/planted_macro.parquet`; `side/README.md` and `side/sample.json`.
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
from qlib_ext.market.synthetic.macro import macro_state, publish, release_table
from qlib_ext.market.synthetic.planted import LOOKBACK_DAYS
from qlib_ext.market.synthetic.simulation import (
    INDUSTRIES,
    MARKET_VOLATILITY,
    Exchange,
    Firms,
    simulate,
)
from qlib_ext.market.synthetic.synthetic_market import (
    SyntheticMarket,
    UniversePlan,
    adjusted,
    choose,
    review_days,
    with_indices,
)

INDEX, UNIVERSE, EVERYONE = "^GSPC", "sp500", "stocks"
MACRO_STRENGTH = 0.06  # mean return of the market per unit of state, in its typical daily standard deviations
CRISIS = ("2008-09-01", "2009-03-31")  # the days of the real one
TURBULENCE = 2.0  # factor on volatility then
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
UNFIT = {"NULL", "NONE", "TRUE"}  # programs that read tables take them for something else

NEW_YORK = Exchange(
    limit=0.28,  # no rule of New York: larger moves are news, which a synthetic market has not
    lot=1.0,
    halt_rate=0.0001,
    halt_days=(1.0,),
    halt_shares=(1.0,),
    pays_in=((1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12)),
    pays=0.6,
    yields=(0.002, 0.008),
    split_above=80.0,
    issues=(0.5, 1.0, 2.0),
)


@dataclass(frozen=True)
class USSampleMarket(SyntheticMarket):
    """The arguments that make a US sample market, as `SyntheticMarket` has them.

    There are 20 to 20000 `stocks`. sp500 has five sixths of them and at most 500, which are there on every day but for
    firms that left since the last review.
    """

    VERSION: ClassVar[int] = 1
    EXCHANGE: ClassVar[str] = "XNYS"
    PLACE: ClassVar[str] = "New York"
    MAXIMUM_STOCKS: ClassVar[int] = 20_000

    seed: int = 0
    stocks: int = 600
    start: str = "2000-01-03"
    end: str = "2009-12-31"

    @classmethod
    def _known_days(cls) -> tuple[pd.Timestamp, pd.Timestamp]:
        # The rules of today's calendar reach a year ahead; before 1990 closures of single days grow many.
        today = exchange_calendars.get_calendar("XNYS").last_session
        return pd.Timestamp("1990-01-01"), today

    def _arguments(self) -> dict[str, object]:
        return {"region": "us", **super()._arguments()}

    def _make(self, root: Path, progress: Progress | None) -> None:
        calendar = self.calendar()
        firms = found_us_firms(self.seed, self.stocks, len(calendar))
        releases = publish(self.seed, self.start, self.end)
        state = macro_state(releases, calendar)
        market = simulate(
            self.seed,
            firms,
            calendar,
            progress,
            NEW_YORK,
            drift=macro_drift(state),
            turbulence=crisis(calendar),
        )
        listed = ~np.isnan(market.market_value)
        plan = {UNIVERSE: UniversePlan(min(500, round(self.stocks * 5 / 6)))}
        reviews = review_days(calendar, (3, 6, 9, 12), 3)
        members = choose(plan, reviews, market.market_value, firms.price * firms.shares)[UNIVERSE]
        bars = with_indices(adjusted(market), market, [members])
        memberships = {
            UNIVERSE: spells_of(calendar, firms.codes, members),
            EVERYONE: spells_of(calendar, firms.codes, listed),
        }
        write_store(root, calendar, [*firms.codes, INDEX], bars, memberships, progress)
        side = self._write_side(root, README, firms, market)
        release_table(releases).to_parquet(side / "macro.parquet", index=False)
        planted = pd.DataFrame(
            {
                "series": "planted_macro",
                "period": calendar.strftime("%Y-%m-%d"),
                "value": state,
                "release_date": calendar,
            }
        )
        planted.to_parquet(side / "planted_macro.parquet", index=False)


README = """# A synthetic market

Nothing here is real: no price, no firm, no index, no figure of an economy. Codes look like those of American exchanges
and series bear the names of real ones so that software for them can be tried, and any likeness is chance. Only the
trading calendar is the real one. Results on this market say whether software works, never whether an idea earns.

Made by `qlib-ext data sample {arguments}` (generator version {version}).

| file | columns | point in time |
|---|---|---|
| macro.parquet | series, period, value, release_date | known from `release_date` on; a later release of a period is a revision |
| market_value.parquet | datetime, instrument, market_value (dollars, all shares at the last close) | known at the close of the day |
| industry.parquet | instrument, start, end (both days included), industry | known from `start` on |
| planted_score.parquet | datetime, instrument, score | known at the close of the day |
| planted_macro.parquet | series, period (a day), value, release_date | known at the close of the day |

The two `planted_` tables are what can be predicted. The score follows from the bars of the last 60 days (short-term
reversal, position within the range, volume shock; see `qlib_ext.market.synthetic.planted`) and pushes the return from the
close of day t+1 to the close of day t+2; its mean daily RankIC against that return over sp500 is about 0.10. The macro
state follows from the figures published by the close of day t (growth, change of unemployment and of the bill rate; see
`qlib_ext.market.synthetic.macro`) and moves the market on day t+1 by 0.06 of its typical daily standard deviation for each
unit, a stock by its beta times that. Volatility is doubled from 2008-09-01 to 2009-03-31. Volume is in adjusted shares
(raw shares / factor), amount in dollars, amount = volume * vwap; for the index vwap is a typical price and volume and
amount are sums over members.
"""


def found_us_firms(seed: int, stocks: int, days: int) -> Firms:
    """Draw `stocks` firms for a market of `days` days: nine in ten are listed before the first day, one in 20 leaves."""
    rng = np.random.default_rng([seed, 0])
    numbers = rng.choice(len(LETTERS) ** 4, stocks + len(UNFIT), replace=False)
    codes = [code for code in map(_code, numbers) if code not in UNFIT][:stocks]
    late = rng.permutation(stocks) < round(0.1 * stocks)
    listed = np.where(late, rng.integers(1, max(2, days - LOOKBACK_DAYS), stocks), 0)
    leaves = rng.random(stocks) < 0.05
    first_leave = np.minimum(listed + days // 3, days)
    delisted = np.where(leaves, rng.integers(first_leave, days + 1), days)
    kinds = int(np.clip(stocks // 12, 3, len(INDUSTRIES)))
    industry = rng.integers(0, kinds, stocks)
    other = (industry + rng.integers(1, kinds, stocks)) % kinds
    moves = np.where(rng.random(stocks) < 0.03, rng.integers(1, days, stocks), days)
    price = np.round(np.clip(32.0 * np.exp(0.5 * rng.standard_normal(stocks)), 8.0, 120.0), 2)
    value = 10e9 * np.exp(1.1 * rng.standard_normal(stocks) - 0.5 * late)
    return Firms(
        codes=sorted(codes),
        listed=listed,
        delisted=delisted,
        industry=industry,
        later_industry=np.where(moves < days, other, industry),
        moves=moves,
        beta=np.clip(1.0 + 0.3 * rng.standard_normal(stocks), 0.3, 2.0),
        volatility=0.016 * np.exp(0.25 * rng.standard_normal(stocks)),
        price=price,
        shares=np.round(value / price, -3),
        factor=np.exp(np.where(late, 0.0, -np.abs(rng.standard_normal(stocks)))),
        turnover=0.006 * np.exp(0.5 * rng.standard_normal(stocks)),
    )


def macro_drift(state: np.ndarray) -> np.ndarray:
    """Log return of the market that each day `[D]` owes to the state `[D]` at the close of the day before."""
    drift = np.zeros(len(state))
    drift[1:] = MACRO_STRENGTH * MARKET_VOLATILITY * state[:-1]
    return drift


def crisis(calendar: pd.DatetimeIndex) -> np.ndarray:
    """Factor on all volatilities of each day `[D]`."""
    inside = (calendar >= pd.Timestamp(CRISIS[0])) & (calendar <= pd.Timestamp(CRISIS[1]))
    return np.where(inside, TURBULENCE, 1.0)


def _code(number: int) -> str:
    letters = []
    for _ in range(4):
        number, letter = divmod(int(number), len(LETTERS))
        letters.append(LETTERS[letter])
    return "".join(letters)
