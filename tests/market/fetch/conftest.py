"""A market that is known in full, and stand-ins for the clients that sell it: their names, columns, units and errors."""

from __future__ import annotations

import json
import sys
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests

from qlib_ext.market.exchange_days import exchange_days
from qlib_ext.market.fetch.polite import Polite
from qlib_ext.market.store import QlibStore

STOCKS = ("SH600000", "SZ000001", "SZ300001", "SH688001", "SH600002", "SZ000003")
INDEX = "SH000300"
DELISTED = "SH600002"  # on its last day
PUBLISHED = pd.Timestamp("2024-03-08")
FIRST, LAST = pd.Timestamp("2024-01-24"), pd.Timestamp("2024-03-15")


@dataclass
class Market:
    """Raw bars of six stocks and an index, and what stands beside them; `until` is the last day that is published."""

    until: pd.Timestamp = PUBLISHED
    bars: pd.DataFrame = field(init=False)
    asked: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        days = exchange_days("XSHG", FIRST, LAST)
        rng = np.random.default_rng(7)
        parts = []
        for k, code in enumerate((*STOCKS, INDEX)):
            close = np.round((10 + 3 * k) * np.exp(np.cumsum(rng.normal(0, 0.01, len(days)))), 2)
            low, high = np.round(close * 0.99, 2), np.round(close * 1.01, 2)
            volume = 100.0 * rng.integers(1000, 9000, len(days))
            factor = np.where(days < pd.Timestamp("2024-02-01"), 1.0 + k, (1.0 + k) * 1.05)
            parts.append(
                pd.DataFrame(
                    {
                        "code": code,
                        "date": days,
                        "open": close,
                        "high": high,
                        "low": low,
                        "close": close,
                        "volume": volume,
                        "amount": np.round(volume * close, 2),
                        "factor": 1.0 if code == INDEX else factor,
                        "market_value": close * 1e8 * (k + 1),
                        "st": float(code == "SZ000003") * ((days >= "2024-02-05") & (days < "2024-03-01")),
                    }
                )
            )
        bars = pd.concat(parts, ignore_index=True)
        gone = (bars["code"] == DELISTED) & (bars["date"] > "2024-02-20")
        suspended = (bars["code"] == "SZ000001") & bars["date"].between("2024-01-29", "2024-01-30")
        self.suspended = bars[suspended]
        self.bars = bars[~gone & ~suspended].reset_index(drop=True)

    def of(self, code: str, first: Any = FIRST, last: Any = LAST) -> pd.DataFrame:
        rows = self.bars[(self.bars["code"] == code) & (self.bars["date"] <= self.until)]
        return rows[rows["date"].between(pd.Timestamp(first), pd.Timestamp(last))].reset_index(drop=True)

    def on(self, day: Any) -> pd.DataFrame:
        rows = self.bars[(self.bars["date"] == pd.Timestamp(day)) & (self.bars["code"] != INDEX)]
        return rows[rows["date"] <= self.until].reset_index(drop=True)

    def members(self, day: Any) -> list[str]:
        """In March another stock is in."""
        return [*STOCKS[:3], STOCKS[3 if pd.Timestamp(day) < pd.Timestamp("2024-03-01") else 5]]

    def check(self, store: QlibStore, codes: tuple[str, ...] = STOCKS, scale: float = 1.0) -> None:
        """The store's numbers are those of this market, up to its last day."""
        names = ["open", "high", "low", "close", "volume", "factor"]
        found = dict(zip(names, store.read(names, codes), strict=True))
        rows = self.bars[(self.bars["date"] <= self.until) & self.bars["code"].isin(codes)]
        assert store.calendar[-1] == self.until
        for name in names:
            power = {"volume": -1, "factor": 0}.get(name, 1)
            values = rows[name] * rows["factor"] ** power
            wide = values.groupby([rows["date"], rows["code"]]).first().unstack()
            wide = wide.reindex(index=store.calendar, columns=list(codes))
            np.testing.assert_allclose(found[name], wide.to_numpy(), rtol=2e-6, err_msg=name)


