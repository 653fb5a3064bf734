"""baostock: A-shares of Shanghai and Shenzhen by the stock, without a token."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any, ClassVar

import pandas as pd

from qlib_ext.market.codes import normalise_code
from qlib_ext.market.fetch.polite import PassingError, Polite, SourceError
from qlib_ext.market.fetch.source import Client, held_factor, numbers
from qlib_ext.market.fetch.vendor import ByStock

PRICES = {name: name for name in ("date", "open", "high", "low", "close", "volume", "amount")}
STOCK = "1"  # of its types
NOT_LOGGED_IN, BLOCKED, EXPIRED = "10001001", "10001011", "10001004"
NETWORK = "10002"  # how its codes of the network begin


class _RefusedError(Exception):
    """An answer with an error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.code = code


class Baostock(ByStock):
    """A-shares of Shanghai and Shenzhen by the stock: bars, factors, special treatment, members, industries, names.

    Volumes come in shares, amounts in yuan, factors as of each ex-day. It has no market values.

    Parameters
    ----------
    per_minute
        Calls a minute; a stock takes two.
    tries
        Of one call.

    Raises
    ------
    UserError
        If an argument is out of range.
    """

    indices: ClassVar[dict[str, str]] = {
        "csi300": "query_hs300_stocks",
        "csi500": "query_zz500_stocks",
        "sse50": "query_sz50_stocks",
    }
    industry: ClassVar[str] = "snapshots"
    published = pd.Timedelta(hours=3)  # stocks come one by one, some after their index

    def __init__(self, per_minute: float = 240, tries: int = 5) -> None:
        self.client = Client("baostock", "0.9.4", Polite(per_minute, tries), self._judge_code)

    def stocks(self) -> pd.DataFrame:
        """Listed and delisted ones."""
        columns = {
            "code": "key",
            "code_name": "name",
            "ipoDate": "listed",
            "outDate": "delisted",
            "type": "type",
        }
        table = self._ask("query_stock_basic", columns)
        table = table[table["type"] == STOCK].drop(columns="type").reset_index(drop=True)
        for name in ("listed", "delisted"):
            table[name] = pd.to_datetime(table[name], format="ISO8601", errors="coerce")
        return table.assign(code=[normalise_code(key, "cn") for key in table["key"]])

    def bars(self, key: str, first: pd.Timestamp, last: pd.Timestamp) -> pd.DataFrame:
        """Raw prices, and the factor that held on each day."""
        table = self._history(key, {**PRICES, "tradestatus": "traded", "isST": "st"}, first, last)
        if table.empty:
            return table.assign(factor=[])
        steps = self._ask(
            "query_adjust_factor",
            {"dividOperateDate": "date", "backAdjustFactor": "factor"},
            code=key,
            start_date="1990-01-01",
            end_date=f"{last:%Y-%m-%d}",
        )
        since = self.client.days("query_adjust_factor", steps["date"])
        return numbers(table, "traded", "st").assign(
            factor=held_factor(table["date"], since, steps["factor"])
        )

    def index_bars(self, code: str, first: pd.Timestamp, last: pd.Timestamp) -> pd.DataFrame:
        """Of an index, without a factor."""
        return self._history(_key(code), PRICES, first, last, stock=False).assign(factor=1.0)

    def members(self, name: str, first: pd.Timestamp, last: pd.Timestamp) -> pd.DataFrame:
        """As of the first and the last of these days."""
        what = self.indices[name]
        columns = {"updateDate": "date", "code": "key"}
        table = pd.concat(
            [self._ask(what, columns, date=f"{day:%Y-%m-%d}") for day in dict.fromkeys((first, last))]
        )
        codes = [normalise_code(key, "cn") for key in table["key"]]
        return pd.DataFrame({"date": self.client.days(what, table["date"]), "code": codes})

    def industries(self, day: pd.Timestamp) -> pd.DataFrame:
        """The classification of the securities regulator as of a day."""
        table = self._ask(
            "query_stock_industry", {"code": "key", "industry": "industry"}, date=f"{day:%Y-%m-%d}"
        )
        table = table[table["industry"].fillna("") != ""]
        codes = [normalise_code(key, "cn") for key in table["key"]]
        return pd.DataFrame({"date": day, "code": codes, "industry": table["industry"].to_numpy()})

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Logged in; the client says so on the terminal, which is held back."""
        self.client.ask("login", self._login)
        try:
            yield
        finally:
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.suppress(OSError, ValueError, AttributeError),
            ):
                self.client.function(self.client.module, "logout")()

    def _login(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            answer = self.client.function(self.client.module, "login")()
        _check(answer)

    def _history(
        self, key: str, columns: dict[str, str], first: pd.Timestamp, last: pd.Timestamp, stock: bool = True
    ) -> pd.DataFrame:
        what = "query_history_k_data_plus"
        table = self._ask(
            what,
            columns,
            code=key,
            fields=",".join(columns),
            start_date=f"{first:%Y-%m-%d}",
            end_date=f"{last:%Y-%m-%d}",
            frequency="d",
            adjustflag="3",  # as they were traded
        )
        table = numbers(table, "open", "high", "low", "close", "volume", "amount")
        table = table.assign(date=self.client.days(what, table["date"]))
        if stock:
            self.client.check_units(what, table)
        return table

    def _ask(self, what: str, columns: dict[str, str], **asked: Any) -> pd.DataFrame:
        return self.client.take(what, self.client.ask(what, lambda: self._rows(what, asked)), columns)

    def _rows(self, what: str, asked: dict[str, Any]) -> pd.DataFrame:
        """All pages of an answer. The client's own `get_data` needs a pandas before 2 where there are several."""
        answer = self.client.function(self.client.module, what)(**asked)
        _check(answer)
        rows = []
        while answer.next():
            rows.append(answer.get_row_data())
        _check(answer)
        return pd.DataFrame(rows, columns=list(answer.fields))

    def _judge_code(self, error: Exception) -> Exception | None:
        if not isinstance(error, _RefusedError):
            return None
        if error.code == NOT_LOGGED_IN:
            try:
                self._login()
            except _RefusedError as refused:
                return PassingError(f"{error}, and the login {refused}")
            return PassingError(str(error))
        if error.code.startswith(NETWORK):
            return PassingError(str(error))
        way_out = {
            BLOCKED: "it has blocked this address: ask less often (`per_minute`), and write to it",
            EXPIRED: "the client is too old: pip install --upgrade baostock",
        }.get(error.code, "see to what was asked, or take another source")
        return SourceError(f"baostock refused with {error}; {way_out}")


def _check(answer: Any) -> None:
    code = str(getattr(answer, "error_code", ""))
    if code != "0":
        raise _RefusedError(code, str(getattr(answer, "error_msg", "")))


def _key(code: str) -> str:
    return f"{code[:2].lower()}.{code[2:]}"
