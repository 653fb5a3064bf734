"""Yahoo Finance by yfinance: shares of any country by the ticker, without a token."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pandas as pd

from qlib_ext.checks import UserError, one_of, words
from qlib_ext.files import read_text
from qlib_ext.market.codes import REGIONS, normalise_code
from qlib_ext.market.fetch.polite import PassingError, Polite
from qlib_ext.market.fetch.source import Client, numbers
from qlib_ext.market.fetch.vendor import ByStock

COLUMNS = {
    "Date": "date",
    "Open": "open",
    "High": "high",
    "Low": "low",
    "Close": "close",
    "Adj Close": "adjusted",
    "Volume": "volume",
}
SUFFIXES = {"SH": ".SS", "SZ": ".SZ"}


class Yfinance(ByStock):
    """Shares by the ticker: bars and factors. Yahoo has no lists, members or industries of the past.

    Prices and volumes come adjusted for splits; the factor is the adjusted close over the close, which holds dividends.
    Yahoo rescales it at each dividend: the stock is then fetched again whole, and the store keeps its own scale.

    Parameters
    ----------
    tickers
        As Yahoo writes them, such as AAPL, BRK-B, 600000.SS; in a text divided by commas, or a file of them, one a line. A
        list of today's firms is one of survivors.
    region
        `us` or `cn`: which codes the store gets, and whose trading days hold.
    per_minute
        Calls a minute.
    tries
        Of one call.

    Raises
    ------
    UserError
        If there is no ticker, or an argument is out of range.
    """

    fields: ClassVar[tuple[str, ...]] = ("open", "high", "low", "close", "volume", "factor")

    def __init__(
        self, tickers: list[str] | str, region: str = "us", per_minute: float = 60, tries: int = 5
    ) -> None:
        self.region = one_of("region", region, REGIONS)
        self.tickers = words("tickers", _listed(tickers) if isinstance(tickers, str) else tickers)
        if not self.tickers:
            raise UserError("`tickers` must name at least one, such as AAPL, found none")
        self.client = Client("yfinance", "1.7.0", Polite(per_minute, tries), _judge)

    @property
    def default_benchmarks(self) -> tuple[str, ...]:
        """None: name an index such as ^GSPC by `--benchmark`."""
        return ()

    def stocks(self) -> pd.DataFrame:
        """Those of `tickers`."""
        return pd.DataFrame(
            {
                "code": [normalise_code(ticker, self.region) for ticker in self.tickers],
                "key": list(self.tickers),
            }
        )

    def bars(self, key: str, first: pd.Timestamp, last: pd.Timestamp) -> pd.DataFrame:
        """Of one ticker; empty where Yahoo has none."""

        def call() -> pd.DataFrame:
            ticker = self.client.function(self.client.module, "Ticker")(key)
            end = last + pd.Timedelta(days=1)  # which is not included
            days = {"start": f"{first:%Y-%m-%d}", "end": f"{end:%Y-%m-%d}"}
            return self.client.function(ticker, "history")(auto_adjust=False, actions=False, **days)

        what = "Ticker.history"
        answer = self.client.ask(what, call)
        if isinstance(answer, pd.DataFrame):
            if answer.empty:
                return pd.DataFrame(columns=["date", *self.fields])
            answer = answer.rename_axis(index="Date").reset_index()
        table = self.client.take(what, answer, COLUMNS)
        table = numbers(table, *(name for name in COLUMNS.values() if name != "date"))
        table = table.assign(
            date=self.client.days(what, table["date"]), factor=table["adjusted"] / table["close"]
        )
        return table[table["close"].notna()].drop(columns="adjusted").reset_index(drop=True)

    def index_bars(self, code: str, first: pd.Timestamp, last: pd.Timestamp) -> pd.DataFrame:
        """Of an index or a fund, by its ticker: SH000300 is 000300.SS there."""
        suffix = SUFFIXES.get(code[:2]) if self.region == "cn" else None
        return self.bars(code if suffix is None else f"{code[2:]}{suffix}", first, last)


def _listed(text: str) -> list[str]:
    file = Path(text).expanduser()
    if not file.is_file():
        if "/" in text or text.endswith(".txt"):
            raise UserError(f"`tickers` must be names, or a file of them, found no file `{text}`")
        return [name.strip() for name in text.split(",") if name.strip()]
    return [line.strip() for line in read_text(file).splitlines() if line.strip() and line[0] != "#"]


def _judge(error: Exception) -> Exception | None:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "YFRateLimitError" in kinds:
        return PassingError("too many requests", 60.0)
    if "YFTickerMissingError" in kinds:
        return None
    return PassingError(str(error)) if "CurlError" in kinds or "RequestException" in kinds else None