@pytest.fixture
def market() -> Market:
    return Market()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waiting takes no time; what would have been waited is listed."""
    waited: list[float] = []
    begin = Polite.__init__

    def quick(self: Polite, *given: Any, **named: Any) -> None:
        begin(self, *given, **named)
        self.sleep, self.pause = waited.append, 0.0

    monkeypatch.setattr(Polite, "__init__", quick)
    return waited


@pytest.fixture
def closing() -> Callable[[str], pd.Timestamp]:
    """The evening of a day."""
    return lambda day: pd.Timestamp(f"{day} 20:00", tz="Asia/Shanghai")


# --- tushare


class TushareServer:
    """Answers as api.tushare.pro does: `{code, msg, data: {fields, items}}`; `refuse` holds sentences by table."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.refuse: dict[str, list[str | int]] = {}
        self.rename: dict[str, str] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = server.answer(asked)
                if isinstance(answer, int):
                    self.send_error(answer)
                    return
                body = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/dataapi"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def answer(self, asked: dict[str, Any]) -> dict[str, Any] | int:
        name, params = asked["api_name"], asked["params"]
        self.calls.append((name, params))
        if asked["token"] != "a-long-token-of-tushare":
            return {"code": 40101, "msg": "您的token不对，请确认。", "data": None}
        if self.refuse.get(name):
            said = self.refuse[name].pop(0)
            return said if isinstance(said, int) else {"code": 40203, "msg": said, "data": None}
        table = getattr(self, name)(**{k: v for k, v in params.items() if k != "ts_type_name"})
        table = table.iloc[params.get("offset", 0) :].iloc[: params.get("limit", 6000)]
        table = table[asked["fields"].split(",")].rename(columns=self.rename)
        items = table.astype(object).where(table.notna(), None).to_numpy().tolist()
        return {"code": 0, "msg": "", "data": {"fields": [*table.columns], "items": items}}

    def rows(self, asked: dict[str, Any]) -> pd.DataFrame:
        if "trade_date" in asked:
            rows = self.market.on(asked["trade_date"])
        else:
            code = "".join(reversed(asked["ts_code"].split(".")))
            rows = self.market.of(code, asked["start_date"], asked["end_date"])
        rows = rows.iloc[::-1]  # the newest first
        return rows.assign(ts_code=rows["code"].map(suffixed), trade_date=rows["date"].dt.strftime("%Y%m%d"))

    def daily(self, **asked: Any) -> pd.DataFrame:
        rows = self.rows(asked)
        return rows.assign(vol=rows["volume"] / 100, amount=rows["amount"] / 1000)

    index_daily = daily

    def adj_factor(self, **asked: Any) -> pd.DataFrame:
        return self.rows(asked).rename(columns={"factor": "adj_factor"})

    def daily_basic(self, **asked: Any) -> pd.DataFrame:
        rows = self.rows(asked)
        return rows.assign(total_mv=rows["market_value"] / 1e4)

    def stock_st(self, **asked: Any) -> pd.DataFrame:
        rows = self.rows(asked)
        return rows[rows["st"] > 0]

    def stock_basic(self, list_status: str, **_: Any) -> pd.DataFrame:
        codes = {"L": [c for c in STOCKS if c != DELISTED], "D": [DELISTED], "P": []}[list_status]
        out = "20240221" if list_status == "D" else None
        return pd.DataFrame(
            {
                "ts_code": [suffixed(code) for code in codes],
                "name": [f"名{code[-3:]}" for code in codes],
                "list_date": "19991110",
                "delist_date": out,
            }
        )

    def index_weight(self, index_code: str, start_date: str, end_date: str, **_: Any) -> pd.DataFrame:
        assert index_code == "399300.SZ"
        day = min(pd.Timestamp(end_date), self.market.until)
        codes = self.market.members(day) if day >= pd.Timestamp(start_date) else []
        return pd.DataFrame({"trade_date": f"{day:%Y%m%d}", "con_code": [suffixed(code) for code in codes]})

    def index_member_all(self, is_new: str, **_: Any) -> pd.DataFrame:
        rows = [("600000.SH", "银行", "20240110", None), ("000001.SZ", "银行", "19990101", None)]
        if is_new == "N":
            rows = [("600000.SH", "综合", "19990101", "20240110")]
        return pd.DataFrame(rows, columns=["ts_code", "l1_name", "in_date", "out_date"])


def suffixed(code: str) -> str:
    return f"{code[2:]}.{code[:2]}"


@pytest.fixture
def tushare(market: Market, monkeypatch: pytest.MonkeyPatch) -> Iterator[TushareServer]:
    """The server, and a module `tushare` whose client behaves as that of 1.4.29."""
    server = TushareServer(market)

    class DataApi:
        def __init__(self, token: str) -> None:
            self.token = token
            self._DataApi__http_url = "http://api.waditu.com/dataapi"

        def __getattr__(self, name: str) -> Callable[..., pd.DataFrame]:
            def query(fields: str = "", **params: Any) -> pd.DataFrame:
                asked = {"api_name": name, "token": self.token, "params": params, "fields": fields}
                answer = requests.post(f"{self._DataApi__http_url}/{name}", json=asked, timeout=5)
                if not answer:  # an error of HTTP is an empty table
                    return pd.DataFrame()
                found = answer.json()
                if found["code"] != 0:
                    raise Exception(found["msg"])  # as the client does
                return pd.DataFrame(found["data"]["items"], columns=found["data"]["fields"])

            return query

    module = types.ModuleType("tushare")
    module.pro_api = DataApi  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tushare", module)
    monkeypatch.setenv("TUSHARE_TOKEN", "a-long-token-of-tushare")
    yield server
    server.http.shutdown()
    server.http.server_close()


