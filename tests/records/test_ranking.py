from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from qlib_ext.checks import UserError
from qlib_ext.metrics.bootstrap import overlapping_block
from qlib_ext.metrics.cross_section import newey_west_t
from qlib_ext.metrics.significance import bootstrap_mean
from qlib_ext.records.ranking import RankingRecord
from qlib_ext.records.signal import SignalRecord


@pytest.fixture
def scored(run: Any, workplace: Any, model: Any) -> Any:
    SignalRecord(recorder=run, model=model, dataset=workplace).generate()
    return run


def test_it_writes_what_it_names(scored: Any, files: Any) -> None:
    before = files()
    record = RankingRecord(recorder=scored)
    record.generate()
    assert files() - before == set(record.list())


def test_against_scipy(scored: Any, workplace: Any, model: Any, read: Any) -> None:
    RankingRecord(recorder=scored, precision_at=(3, 10)).generate()
    daily, summary, metrics = (
        read("ranking/daily.parquet"),
        read("ranking/summary.csv"),
        scored.list_metrics(),
    )
    table = model.predict(workplace).join(workplace.labels)
    for label, prefix in (("RETURN", ""), ("NEXT_RETURN", "NEXT_RETURN/")):
        pairs = table[["score", label]].dropna().groupby("datetime")
        ic = pairs.apply(lambda day, label=label: stats.pearsonr(day["score"], day[label]).statistic)
        rank_ic = pairs.apply(lambda day, label=label: stats.spearmanr(day["score"], day[label]).statistic)
        np.testing.assert_allclose(daily[f"ic/{label}"].dropna(), ic, atol=1e-12)
        np.testing.assert_allclose(daily[f"rank_ic/{label}"].dropna(), rank_ic, atol=1e-12)
        expected = {"IC": ic.mean(), "ICIR": ic.mean() / ic.std(), "RankIC": rank_ic.mean()}
        expected |= {"RankICIR": rank_ic.mean() / rank_ic.std(), "days": len(ic)}
        for name, value in expected.items():
            assert summary.loc[label, name] == pytest.approx(value)
            assert metrics[f"{prefix}{name}"] == pytest.approx(value)
    assert metrics["IC"] > 0.15  # the scores know a little of the future


def test_precision_against_a_loop(scored: Any, workplace: Any, model: Any, read: Any) -> None:
    RankingRecord(recorder=scored, precision_at=(3, 10)).generate()
    daily, metrics = read("ranking/daily.parquet"), scored.list_metrics()
    table = model.predict(workplace).join(workplace.labels)[["score", "RETURN"]].dropna()
    for n in (3, 10):
        shares = {
            day: np.mean([row["RETURN"] > 0 for _, row in rows.nlargest(n, "score").iterrows()])
            for day, rows in table.groupby("datetime")
        }
        assert daily[f"precision/{n}"].dropna().to_dict() == shares
        assert metrics[f"precision/{n}"] == pytest.approx(np.mean([*shares.values()]))
    rose = table["RETURN"].gt(0).groupby("datetime").mean()
    pd.testing.assert_series_equal(daily["base_rate"].dropna(), rose, check_names=False)
    assert daily["n_stocks"].tolist() == [40] * 58 + [0, 0]  # the last two days have no return yet


def test_overlapping_returns_make_it_less_sure(
    run: Any, workplace: Any, model: Any, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = {"RETURN": {"reach": 11, "span": 10}, "NEXT_RETURN": {"reach": 1, "span": 1}}
    described = {**workplace.describe(), "label_days": days}
    monkeypatch.setattr(workplace, "describe", lambda: described)
    SignalRecord(recorder=run, model=model, dataset=workplace).generate()
    RankingRecord(recorder=run, precision_at=(3,)).generate()
    ic, summary = read("ranking/daily.parquet")["ic/RETURN"], read("ranking/summary.csv")
    assert summary.loc["RETURN", "t"] == pytest.approx(newey_west_t(ic, 18))
    assert summary.loc["NEXT_RETURN", "t"] != pytest.approx(newey_west_t(ic, 18))
    found = read("ranking/estimates.parquet").loc["IC", ["low", "high"]]
    block = overlapping_block(int(ic.notna().sum()), 10)
    assert block == 20
    np.testing.assert_allclose(found, bootstrap_mean(ic, block_days=block), atol=1e-12)


def test_without_a_signal_it_fails(run: Any) -> None:
    with pytest.raises(UserError, match=r"RankingRecord needs artifacts .*signal/labels.parquet"):
        RankingRecord(recorder=run).generate()


def test_an_unknown_label_is_named(scored: Any) -> None:
    with pytest.raises(UserError, match=r"`labels` names `RETURNS`, which is not among .*'RETURN'"):
        RankingRecord(recorder=scored, labels=["RETURNS"]).generate()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": []}, "`labels` must be a list of at least one label column"),
        ({"labels": "RETURN"}, "`labels` must be a list of names"),
        ({"precision_at": [0]}, "`precision_at` must be at least 1, found 0"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RankingRecord(recorder=None, **arguments)
