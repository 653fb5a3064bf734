"""A synthetic market, day by day: who is listed, what trades, at what price and volume.

Everything here is invented from random numbers. What it imitates of the real markets, Chinese A shares by default:

- a market return, industry returns and idiosyncratic returns, with Student-t shocks and volatilities that
  follow persistent log-autoregressions (fat tails, volatility clustering);
- prices in cents that close, open and trade within a limit (10 % in China) around the day's reference price,
  rounded as the exchanges do; what a shock moves beyond the limit is lost, so a limit day says
  nothing of the next;
- suspensions, listings, delistings (some at random, some after 20 days below 1 yuan or dollar);
- cash dividends, and bonus shares or splits of high-priced stocks, carried by the adjustment factor;
- turnover that rises with volatility and with the size of the day's move, and is itself persistent.

Simplifications: a listing's first day has the usual limit, every board has 10 %, all shares float, no taxes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
from scipy.signal import lfilter

from qlib_ext.market.progress import Progress
from qlib_ext.market.synthetic.planted import LOOKBACK_DAYS, planted_score

DRIFT_DELAY_DAYS = 2
PLANTED_STRENGTH = 0.099  # mean drift per unit of score, in mean idiosyncratic volatilities: RankIC 0.10
DELIST_BELOW, DELIST_AFTER_DAYS = 1.0, 20  # yuan or dollars
MARKET_VOLATILITY = 0.011  # typical daily standard deviation of the return that all stocks share

INDUSTRIES = (
    "agriculture", "automobiles", "banks", "brokers", "building_materials", "chemicals", "coal", "computers",
    "construction", "defence", "electrical_equipment", "electronics", "food_beverage", "gas_water", "healthcare",
    "home_appliances", "insurance", "leisure", "machinery", "media", "metals", "oil", "power", "real_estate",
    "retail", "steel", "telecom", "transport",
)  # fmt: skip


@dataclass(frozen=True)
class Exchange:
    """The rules and habits of a place where stocks trade.

    Attributes
    ----------
    limit
        How far a price may move from the day's reference price, as a fraction.
    lot
        Shares that the volume is a multiple of.
    halt_rate
        Chance, a stock and day, that a suspension begins.
    halt_days, halt_shares
        Mean lengths of suspensions in trading days, and how often each comes.
    pays_in
        Months of each dividend season of a year.
    pays
        Chance that a firm pays in a season.
    yields
        Lowest and highest dividend as a fraction of the price.
    split_above
        Price from which a paying firm issues shares.
    issues
        New shares a share, one of which is drawn.
    """

    limit: float
    lot: float
    halt_rate: float
    halt_days: tuple[float, ...]
    halt_shares: tuple[float, ...]
    pays_in: tuple[tuple[int, ...], ...]
    pays: float
    yields: tuple[float, float]
    split_above: float
    issues: tuple[float, ...]


CHINA = Exchange(
    limit=0.10,
    lot=100.0,
    halt_rate=0.003,
    halt_days=(1.0, 8.0, 40.0),
    halt_shares=(0.6, 0.3, 0.1),
    pays_in=((5, 6, 7),),
    pays=0.7,
    yields=(0.005, 0.03),
    split_above=40.0,
    issues=(0.5, 1.0, 1.5),
)


@dataclass(frozen=True)
class Firms:
    """S invented firms.

    Attributes
    ----------
    codes : list of str
        Sorted; of Chinese firms `SH60xxxx`, `SZ00xxxx` and `SZ30xxxx`.
    listed, delisted : int [S]
        First day with a bar, and the first day after the last one (D where it stays); planned, before the
        simulation delists firms for their price.
    industry, later_industry, moves : int [S]
        Index into `INDUSTRIES` before day `moves` and from it on (D where it never moves).
    beta, volatility : float [S]
        Loading on the market, and the level of the daily idiosyncratic standard deviation.
    price, shares, factor : float [S]
        Reference price in yuan or dollars before the first bar, shares outstanding, adjustment factor at that time.
    turnover : float [S]
        Typical share of the shares that trades in a day.
    """

    codes: list[str]
    listed: np.ndarray
    delisted: np.ndarray
    industry: np.ndarray
    later_industry: np.ndarray
    moves: np.ndarray
    beta: np.ndarray
    volatility: np.ndarray
    price: np.ndarray
    shares: np.ndarray
    factor: np.ndarray
    turnover: np.ndarray

    def industries(self, day: int) -> np.ndarray:
        """Index of each firm's industry on `day`: int [S]."""
        return np.where(day >= self.moves, self.later_industry, self.industry)


