"""akshare: A-shares by the stock, from public pages, without a token."""

from __future__ import annotations

from typing import Any, ClassVar

import pandas as pd

from qlib_ext.market.codes import normalise_code
from qlib_ext.market.fetch.polite import Polite, SourceError
from qlib_ext.market.fetch.source import Client, held_factor, numbers, until_next
from qlib_ext.market.fetch.vendor import ByStock

HANDS = 100.0
B_SHARES = ("200", "201", "900")  # how their codes begin
PRICES = {
    "日期": "date",
    "开盘": "open",
    "最高": "high",
    "最低": "low",
    "收盘": "close",
    "成交量": "volume",
    "成交额": "amount",
}
INDEX_PRICES = {name: name for name in ("date", "open", "high", "low", "close", "volume", "amount")}
DELISTED = {
    "stock_info_sh_delist": ({"公司代码": "key", "公司简称": "name", "暂停上市日期": "delisted"}, "全部"),
    "stock_info_sz_delist": (
        {"证券代码": "key", "证券简称": "name", "终止上市日期": "delisted"},
        "终止上市公司",
    ),
}


class Akshare(ByStock):
    """A-shares by the stock: bars of Eastmoney with factors of Sina, today's members, industries, names.

    Volumes come in hands of 100 shares, amounts in yuan. Eastmoney's own adjusted prices are made by subtraction and are
    not used. The pages are those of public sites, which change and block who asks too often.

    Parameters
    ----------
    per_minute
        Calls a minute; a stock takes two, three with market values.
    tries
        Of one call.
    market_values
        Whether to ask for market values too, which Eastmoney has from 2018 on.

    Raises
    ------
    UserError
        If an argument is out of range.
    """

    indices: ClassVar[dict[str, str]] = {
        "csi300": "000300",
        "csi500": "000905",
        "csi800": "000906",
        "csi1000": "000852",
        "csi100": "000903",
        "sse50": "000016",
    }
    past_members: ClassVar[bool] = False
    industry: ClassVar[str] = "history"

    def __init__(self, per_minute: float = 60, tries: int = 5, market_values: bool = False) -> None:
        self.client = Client("akshare", "1.19.5", Polite(per_minute, tries), lambda error: None)
        self.market_values = market_values

    def stocks(self) -> pd.DataFrame:
        """Listed ones, and those that Shanghai and Shenzhen have delisted."""
        parts = [self._ask("stock_info_a_code_name", {"code": "key", "name": "name"})]
        for what, (columns, symbol) in DELISTED.items():
            part = self._ask(what, columns, symbol=symbol)
            parts.append(part.assign(delisted=pd.to_datetime(part["delisted"], errors="coerce")))
        table = pd.concat([part for part in parts if len(part)], ignore_index=True)
        table["key"] = table["key"].astype(str).str.zfill(6)
        codes = [normalise_code(key, "cn") for key in table["key"]]
        table = table.assign(code=codes)[~table["key"].str.startswith(B_SHARES)]  # no B-shares
        return table.drop_duplicates("code").reset_index(drop=True)

    def bars(self, key: str, first: pd.Timestamp, last: pd.Timestamp) -> pd.DataFrame:
        """Raw prices, and the factor that held on each day."""
        table = self._priced("stock_zh_a_hist", key, first, last)
        if table.empty:
            return table.assign(factor=[])
        symbol = normalise_code(key, "cn").lower()
        steps = self._ask(
            "stock_zh_a_daily", {"date": "date", "hfq_factor": "factor"}, symbol=symbol, adjust="hfq-factor"
        )
        since = self.client.days("stock_zh_a_daily", steps["date"])
        table = table.assign(factor=held_factor(table["date"], since, steps["factor"]))
        if self.market_values:
            values = self._ask("stock_value_em", {"数据日期": "date", "总市值": "market_value"}, symbol=key)
            values = values.assign(date=self.client.days("stock_value_em", values["date"]))
            table = table.merge(
                numbers(values, "market_value").drop_duplicates("date"), on="date", how="left"
            )
        return table

    def index_bars(self, code: str, first: pd.Timestamp, last: pd.Timestamp) -> pd.DataFrame:
        """Of an index, without a factor."""
        what = "stock_zh_index_daily_em"
        table = self._ask(
            what, INDEX_PRICES, symbol=code.lower(), start_date=f"{first:%Y%m%d}", end_date=f"{last:%Y%m%d}"
        )
        table = numbers(table, "open", "high", "low", "close", "volume", "amount")
        return table.assign(
            date=self.client.days(what, table["date"]), volume=table["volume"] * HANDS, factor=1.0
        )

    def members(self, name: str, first: pd.Timestamp, last: pd.Timestamp) -> pd.DataFrame:
        """As of the day of the index provider's newest file."""
        what = "index_stock_cons_csindex"
        table = self._ask(what, {"日期": "date", "成分券代码": "key"}, symbol=self.indices[name])
        codes = [normalise_code(key, "cn") for key in table["key"].astype(str).str.zfill(6)]
        return pd.DataFrame({"date": self.client.days(what, table["date"]), "code": codes})

    def industries(self, day: pd.Timestamp) -> pd.DataFrame:
        """The first level of Shenwan's classification by its number, with its history."""
        what = "stock_industry_clf_hist_sw"
        table = self._ask(what, {"symbol": "key", "start_date": "start", "industry_code": "industry"})
        keys, numbers_ = table["key"].astype(str).str.zfill(6), table["industry"].astype(str)
        if not numbers_.str.fullmatch(r"\d{6}").all():
            raise self.client.changed(what, "industries of six digits", repr(numbers_.iloc[0]))
        return until_next(
            pd.DataFrame(
                {
                    "code": [normalise_code(key, "cn") for key in keys],
                    "start": self.client.days(what, table["start"]),
                    "end": pd.NaT,
                    "industry": "SW" + numbers_.str.slice(0, 2),
                }
            )
        )

    def _priced(self, what: str, key: str, first: pd.Timestamp, last: pd.Timestamp) -> pd.DataFrame:
        table = self._ask(
            what,
            PRICES,
            symbol=key,
            period="daily",
            start_date=f"{first:%Y%m%d}",
            end_date=f"{last:%Y%m%d}",
            adjust="",
        )
        table = numbers(table, "open", "high", "low", "close", "volume", "amount")
        table = table.assign(date=self.client.days(what, table["date"]), volume=table["volume"] * HANDS)
        self.client.check_units(what, table)
        return table

    def _ask(self, what: str, columns: dict[str, str], **asked: Any) -> pd.DataFrame:
        def call() -> pd.DataFrame:
            return self.client.function(self.client.module, what)(**asked)

        table = self.client.take(what, self.client.ask(what, call), columns)
        if table.empty and what.startswith(("stock_info_a", "index_stock", "stock_industry")):
            raise SourceError(f"akshare's `{what}` must give a list, found an empty one: try again later")
        return table
