"""tushare.pro: A-shares by the day, with a token."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from qlib_ext.checks import UserError
from qlib_ext.files import read_text
from qlib_ext.market.codes import normalise_code
from qlib_ext.market.fetch.polite import NotGrantedError, PassingError, Polite, SourceError
from qlib_ext.market.fetch.source import Client, numbers, until_next
from qlib_ext.market.fetch.vendor import ByDay
from qlib_ext.masking import hide

TOKEN = "TUSHARE_TOKEN"
ROWS = 5000  # that one answer may have; more come by an offset
HANDS, THOUSAND, TEN_THOUSAND = 100.0, 1e3, 1e4
ST_SINCE = pd.Timestamp("2016-01-04")  # the first day of its list of special treatment
PRICES = {
    "ts_code": "key",
    "trade_date": "date",
    **{name: name for name in ("open", "high", "low", "close")},
    "vol": "volume",
    "amount": "amount",
}


class Tushare(ByDay):
    """A-shares by the day: bars, factors, market values, special treatment, members of indices, industries, names.

    Volumes come in hands of 100 shares, amounts in thousands, market values in ten thousands of yuan. Which tables an
    account may ask for depends on its points: those of bars, factors and the list of stocks are needed, others are left
    out with a note.

    Parameters
    ----------
    token_file
        A file that holds the token alone; None: the variable TUSHARE_TOKEN. It is shown nowhere.
    per_minute
        Calls a minute; accounts with few points may ask 50 times.
    tries
        Of one call.
    address
        Of another server that speaks as tushare does; None: its own.

    Raises
    ------
    UserError
        If there is no token, or an argument is out of range.

    Notes
    -----
    The client sends the token over plain HTTP.
    """

    indices: ClassVar[dict[str, str]] = {
        "csi300": "399300.SZ",
        "csi500": "000905.SH",
        "csi800": "000906.SH",
        "csi1000": "000852.SH",
        "csi100": "000903.SH",
        "sse50": "000016.SH",
    }
    industry: ClassVar[str] = "history"

    def __init__(
        self,
        token_file: str | None = None,
        per_minute: float = 150,
        tries: int = 5,
        address: str | None = None,
    ) -> None:
        self.client = Client("tushare", "1.4.29", Polite(per_minute, tries), _judge)
        self._token = _token(token_file)
        self.address = address
        self._refused: set[str] = set()
        self._connected: Any = None

    def stocks(self) -> pd.DataFrame:
        """Listed, suspended and delisted ones."""
        columns = {"ts_code": "key", "name": "name", "list_date": "listed", "delist_date": "delisted"}
        parts = [
            self._ask("stock_basic", columns, exchange="", list_status=status) for status in ("L", "D", "P")
        ]
        table = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
        for name in ("listed", "delisted"):
            table[name] = pd.to_datetime(table[name].astype(str), format="%Y%m%d", errors="coerce")
        return table.assign(code=[normalise_code(key, "cn") for key in table["key"]])

    def bars(self, key: str, first: pd.Timestamp, last: pd.Timestamp) -> pd.DataFrame:
        """Of one stock, in four calls."""
        return self._bars(ts_code=key, start_date=f"{first:%Y%m%d}", end_date=f"{last:%Y%m%d}")

    def day_bars(self, day: pd.Timestamp) -> pd.DataFrame:
        """Of all stocks of a day, in four calls."""
        return self._bars(day, trade_date=f"{day:%Y%m%d}")

    def index_bars(self, code: str, first: pd.Timestamp, last: pd.Timestamp) -> pd.DataFrame:
        """Of an index, without a factor."""
        asked = {
            "ts_code": f"{code[2:]}.{code[:2]}",
            "start_date": f"{first:%Y%m%d}",
            "end_date": f"{last:%Y%m%d}",
        }
        return self._priced("index_daily", self._ask("index_daily", PRICES, **asked)).assign(factor=1.0)

    def members(self, name: str, first: pd.Timestamp, last: pd.Timestamp) -> pd.DataFrame:
        """As of the days of a month on which tushare has weights of the index."""
        table = self._ask(
            "index_weight",
            {"trade_date": "date", "con_code": "key"},
            index_code=self.indices[name],
            start_date=f"{first:%Y%m%d}",
            end_date=f"{last:%Y%m%d}",
        )
        codes = [normalise_code(key, "cn") for key in table["key"]]
        return pd.DataFrame({"date": self.client.days("index_weight", table["date"]), "code": codes})

    def industries(self, day: pd.Timestamp) -> pd.DataFrame:
        """The first level of Shenwan's classification, with its history."""
        columns = {"ts_code": "key", "l1_name": "industry", "in_date": "start", "out_date": "end"}
        parts = [self._ask("index_member_all", columns, is_new=new) for new in ("Y", "N")]
        table = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
        table = table.assign(
            code=[normalise_code(key, "cn") for key in table["key"]],
            start=self.client.days("index_member_all", table["start"]),
            end=pd.to_datetime(table["end"].astype(str), format="%Y%m%d", errors="coerce"),
        )
        return until_next(table[["code", "start", "end", "industry"]])

    def _bars(self, day: pd.Timestamp | None = None, **asked: Any) -> pd.DataFrame:
        table = self._priced("daily", self._ask("daily", PRICES, **asked))
        if table.empty:
            return table.assign(factor=[])
        self.client.check_units("daily", table)
        keys = ["key", "date"]
        factors = self._dated("adj_factor", {"adj_factor": "factor"}, **asked)
        table = table.merge(numbers(factors, "factor"), on=keys, how="left")
        if table["factor"].isna().all():
            raise self.client.changed("adj_factor", "factors of the days of the bars", "none")
        values = self._granted(
            "daily_basic", lambda: self._dated("daily_basic", {"total_mv": "market_value"}, **asked)
        )
        if values is not None:
            values = numbers(values, "market_value")
            table = table.merge(
                values.assign(market_value=values["market_value"] * TEN_THOUSAND), on=keys, how="left"
            )
        if day is None or day >= ST_SINCE:
            treated = self._granted("stock_st", lambda: self._dated("stock_st", {}, **asked))
            if treated is not None:
                st = treated.drop_duplicates().assign(st=1.0)
                table = table.merge(st, on=keys, how="left")
                table["st"] = table["st"].fillna(0.0).where(table["date"] >= ST_SINCE)
        return table.assign(code=[normalise_code(key, "cn") for key in table["key"]]).drop(columns="key")

    def _priced(self, what: str, table: pd.DataFrame) -> pd.DataFrame:
        """Days as such, volumes in shares, amounts in yuan."""
        table = numbers(table, "open", "high", "low", "close", "volume", "amount")
        table = table.assign(
            date=self.client.days(what, table["date"]),
            volume=table["volume"] * HANDS,
            amount=table["amount"] * THOUSAND,
        )
        return table.sort_values("date", ignore_index=True)

    def _dated(self, what: str, columns: dict[str, str], **asked: Any) -> pd.DataFrame:
        table = self._ask(what, {"ts_code": "key", "trade_date": "date", **columns}, **asked)
        return table.assign(date=self.client.days(what, table["date"]))

    def _granted(self, what: str, ask: Callable[[], pd.DataFrame]) -> pd.DataFrame | None:
        """The answer; None, now and later, where the account may not ask for it."""
        if what in self._refused:
            return None
        try:
            return ask()
        except NotGrantedError:
            self._refused.add(what)
            return None

    @property
    def refused(self) -> tuple[str, ...]:
        """Tables that the account may not ask for."""
        return tuple(sorted(self._refused))

    def _ask(self, what: str, columns: dict[str, str], **asked: Any) -> pd.DataFrame:
        """An answer of any length, in parts of `ROWS`."""
        parts: list[pd.DataFrame] = []
        while not parts or len(parts[-1]) == ROWS:
            more = {"offset": ROWS * len(parts), "limit": ROWS} if parts else {"limit": ROWS}
            table = self.client.ask(what, lambda more=more: self._call(what, columns, {**asked, **more}))  # type: ignore[misc]
            parts.append(self.client.take(what, table, columns))
        full = [part for part in parts if len(part)]
        return pd.concat(full, ignore_index=True) if full else parts[0]

    def _call(self, what: str, columns: dict[str, str], asked: dict[str, Any]) -> pd.DataFrame:
        if self._connected is None:
            api = self.client.function(self.client.module, "pro_api")(self._token)
            if self.address is not None:
                api._DataApi__http_url = self.address
            self._connected = api
        table = self.client.function(self._connected, what)(fields=",".join(columns), **asked)
        if isinstance(table, pd.DataFrame) and len(table.columns) == 0:
            # The client gives an empty table for whatever the server refuses to answer.
            raise PassingError("the server gave no answer")
        return table


def _token(token_file: str | None) -> str:
    if token_file is not None:
        path = Path(token_file).expanduser()
        try:
            token = read_text(path, 4096).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"`token_file` must be a file with the token alone, found `{path}`: {error}"
            ) from error
        if not token or len(token.split()) != 1:
            raise UserError(f"`token_file` must hold the token alone, found another content in `{path}`")
        hide(token)
        return token
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        raise UserError(
            f"tushare needs a token: set the variable {TOKEN}, or name a file that holds it by `--option token_file=FILE` "
            "(tushare.pro gives one to who registers)"
        )
    return token


def _judge(error: Exception) -> Exception | None:
    """What the server's sentences mean."""
    said = str(error)
    if "每分钟" in said:  # before the rights, which this sentence names too
        return PassingError(f"too many calls a minute ({said[:80]}); lower `per_minute`", 60.0)
    if any(word in said for word in ("每天", "每小时", "每日")):
        return SourceError(f"tushare lets this account ask no more today: {said[:120]}")
    if "token" in said.lower():
        return SourceError(f"tushare does not know the token: see {TOKEN}, or the file that holds it")
    if any(word in said for word in ("权限", "积分")):
        return NotGrantedError(f"tushare does not grant this account what was asked: {said[:120]}")
    return None