@dataclass(frozen=True)
class Market:
    """D days of S firms, each array float [D, S]; NaN where there is no bar unless said otherwise.

    Attributes
    ----------
    open, high, low, close, vwap
        Raw prices in yuan or dollars.
    volume
        Raw shares, in whole lots.
    factor
        Adjusted price = raw price * factor.
    change
        Close over the day's reference price, less one.
    market_value
        Yuan or dollars, at the last close: there on suspended days too; NaN when not listed.
    score
        Planted score at the close.
    """

    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    vwap: np.ndarray
    volume: np.ndarray
    factor: np.ndarray
    change: np.ndarray
    market_value: np.ndarray
    score: np.ndarray


def found_firms(seed: int, stocks: int, days: int) -> Firms:
    """Draw `stocks` firms for a market of `days` days: 55 % in Shanghai, 78 % listed before the first day."""
    rng = np.random.default_rng([seed, 0])
    in_shanghai = round(0.55 * stocks)
    growth_board = round(0.3 * (stocks - in_shanghai))
    numbers = (
        [f"SH60{n:04d}" for n in rng.choice(4000, in_shanghai, replace=False)]
        + [f"SZ00{n:04d}" for n in 1 + rng.choice(2999, stocks - in_shanghai - growth_board, replace=False)]
        + [f"SZ30{n:04d}" for n in 1 + rng.choice(999, growth_board, replace=False)]
    )
    late = rng.permutation(stocks) < round(0.22 * stocks)
    listed = np.where(late, rng.integers(1, max(2, days - LOOKBACK_DAYS), stocks), 0)
    leaves = rng.random(stocks) < 0.06
    first_leave = np.minimum(listed + days // 3, days)
    delisted = np.where(leaves, rng.integers(first_leave, days + 1), days)
    kinds = int(np.clip(stocks // 12, 3, len(INDUSTRIES)))
    industry = rng.integers(0, kinds, stocks)
    other = (industry + rng.integers(1, kinds, stocks)) % kinds
    moves = np.where(rng.random(stocks) < 0.05, rng.integers(1, days, stocks), days)
    price = np.round(np.clip(15.0 * np.exp(0.5 * rng.standard_normal(stocks)), 4.0, 60.0), 2)
    value = 12e9 * np.exp(1.0 * rng.standard_normal(stocks) - 0.5 * late)
    return Firms(
        codes=sorted(numbers),
        listed=listed,
        delisted=delisted,
        industry=industry,
        later_industry=np.where(moves < days, other, industry),
        moves=moves,
        beta=np.clip(1.0 + 0.2 * rng.standard_normal(stocks), 0.4, 1.7),
        volatility=0.019 * np.exp(0.22 * rng.standard_normal(stocks)),
        price=price,
        shares=np.round(value / price, -4),
        factor=np.exp(np.where(late, 0.0, np.abs(rng.standard_normal(stocks)))),
        turnover=0.01 * np.exp(0.5 * rng.standard_normal(stocks)),
    )


def simulate(
    seed: int,
    firms: Firms,
    calendar: pd.DatetimeIndex,
    progress: Progress | None = None,
    exchange: Exchange = CHINA,
    drift: np.ndarray | None = None,
    turbulence: np.ndarray | None = None,
) -> Market:
    """Run the market over `calendar`; equal arguments give equal bits.

    Parameters
    ----------
    seed, firms, calendar
        Of every random draw; S firms; D trading days.
    progress
        Called with (done, total, what) of the days.
    exchange
        Where the firms are listed.
    drift
        `[D]`: log return of the market that is added on each day, times a firm's beta; None: nothing.
    turbulence
        `[D]`: factor on all volatilities of each day; None: 1.
    """
    run = _Run(seed, firms, calendar, exchange, drift, turbulence)
    for day in range(len(calendar)):
        run.step(day)
        if progress is not None:
            progress(day + 1, len(calendar), "simulating days")
    return Market(**run.out)


class _Run:
    """The market as it stands before a day, and all that it was before."""

    def __init__(
        self,
        seed: int,
        firms: Firms,
        calendar: pd.DatetimeIndex,
        exchange: Exchange,
        drift: np.ndarray | None,
        turbulence: np.ndarray | None,
    ) -> None:
        days, stocks = shape = len(calendar), len(firms.codes)
        self.firms, self.exchange = firms, exchange
        self.push = np.zeros(days) if drift is None else drift
        self.nature = _draw(seed, firms, days, np.ones(days) if turbulence is None else turbulence)
        self.halted = _suspensions(seed, shape, exchange)
        self.dividend_due, self.dividend_yield, self.bonus = _distributions(seed, calendar, stocks, exchange)
        self.out = {field.name: np.full(shape, np.nan) for field in fields(Market)}
        self.adjusted = {
            name: np.full((LOOKBACK_DAYS + days, stocks), np.nan)
            for name in ("close", "high", "low", "volume")
        }
        self.price, self.factor, self.shares = firms.price.copy(), firms.factor.copy(), firms.shares.copy()
        # A distribution that falls on a suspended day waits for the next bar.
        self.pending = np.zeros(stocks, dtype=bool)
        self.alive = np.ones(stocks, dtype=bool)
        self.low_days = np.zeros(stocks, dtype=int)

    def step(self, day: int) -> None:
        """Let the firms trade on a day."""
        listed = self.firms.listed
        present = self.alive & (listed <= day) & (day < self.firms.delisted)
        traded = present & (~self.halted[day] | (day == listed))
        reference = self._pay_out(day, present, traded)
        bars = self._trade(day, reference)
        self.price = np.where(traded, bars["close"], self.price)
        for name, value in bars.items():
            self.out[name][day] = np.where(traded, value, np.nan)
        self.out["market_value"][day] = np.where(present, self.price * self.shares, np.nan)
        self.out["score"][day] = self._score(day)
        below = np.where(bars["close"] < DELIST_BELOW, self.low_days + 1, 0)
        self.low_days = np.where(traded, below, self.low_days)
        self.alive &= self.low_days < DELIST_AFTER_DAYS

    def _pay_out(self, day: int, present: np.ndarray, traded: np.ndarray) -> np.ndarray:
        """The reference price: the last close, less what the firm pays out today."""
        self.pending |= present & self.dividend_due[day]
        paying = self.pending & traded & (day > self.firms.listed)
        self.pending &= ~paying
        price = self.price
        issue = np.where(paying & (price > self.exchange.split_above), self.bonus[day], 0.0)
        cash = np.where(paying, np.round(self.dividend_yield[day] * price, 2), 0.0)
        reference = np.where(paying, np.maximum(_cents((price - cash) / (1.0 + issue)), 0.01), price)
        self.factor = self.factor * price / reference
        self.shares = self.shares * (1.0 + issue)
        return reference

    def _move(self, day: int) -> np.ndarray:
        """Log return of each firm: nature, industry, market, and what its score of two days ago promised."""
        nature = self.nature
        move = nature.move[day] + nature.industry[day][self.firms.industries(day)]
        move = move + self.firms.beta * self.push[day]
        if day >= DRIFT_DELAY_DAYS:
            known = self.out["score"][day - DRIFT_DELAY_DAYS]
            move = move + nature.premium[day] * nature.volatility[day].mean() * np.nan_to_num(known)
        return move

    def _trade(self, day: int, reference: np.ndarray) -> dict[str, np.ndarray]:
        """Bars of the day, as if all firms traded."""
        nature, exchange, move = self.nature, self.exchange, self._move(day)
        volatility = nature.volatility[day]
        up, down = _cents(reference * (1.0 + exchange.limit)), _cents(reference * (1.0 - exchange.limit))
        down = np.maximum(down, 0.01)
        close = np.clip(_cents(reference * np.exp(move)), down, up)
        gap = 0.3 * move + 0.35 * volatility * nature.gap[day]
        opened = np.clip(_cents(reference * np.exp(gap)), down, up)
        high, low = _extremes(reference, opened, close, volatility, nature.high[day], nature.low[day])
        high = np.clip(_cents(high), np.maximum(opened, close), up)
        low = np.clip(_cents(low), down, np.minimum(opened, close))
        vwap = np.clip((opened + high + low + close) / 4 + 0.1 * (high - low) * nature.vwap[day], low, high)
        surprise = np.minimum(np.abs(move) / volatility, 4.0)
        turnover = self.firms.turnover * np.exp(nature.turnover[day] + 0.3 * (surprise - 0.8))
        lots = np.round(self.shares * np.minimum(turnover, 0.5) / exchange.lot) * exchange.lot
        volume = np.maximum(lots, exchange.lot)
        bars = {"open": opened, "high": high, "low": low, "close": close, "vwap": vwap, "volume": volume}
        return bars | {"factor": self.factor, "change": close / reference - 1.0}

    def _score(self, day: int) -> np.ndarray:
        row = LOOKBACK_DAYS + day
        for name in ("close", "high", "low"):
            self.adjusted[name][row] = self.out[name][day] * self.factor
        self.adjusted["volume"][row] = self.out["volume"][day] / self.factor
        window = slice(row + 1 - LOOKBACK_DAYS, row + 1)
        return planted_score(**{name: bars[window] for name, bars in self.adjusted.items()})


@dataclass(frozen=True)
class _Nature:
    """Everything random that no price feeds back into: arrays [D, S], `industry` [D, I]."""

    move: np.ndarray  # market and idiosyncratic log return
    industry: np.ndarray
    volatility: np.ndarray  # idiosyncratic standard deviation
    turnover: np.ndarray  # log turnover relative to the firm's own
    gap: np.ndarray
    vwap: np.ndarray
    high: np.ndarray
    low: np.ndarray
    premium: np.ndarray  # [D], of a unit of planted score, in mean volatilities


def _draw(seed: int, firms: Firms, days: int, turbulence: np.ndarray) -> _Nature:
    rng = np.random.default_rng([seed, 1])
    stocks = len(firms.codes)
    # one volatility regime for everything
    regime = 0.25 * _persistent(rng, (days, 1), 0.985) + np.log(turbulence)[:, None]
    market_volatility = MARKET_VOLATILITY * np.exp(1.3 * regime + 0.3 * _persistent(rng, (days, 1), 0.95))
    market = 0.0001 + market_volatility * _student(rng, (days, 1), 5)
    own = 0.3 * _persistent(rng, (days, stocks), 0.97)
    volatility = firms.volatility * np.exp(regime + own)
    move = firms.beta * market + volatility * _student(rng, (days, stocks), 4)
    kinds = len(INDUSTRIES)
    industry_volatility = 0.007 * np.exp(regime + 0.3 * _persistent(rng, (days, kinds), 0.97))
    industry = industry_volatility * _student(rng, (days, kinds), 5)
    turnover = 0.7 * (regime + own) + 0.3 * _persistent(rng, (days, stocks), 0.85)
    turnover += 0.2 * rng.standard_normal((days, stocks))
    gap, vwap = rng.standard_normal((2, days, stocks))
    high, low = 1.0 - rng.random((2, days, stocks))  # in (0, 1]
    # Like the premium of any style, that of the planted score has good and bad days: here as large as itself,
    # without memory, and with mean zero over the whole range so that the mean RankIC doesn't hang on the draw.
    luck = rng.standard_normal(days)
    premium = PLANTED_STRENGTH * (1.0 + luck - luck.mean())
    return _Nature(move, industry, volatility, turnover, gap, vwap, high, low, premium)


def _extremes(
    reference: np.ndarray,
    opened: np.ndarray,
    close: np.ndarray,
    volatility: np.ndarray,
    draw_high: np.ndarray,
    draw_low: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Highest and lowest price of a Brownian bridge from open to close, by inverting its distribution [S]."""
    start, end = np.log(opened / reference), np.log(close / reference)
    step, variance = (end - start) ** 2, (0.8 * volatility) ** 2
    highest = (start + end + np.sqrt(step - 2.0 * variance * np.log(draw_high))) / 2
    lowest = (start + end - np.sqrt(step - 2.0 * variance * np.log(draw_low))) / 2
    return reference * np.exp(highest), reference * np.exp(lowest)


def _suspensions(seed: int, shape: tuple[int, int], exchange: Exchange) -> np.ndarray:
    """Days without trading, in spells of the lengths that the exchange is used to: bool [D, S]."""
    rng = np.random.default_rng([seed, 2])
    starts = rng.random(shape) < exchange.halt_rate
    kind = rng.choice([*exchange.halt_days], size=shape, p=[*exchange.halt_shares])
    length = np.ceil(kind * np.where(kind > 1, rng.exponential(1.0, shape), 1.0)).astype(int)
    halted = np.zeros(shape, dtype=bool)
    for day, stock in zip(*np.nonzero(starts), strict=True):
        halted[day : day + length[day, stock], stock] = True
    halted[0] = False
    return halted


def _distributions(
    seed: int, calendar: pd.DatetimeIndex, stocks: int, exchange: Exchange
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ex-days in the seasons, and what would be paid then: bool, yield and new shares a share, each [D, S]."""
    rng = np.random.default_rng([seed, 3])
    shape = (len(calendar), stocks)
    due = np.zeros(shape, dtype=bool)
    for year in range(calendar[0].year, calendar[-1].year + 1):
        for months in exchange.pays_in:
            season = np.flatnonzero((calendar.year == year) & np.isin(calendar.month, months))
            pays = rng.random(stocks) < exchange.pays
            draw = rng.random(stocks)
            if season.size:
                due[season[(draw * season.size).astype(int)], np.arange(stocks)] = pays
    return due, rng.uniform(*exchange.yields, shape), rng.choice([*exchange.issues], size=shape)


def _persistent(rng: np.random.Generator, shape: tuple[int, int], persistence: float) -> np.ndarray:
    """Stationary first-order autoregressions along the first axis, mean 0 and variance 1."""
    noise = rng.standard_normal(shape)
    noise[1:] *= np.sqrt(1.0 - persistence**2)
    return lfilter([1.0], [1.0, -persistence], noise, axis=0)


def _student(rng: np.random.Generator, shape: tuple[int, int], degrees: int) -> np.ndarray:
    """Student-t shocks of variance 1."""
    return rng.standard_t(degrees, shape) * np.sqrt((degrees - 2) / degrees)


def _cents(price: np.ndarray) -> np.ndarray:
    """Round to 0.01 yuan, halves up, as the exchanges do."""
    return np.floor(price * 100.0 + 0.5 + 1e-9) / 100.0
