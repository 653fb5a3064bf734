"""Artifacts of a made-up run, as the records would leave them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from qlib_ext.market.finding import Finding, Kind, QualityReport
from qlib_ext.metrics.cross_section import icir, newey_west_t
from qlib_ext.metrics.portfolio_measures import measured
from qlib_ext.metrics.portfolio_series import paths, series_of
from qlib_ext.metrics.significance import bootstrap_mean
from qlib_ext.records import backtest, momentum, ranking
from qlib_ext.records.makers import makers
from qlib_ext.records.portfolio_tables import worst_drawdowns
from qlib_ext.tracking.artifacts import RunArtifacts


class MadeUpRun:
    """A run of `days` test days and `epochs` epochs.

    Parameters
    ----------
    root
        An empty folder.
    days, epochs
        Its length.
    seed
        Of the numbers.
    """

    def __init__(self, root: Path, days: int = 972, epochs: int = 41, seed: int = 1):
        self.root = root
        self.days = pd.bdate_range("2017-01-03", periods=days, name="datetime")
        self.epochs = epochs
        self.draw = np.random.default_rng(seed)
        self.metrics: dict[str, float] = {}
        self.ranking()
        self.momentum()
        self.backtest()
        self.training()
        self.data()
        self.audit()

    def view(self, **info: Any) -> RunArtifacts:
        known = {
            "run_id": "3f1c0a9e5d2b4c7f8a6e1d0c9b8a7f6e",
            "run_name": "mimstocr_csi300 2026-03-02 10:15:42",
            "experiment": "mimstocr_csi300",
            "started": "2026-03-02 10:15",
            "tracking_uri": "sqlite:///mlflow.db",
            "command": "qrun workflows/mimstocr_csi300.yaml",
        }
        tags = {"git_commit": "5f0c1d7", "backbone": "LSTM", "balancer": "CQB"}
        return RunArtifacts(self.root, metrics=self.metrics, tags=tags, info=known | info, makers=makers())

    def put(self, path: str, content: pd.DataFrame | str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            file.write_text(content, encoding="utf-8")
        elif file.suffix == ".csv":
            content.to_csv(file)
        else:
            content.to_parquet(file)

    def ranking(self) -> None:
        count = len(self.days)
        daily = pd.DataFrame(index=self.days)
        for label, mean in (("RETURN", 0.036), ("NEXT_RETURN", 0.041)):
            common = self.draw.normal(0, 0.1, count)
            daily[f"ic/{label}"] = mean + common + self.draw.normal(0, 0.03, count)
            daily[f"rank_ic/{label}"] = mean + 0.004 + common + self.draw.normal(0, 0.03, count)
        base = np.clip(self.draw.normal(0.485, 0.18, count), 0, 1)
        for n, lift in ((10, 0.024), (20, 0.019), (30, 0.016), (50, 0.012)):
            daily[f"precision/{n}"] = np.clip(base + lift + self.draw.normal(0, 0.5 / n**0.5, count), 0, 1)
        daily["base_rate"] = base
        daily.iloc[-2:] = np.nan  # no return yet
        daily["n_stocks"] = np.where(daily["base_rate"].isna(), 0, 296)
        self.metrics |= daily.filter(regex="precision|base_rate").mean().to_dict()
        summary = {}
        for label, prefix in (("RETURN", ""), ("NEXT_RETURN", "NEXT_RETURN/")):
            ic, rank_ic = daily[f"ic/{label}"], daily[f"rank_ic/{label}"]
            summary[label] = {
                "IC": ic.mean(),
                "ICIR": icir(ic),
                "RankIC": rank_ic.mean(),
                "RankICIR": icir(rank_ic),
                "t": newey_west_t(ic),
                "days": ic.count(),
            }
            self.metrics |= {prefix + name: value for name, value in summary[label].items()}
        self.put("ranking/daily.parquet", daily)
        self.put("ranking/summary.csv", pd.DataFrame(summary).T.rename_axis(index="label"))
        self.put("ranking/estimates.parquet", ranking.estimates(daily, self.metrics, "RETURN"))

    def momentum(self) -> None:
        rules = {"model": (0.6917, 0.552), "persistence": (0.6743, 0.489), "majority": (0.4102, 0.1164)}
        table = pd.DataFrame(rules, index=["accuracy", "macro_f1"]).T.rename_axis(index="rule")
        count = len(self.days)
        daily = pd.DataFrame({"n_stocks": 294}, index=self.days)
        for name, share in (("accuracy", 0.6917), ("persistence_accuracy", 0.6743)):
            daily[name] = share + self.draw.normal(0, 0.02, count)
        daily["majority_accuracy"] = 0.4102
        lead = daily["accuracy"] - daily["persistence_accuracy"]
        difference = ["difference", "difference_low", "difference_high"]
        table.loc["persistence", difference] = [lead.mean(), *bootstrap_mean(lead)]
        self.put("momentum/daily.parquet", daily)
        self.put("momentum/summary.csv", table.assign(rows=285_812))
        self.put("momentum/estimates.parquet", momentum.estimates(table, daily))
        self.metrics |= {
            "momentum/accuracy": 0.6917,
            "momentum/persistence_accuracy": 0.6743,
            "momentum/majority_accuracy": 0.4102,
            "momentum/macro_f1": 0.552,
        }

    def backtest(self) -> None:
        count = len(self.days)
        market = self.draw.standard_t(5, count) * 0.009 + 0.0002
        gross = 0.95 * market + self.draw.normal(0.0005, 0.0045, count)
        daily = pd.DataFrame(
            {
                "return": gross,
                "cost": np.r_[0.0005, np.full(count - 1, 0.0002)],
                "benchmark": market,
                "turnover": 0.19,
            },
            index=self.days,
        )
        daily["account"] = 1e8 * (1 + daily["return"] - daily["cost"]).cumprod()
        daily["value"] = 0.95 * daily["account"]
        daily["cash"] = daily["account"] - daily["value"]
        series = series_of(daily, 243)
        summary = backtest.summarise(series)
        found = {f"backtest/{name}": value for name, value in backtest.measures(summary, daily, 243).items()}
        self.metrics |= found
        self.put("backtest/daily.parquet", daily)
        self.put("backtest/series.parquet", paths(series))
        self.put("backtest/summary.csv", summary)
        self.put("backtest/estimates.parquet", backtest.estimates(found, daily, 243))
        self.put("portfolio/drawdowns.csv", worst_drawdowns(series))
        self.put("portfolio/metrics.csv", measured(series, draws=1))
        setup = {
            "start": f"{self.days[0]:%Y-%m-%d}",
            "end": f"{self.days[-1]:%Y-%m-%d}",
            "account": 1e8,
            "benchmark": "SH000300",
            "strategy": {
                "class": "qlib_ext.strategy.topk_dropout.TopkDropout",
                "kwargs": {"topk": 50, "n_drop": 5},
            },
            "exchange": {
                "deal_price": "close",
                "limit_threshold": 0.095,
                "open_cost": 0.0005,
                "close_cost": 0.0015,
                "min_cost": 5,
            },
            "trade_unit": 100,
            "days_per_year": 243.0,
            "notes": [
                (
                    f"trading ends on {self.days[-1]:%Y-%m-%d}: the scores reach to 2020-12-31, the store to 2020-12-31, "
                    "and Qlib needs one more day after the last that it trades on"
                )
            ],
        }
        self.put("backtest/setup.json", json.dumps(setup))

    def training(self) -> None:
        epoch = np.arange(self.epochs)
        noise = lambda scale: self.draw.normal(0, scale, self.epochs)  # noqa: E731
        history = pd.DataFrame({"epoch": epoch})
        for task, start, gain in (("score", 0.334, 0.004), ("momentum", 0.95, 0.32)):
            fall = 1 - np.exp(-epoch / 7)
            history[f"train/loss/{task}"] = start - gain * fall - gain * 0.004 * epoch + noise(gain / 80)
            history[f"valid/loss/{task}"] = (
                start * 1.004 - gain * 0.8 * fall + gain * 0.003 * epoch + noise(gain / 40)
            )
            if task == "momentum":
                history[f"valid/accuracy/{task}"] = 0.55 + 0.14 * fall + noise(0.003)
            ratio = np.where(epoch < 12, 1.0, 0.9 - 0.05 * (epoch - 12) + noise(0.2))
            history[f"balance/V/{task}"] = ratio
            history[f"balance/beta/{task}"] = 0.5 ** (1 / (1 + np.exp(-ratio)))
            history[f"gradient/norm/{task}"] = np.exp(-epoch / 30) + np.abs(noise(0.05))
        history["valid/ic"] = 0.034 * (1 - np.exp(-epoch / 5)) - 0.0003 * epoch + noise(0.0015)
        history["valid/rank_ic"] = 0.038 * (1 - np.exp(-epoch / 5)) - 0.0003 * epoch + noise(0.0015)
        history["valid/score"] = history["valid/rank_ic"]
        mean_v = (history["balance/V/score"] + history["balance/V/momentum"]) / 2
        history["balance/weight_decay"] = 1e-3 / (1 + np.exp(mean_v))
        history["gradient/cosine"] = 0.2 + noise(0.1)
        history["seconds/train"], history["seconds/evaluate"] = 74.0, 21.0
        history["best"] = history["valid/score"] >= history["valid/score"].cummax()
        self.put("training/history.parquet", history)

    def data(self) -> None:
        segments = {
            "train": {
                "start": "2010-03-31",
                "end": "2014-12-29",
                "days": 1153,
                "rows": 338_211,
                "purged_days": 2,
            },
            "valid": {
                "start": "2015-01-05",
                "end": "2016-12-28",
                "days": 486,
                "rows": 139_870,
                "purged_days": 2,
            },
            "test": {
                "start": "2017-01-03",
                "end": "2020-12-31",
                "days": 974,
                "rows": 287_119,
                "purged_days": 0,
            },
        }
        summary = {
            "universe": "csi300",
            "benchmark": "SH000300",
            "store": "cn",
            "fingerprint": "9c1185a5c5e9fc54",
            "store_start": "2010-01-04",
            "store_end": "2020-12-31",
            "instruments": 645,
            "instruments_without_bars": 149,
            "fields": ["close", "open", "high", "low", "volume", "vwap"],
            "missing_fields": ["vwap"],
            "lookback_days": 60,
            "labels": {
                "RETURN": "Ref($close, -2) / Ref($close, -1) - 1",
                "NEXT_RETURN": "Ref($close, -1) / $close - 1",
            },
            "segments": segments,
            "notes": [
                "the store begins on 2010-01-04, so train begins on 2010-03-31 and not on 2007-01-01",
                "the store has no `vwap`: its place in Alpha360 is filled as a missing value",
            ],
        }
        self.put("data/summary.json", json.dumps(summary))
        parts = []
        for name, segment in segments.items():
            days = pd.bdate_range(segment["start"], periods=segment["days"], name="datetime")
            scored = self.draw.integers(280, 300, len(days))
            parts.append(pd.DataFrame({"segment": name, "members": 300, "scored": scored}, index=days))
        self.put("data/coverage.parquet", pd.concat(parts))
        self.put("environment.json", json.dumps({"Python": "3.11.9", "System": "Linux", "pyqlib": "0.9.7"}))
        balancer = {
            "class": "qlib_ext.model.balancers.cqb.CQB",
            "kwargs": {"beta": 0.5, "decay": 0.001, "window": 6},
        }
        model = {
            "class": "qlib_ext.model.multi_task.MultiTaskModel",
            "kwargs": {"balancer": balancer, "seed": 0},
        }
        self.put("config.yaml", yaml.safe_dump({"model": model}, sort_keys=False))

    def audit(self) -> None:
        kinds = [
            Kind(
                "universe-size",
                "warning",
                "a universe is far from its nominal size",
                "it is another universe",
            ),
            Kind(
                "price-negative", "error", "a price is below zero", "returns make no sense", "removes the day"
            ),
        ]
        message = "csi300 has 252 members on 2013-06-17, 300 are nominal"
        finding = Finding(
            "universe-size", "warning", message, "instruments/csi300.txt", None, "2013-06-17", 972
        )
        found = QualityReport((finding,), tuple(kinds), {"root": "cn", "days": 2674})
        self.metrics |= {f"quality/{severity}s": count for severity, count in found.counts.items()}
        self.put("data/quality.json", json.dumps(found.to_json()))
        looked = {"dates": 12, "alarms": 0, "first": "2009-01-05", "last": "2013-12-27", "findings": []}
        self.put("lookahead/audit.json", json.dumps(looked))


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., MadeUpRun]:
    """Make a run of a given length."""
    return lambda **size: MadeUpRun(tmp_path / "artifacts", **size)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeUpRun:
    """A run of four years, for tests that leave it as it is."""
    return MadeUpRun(tmp_path_factory.mktemp("made"))
