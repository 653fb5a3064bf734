"""One portfolio of one set of scores, traded by the exchange's rules, and what is kept of it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import qlib
from qlib.strategy.base import BaseStrategy

from qlib_ext.backtest.rule_based_exchange import RuleBasedExchange
from qlib_ext.backtest.simulation import make_exchange, simulate
from qlib_ext.config.build import build
from qlib_ext.data.score_file import read_scores
from qlib_ext.market.store import QlibStore
from qlib_ext.metrics import naive_portfolios as naive
from qlib_ext.metrics import risk
from qlib_ext.strategy.target_weights import TargetWeights

ACCOUNT = 100_000_000.0
DRAWS = 200


@dataclass
class Traded:
    """The market that all portfolios of some scores are traded on.

    Attributes
    ----------
    scores
        Indexed by day and stock.
    exchange
        Over all days.
    first, last
        Days to trade from and to.
    index
        Code of the index; None for none.
    equal_weight
        Returns of the scored stocks at equal weight, before cost, by day.
    returns, known
        `[D, S]` returns of the stocks, and who has a score that a list of the day can be made of.
    """

    scores: pd.Series
    exchange: RuleBasedExchange
    first: pd.Timestamp
    last: pd.Timestamp
    index: str | None
    equal_weight: pd.Series
    returns: np.ndarray
    known: np.ndarray

    @classmethod
    def of(
        cls, path: Path, store: Path, index: str | None, rules: str, start: str | None, end: str | None
    ) -> Traded:
        """Scores of a file, on a store that Qlib then reads."""
        qlib.init(
            provider_uri=str(store), region="us" if rules == "us" else "cn", kernels=1, logging_level=40
        )
        market = QlibStore(store)
        scores = read_scores(path, market).scores.loc[start:end].dropna()
        scored = scores.unstack("instrument")
        calendar = market.calendar
        begin = int(calendar.searchsorted(scored.index[0], side="right"))
        after = min(int(calendar.searchsorted(scored.index[-1], side="right")), len(calendar) - 2) + 1
        codes = [*scored.columns]
        exchange, _ = make_exchange(
            codes, calendar[begin], calendar[after - 1], {"deal_price": "close", "rules": rules}
        )
        close = market.read(["close"], codes)[0, :after].astype(np.float64)
        returns = naive.held_returns(close)[begin:]
        rows = np.maximum(scored.index.searchsorted(calendar[begin:after]) - 1, 0)
        known = scored.notna().to_numpy()[rows]
        weights = known / np.maximum(1, known.sum(axis=1, keepdims=True))
        equal = (np.nan_to_num(returns) * weights).sum(axis=1)
        days = calendar[begin:after]
        return cls(scores, exchange, days[0], days[-1], index, pd.Series(equal, days), returns, known)


def strategy_of(config: Mapping[str, Any], scores: pd.Series) -> BaseStrategy:
    """The strategy of an entry of portfolios.yaml."""
    if "strategy" in config:
        return build(config["strategy"], BaseStrategy, name="strategy", signal=scores)
    return TargetWeights(signal=scores, portfolio=config["portfolio"], calendar=config.get("calendar"))


def trade(market: Traded, config: Mapping[str, Any], folder: Path) -> None:
    """Trade a portfolio and keep `daily.parquet` and `summary.json` of it in a folder, which is there when all is done."""
    begun = time.process_time()
    strategy = strategy_of(config, market.scores)
    done = simulate(
        strategy, market.exchange, market.first, market.last, account=ACCOUNT, benchmark=market.index
    )
    seconds = time.process_time() - begun
    daily = done.daily.drop(columns=["account", "value", "cash"]).assign(equal_weight=market.equal_weight)
    names = done.positions().groupby("datetime").size().reindex(daily.index, fill_value=0).to_numpy()
    found: dict[str, Any] = {"seconds": round(seconds, 1), "names": float(names.mean())}
    net = (daily["return"] - daily["cost"]).to_numpy()
    replaced = np.rint(daily["turnover"].to_numpy() / 2 * names).astype(int)
    lists = naive.random_lists(market.returns, market.known, names, replaced, draws=DRAWS)
    ends = np.cumprod(1 + lists - daily["cost"].to_numpy(), axis=1)[:, -1]
    found["random_below"] = float((ends < risk.wealth(net)[-1]).mean())
    if isinstance(strategy, TargetWeights):
        days = strategy.diary.tables()["days"]
        found |= {
            "rebalances": len(days),
            "relaxed": int((days["relaxed"] != "").sum()),
            "kept": int(days["kept"].sum()),
            "deviation": float(days["deviation"].mean()),
            "volatility": float(days["volatility"].mean()),
        }
    folder.mkdir(parents=True, exist_ok=True)
    daily.astype(np.float32).to_parquet(folder / "daily.parquet")
    (folder / "summary.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