# --- baostock


class Answer:
    """What baostock's queries give: rows of texts in pages."""

    def __init__(self, table: pd.DataFrame | None, code: str = "0", message: str = "success") -> None:
        self.error_code, self.error_msg = code, message
        self.fields = [] if table is None else [*table.columns]
        self._rows = [] if table is None else table.astype(str).to_numpy().tolist()

    def next(self) -> bool:
        return bool(self._rows)

    def get_row_data(self) -> list[str]:
        return self._rows.pop(0)


@pytest.fixture
def baostock(market: Market, monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """A module `baostock`; `errors` holds codes that the next queries answer with."""
    state = types.SimpleNamespace(errors=[], calls=[], logins=0)

    def dotted(code: str) -> str:
        return f"{code[:2].lower()}.{code[2:]}"

    def said(name: str, make: Callable[..., pd.DataFrame]) -> Callable[..., Answer]:
        def query(**asked: Any) -> Answer:
            state.calls.append((name, asked))
            if not state.logins:
                return Answer(None, "10001001", "用户未登录")
            if state.errors:
                return Answer(None, state.errors.pop(0), "an error")
            return Answer(make(**asked))

        return query

    def history(
        code: str, fields: str, start_date: str, end_date: str, frequency: str, adjustflag: str
    ) -> Any:
        assert (frequency, adjustflag) == ("d", "3")
        code = code.replace(".", "").upper()
        rows = market.of(code, start_date, end_date).assign(tradestatus="1")
        idle = market.suspended[market.suspended["code"] == code].assign(
            tradestatus="0", volume=0.0, amount=0.0
        )
        rows = pd.concat([rows, idle[idle["date"].between(start_date, end_date)]]).sort_values("date")
        rows = rows.assign(date=rows["date"].dt.strftime("%Y-%m-%d"), isST=rows["st"].astype(int))
        return rows[fields.split(",")]

    def factors(code: str, start_date: str, end_date: str) -> pd.DataFrame:
        rows = market.of(code.replace(".", "").upper())
        steps = rows[rows["factor"].diff() != 0].iloc[:, :]
        days = steps["date"].dt.strftime("%Y-%m-%d").where(steps.index > 0, "1999-01-01")
        return pd.DataFrame({"code": code, "dividOperateDate": days, "backAdjustFactor": steps["factor"]})

    def basic() -> pd.DataFrame:
        codes = [*STOCKS, INDEX]
        return pd.DataFrame(
            {
                "code": [dotted(code) for code in codes],
                "code_name": [f"名{code[-3:]}" for code in codes],
                "ipoDate": "1999-11-10",
                "outDate": ["2024-02-20" if code == DELISTED else "" for code in codes],
                "type": ["1"] * len(STOCKS) + ["2"],
                "status": "1",
            }
        )

    def members(date: str) -> pd.DataFrame:
        return pd.DataFrame(
            {"updateDate": date, "code": [dotted(c) for c in market.members(date)], "code_name": ""}
        )

    def industry(date: str) -> pd.DataFrame:
        return pd.DataFrame({"updateDate": date, "code": ["sh.600000", "sz.000001"], "industry": ["J66", ""]})

    def login() -> Answer:
        state.logins += 1
        print("login success!")  # noqa: T201 - as the client does
        return Answer(None)

    module: Any = types.ModuleType("baostock")
    module.login, module.logout = login, lambda: Answer(None)
    module.query_history_k_data_plus = said("query_history_k_data_plus", history)
    module.query_adjust_factor = said("query_adjust_factor", factors)
    module.query_stock_basic = said("query_stock_basic", basic)
    module.query_hs300_stocks = said("query_hs300_stocks", members)
    module.query_stock_industry = said("query_stock_industry", industry)
    monkeypatch.setitem(sys.modules, "baostock", module)
    state.module = module
    return state


# --- akshare


@pytest.fixture
def akshare(market: Market, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module `akshare` with the functions that are asked."""
    module: Any = types.ModuleType("akshare")

    def of(symbol: str) -> str:
        return ("SH" if symbol[0] == "6" else "SZ") + symbol

    def stock_zh_a_hist(
        symbol: str, period: str, start_date: str, end_date: str, adjust: str
    ) -> pd.DataFrame:
        assert (period, adjust) == ("daily", "")
        rows = market.of(of(symbol), start_date, end_date)
        if rows.empty:
            return pd.DataFrame()
        return pd.DataFrame(
            {
                "日期": rows["date"].dt.date,
                "股票代码": symbol,
                "开盘": rows["open"],
                "收盘": rows["close"],
                "最高": rows["high"],
                "最低": rows["low"],
                "成交量": rows["volume"] / 100,
                "成交额": rows["amount"],
                "涨跌幅": 0.0,
            }
        )

    def stock_zh_a_daily(symbol: str, adjust: str) -> pd.DataFrame:
        assert adjust == "hfq-factor"
        rows = market.of(symbol.upper())
        steps = rows[rows["factor"].diff() != 0].iloc[::-1]
        days = steps["date"].where(steps.index > 0, pd.Timestamp("1900-01-01"))
        return pd.DataFrame({"date": days, "hfq_factor": steps["factor"].astype(str)}).reset_index(drop=True)

    def index(symbol: str, start_date: str, end_date: str) -> pd.DataFrame:
        rows = market.of(symbol.upper(), start_date, end_date)
        names = ["open", "close", "high", "low", "volume", "amount"]
        return rows[["date", *names]].assign(date=rows["date"].dt.strftime("%Y-%m-%d"))

    def listed() -> pd.DataFrame:
        codes = [*(c[2:] for c in STOCKS if c != DELISTED), "200011", "900901"]  # and B-shares
        return pd.DataFrame({"code": codes, "name": [f"名{c}" for c in codes]})

    def delisted(symbol: str) -> pd.DataFrame:
        names = (
            ["公司代码", "公司简称", "上市日期", "暂停上市日期"]
            if symbol == "全部"
            else ["证券代码", "证券简称", "上市日期", "终止上市日期"]
        )
        rows = [(DELISTED[2:], "退市", pd.Timestamp("1999-01-01").date(), pd.Timestamp("2024-02-20").date())]
        return pd.DataFrame(rows if symbol == "全部" else [], columns=names)

    def members(symbol: str) -> pd.DataFrame:
        codes = [c[2:] for c in market.members(market.until)]
        return pd.DataFrame(
            {"日期": market.until.date(), "指数代码": symbol, "成分券代码": codes, "交易所": "上海证券交易所"}
        )

    def industry() -> pd.DataFrame:
        rows = [
            ("600000", "2015-01-05", "510101"),
            ("600000", "2024-02-01", "480301"),
            ("000001", "2015-01-05", "480301"),
        ]
        return pd.DataFrame(rows, columns=["symbol", "start_date", "industry_code"])

    def value(symbol: str) -> pd.DataFrame:
        rows = market.of(of(symbol))
        return pd.DataFrame({"数据日期": rows["date"].dt.date, "总市值": rows["market_value"]})

    module.stock_zh_a_hist, module.stock_zh_a_daily, module.stock_zh_index_daily_em = (
        stock_zh_a_hist,
        stock_zh_a_daily,
        index,
    )
    module.stock_info_a_code_name, module.stock_info_sh_delist, module.stock_info_sz_delist = (
        listed,
        delisted,
        delisted,
    )
    module.index_stock_cons_csindex, module.stock_industry_clf_hist_sw, module.stock_value_em = (
        members,
        industry,
        value,
    )
    monkeypatch.setitem(sys.modules, "akshare", module)
    return module


# --- yfinance


class YFRateLimitError(Exception):
    """As the client calls it."""


@pytest.fixture
def yfinance(market: Market, monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """A module `yfinance`; its adjusted closes are those of today: the last factor is 1."""
    state = types.SimpleNamespace(errors=[], asked=[], ratio=1.0)

    class Ticker:
        def __init__(self, name: str) -> None:
            self.name = name

        def history(self, start: str, end: str, auto_adjust: bool, actions: bool) -> pd.DataFrame:
            assert not auto_adjust
            state.asked.append((self.name, start, end))
            if state.errors:
                raise state.errors.pop(0)
            code = ("SH" if self.name.endswith("SS") else "SZ") + self.name[:6]
            rows = market.of(code, start, pd.Timestamp(end) - pd.Timedelta(days=1))
            if rows.empty:
                return pd.DataFrame(columns=["Open", "High", "Low", "Close", "Adj Close", "Volume"])
            last = market.of(code)["factor"].iloc[-1] * state.ratio
            return pd.DataFrame(
                {
                    **{
                        name.title(): rows[name].to_numpy()
                        for name in ("open", "high", "low", "close", "volume")
                    },
                    "Adj Close": (rows["close"] * rows["factor"] / last).to_numpy(),
                },
                index=pd.DatetimeIndex(rows["date"], name="Date").tz_localize("Asia/Shanghai"),
            )

    module: Any = types.ModuleType("yfinance")
    module.Ticker = Ticker
    monkeypatch.setitem(sys.modules, "yfinance", module)
    return state


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "store"
