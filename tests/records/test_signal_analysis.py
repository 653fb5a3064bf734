from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from alphalens.performance import mean_return_by_quantile
from qlib.config import C
from scipy import stats

from qlib_ext.checks import UserError
from qlib_ext.features.side_data.industries import industries
from qlib_ext.market.store import QlibStore
from qlib_ext.metrics.cross_section import newey_west_t
from qlib_ext.metrics.significance import bootstrap_mean
from qlib_ext.records.ranking import RankingRecord
from qlib_ext.records.signal import SignalRecord
from qlib_ext.records.signal_analysis import SignalAnalysisRecord


@pytest.fixture
def scored(run: Any, workplace: Any, model: Any) -> Any:
    SignalRecord(recorder=run, model=model, dataset=workplace).generate()
    return run


@pytest.fixture
def table(workplace: Any, model: Any) -> pd.DataFrame:
    return model.predict(workplace).join(workplace.labels).sort_index()


@pytest.fixture
def industry(workplace: Any) -> Iterator[Path]:
    """Half of the stocks in one industry, a few in a small one, one that moves; the rest in none."""
    folder = Path(C.dpm.get_data_uri("day")) / "side"
    folder.mkdir()
    codes = workplace.rows.get_level_values("instrument").unique()
    middle = workplace.calendar[90]
    rows = [(code, "2020-01-01", None, "Banks & <Brokers>") for code in codes[:20]]
    rows += [(code, "2020-01-01", None, "Small") for code in codes[20:23]]
    rows += [(codes[23], "2020-01-01", f"{middle:%Y-%m-%d}", "Small")]
    rows += [(codes[23], f"{middle + pd.Timedelta(days=1):%Y-%m-%d}", None, "Banks & <Brokers>")]
    file = folder / "industry.csv"
    pd.DataFrame(rows, columns=["instrument", "start", "end", "industry"]).to_csv(file, index=False)
    yield file
    file.unlink(missing_ok=True)
    folder.rmdir()


def summary(run: Any) -> dict[str, Any]:
    return json.loads(Path(run.download_artifact("signal_analysis/summary.json")).read_text(encoding="utf-8"))


def by_day(table: pd.DataFrame, label: str, lag: int) -> pd.Series:
    """RankIC of each day with the label `lag` days later, one pair of days at a time."""
    days = table.index.unique("datetime")
    found = {}
    for k, day in enumerate(days):
        if k + lag < len(days):
            pair = pd.concat(
                [table["score"].loc[day], table[label].loc[days[k + lag]]], axis=1, keys=["s", "r"]
            ).dropna()
            if len(pair) > 1:
                found[day] = stats.spearmanr(pair["s"], pair["r"]).statistic
    return pd.Series(found)


class TestArtifacts:
    def test_it_writes_what_it_names(self, scored: Any, files: Any) -> None:
        before = files()
        record = SignalAnalysisRecord(recorder=scored)
        record.generate()
        assert files() - before == set(record.list())  # this store has no industries

    def test_the_daily_ic_is_that_of_the_ranking(self, scored: Any, read: Any) -> None:
        SignalAnalysisRecord(recorder=scored).generate()
        RankingRecord(recorder=scored).generate()
        ranking, decay = read("ranking/summary.csv"), read("signal_analysis/decay.csv")
        shape = read("signal_analysis/distribution.csv")
        for label in ("RETURN", "NEXT_RETURN"):
            of_label = decay[decay["label"] == label]
            assert of_label.loc[0, "IC"] == pytest.approx(ranking.loc[label, "IC"], abs=1e-12)
            assert of_label.loc[0, "RankIC"] == pytest.approx(ranking.loc[label, "RankIC"], abs=1e-12)
            rows = shape[shape["label"] == label]
            assert rows.loc["IC", "t"] == pytest.approx(ranking.loc[label, "t"])
            assert rows.loc["IC", "ratio"] == pytest.approx(ranking.loc[label, "ICIR"])
            assert (rows["low"] < rows["mean"]).all()
            assert (rows["mean"] < rows["high"]).all()
        precision = read("signal_analysis/precision.csv")
        metrics = scored.list_metrics()
        for n in (10, 20, 30, 50):
            assert precision.loc[n, "precision"] == pytest.approx(metrics[f"precision/{n}"])
            assert precision.loc[n, "base_rate"] == pytest.approx(metrics["base_rate"])

    def test_overlapping_returns_make_it_less_sure(
        self, run: Any, workplace: Any, model: Any, read: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        described = {**workplace.describe(), "label_days": {"RETURN": {"reach": 11, "span": 10}}}
        monkeypatch.setattr(workplace, "describe", lambda: described)
        SignalRecord(recorder=run, model=model, dataset=workplace).generate()
        SignalAnalysisRecord(recorder=run, max_lag_days=1).generate()
        shape = read("signal_analysis/distribution.csv").query("label == 'RETURN'").loc["IC"]
        daily = read("signal_analysis/normality.parquet").query("label == 'RETURN'").loc["IC"]
        values = daily.set_index("day")["found"].sort_index() * shape["std"] + shape["mean"]
        assert shape["t"] == pytest.approx(newey_west_t(values, 18))
        expected = bootstrap_mean(values, block_days=20)
        np.testing.assert_allclose(shape[["low", "high"]].astype(float), expected, atol=1e-9)

    def test_decay_and_periods_against_pairs_of_days(self, scored: Any, table: Any, read: Any) -> None:
        SignalAnalysisRecord(recorder=scored, max_lag_days=3).generate()
        decay = read("signal_analysis/decay.csv")
        assert [*decay.index.unique()] == [0, 1, 2, 3]
        for label in ("RETURN", "NEXT_RETURN"):
            rows = decay[decay["label"] == label]
            for lag in range(4):
                expected = by_day(table, label, lag)
                assert rows.loc[lag, "RankIC"] == pytest.approx(expected.mean(), abs=1e-10)
                assert rows.loc[lag, "days"] == len(expected)
        daily = by_day(table, "RETURN", 0)
        for name, frequency in (("monthly", "M"), ("yearly", "Y")):
            found = read(f"signal_analysis/{name}.csv")
            found = found[found["label"] == "RETURN"]
            groups = daily.groupby(pd.DatetimeIndex(daily.index).to_period(frequency))
            assert [str(period) for period in found.index] == [str(period) for period in groups.groups]
            np.testing.assert_allclose(found["RankIC"], groups.mean(), atol=1e-10)
            np.testing.assert_allclose(found["RankICIR"], groups.mean() / groups.std(), atol=1e-10)
            np.testing.assert_allclose(found["hit_rate"], (daily > 0).groupby(groups.grouper).mean())
            assert found["days"].sum() == len(daily)

    def test_quantiles_against_alphalens(self, scored: Any, table: Any, read: Any) -> None:
        SignalAnalysisRecord(recorder=scored).generate()
        known = table.dropna(subset=["RETURN"]).rename_axis(["date", "asset"])
        by_date = known["score"].groupby(level="date", group_keys=False)
        cut = by_date.apply(lambda s: pd.qcut(s, 5, labels=False) + 1)
        frame = pd.DataFrame({"1D": known["RETURN"], "factor": known["score"], "factor_quantile": cut})
        expected = mean_return_by_quantile(frame, by_date=True, demeaned=False)[0]["1D"].unstack(0)
        daily = read("signal_analysis/daily.parquet")
        columns = [f"quantile/RETURN/{q}" for q in range(1, 6)]
        np.testing.assert_allclose(daily[columns].dropna(), expected, atol=1e-10)
        np.testing.assert_allclose(
            daily["all/RETURN"].dropna(), known["RETURN"].groupby("date").mean(), atol=1e-12
        )
        grouped = read("signal_analysis/quantiles.csv")
        grouped = grouped[grouped["label"] == "RETURN"]
        np.testing.assert_allclose(grouped["return"], daily[columns].mean())
        assert grouped["excess"].mean() == pytest.approx(0, abs=1e-12)  # 40 stocks, groups of 8
        assert (grouped["stocks"] == 8).all()
        assert grouped.loc[5, "return_low"] > grouped.loc[1, "return_high"]  # the model knows something
        found = summary(scored)["spread"]["RETURN"]
        assert found["mean"] == pytest.approx(grouped.loc[5, "return"] - grouped.loc[1, "return"])
        assert scored.list_metrics()["signal/spread"] == pytest.approx(found["mean"])

    def test_turnover_and_autocorrelation_of_a_score_that_never_changes(
        self, run: Any, workplace: Any, read: Any
    ) -> None:
        class Constant:
            def predict(self, dataset: Any) -> pd.DataFrame:
                place = dataset.rows.codes[1]
                return pd.DataFrame({"score": place * 1.0}, index=dataset.rows)

        SignalRecord(recorder=run, model=Constant(), dataset=workplace).generate()
        SignalAnalysisRecord(recorder=run).generate()
        assert (read("signal_analysis/turnover.csv") == 0).all(axis=None)
        np.testing.assert_allclose(read("signal_analysis/autocorrelation.csv")["autocorrelation"], 1)

    def test_a_day_without_rows_is_still_a_day(self, run: Any, workplace: Any, read: Any) -> None:
        """A score that knows the return of two days on, and no row at all on every fifth day."""

        class Knowing:
            def predict(self, dataset: Any) -> pd.DataFrame:
                wide = dataset.labels["NEXT_RETURN"].unstack().shift(-2)
                kept = wide[np.arange(len(wide)) % 5 != 3].stack()
                return kept.to_frame("score")

        SignalRecord(recorder=run, model=Knowing(), dataset=workplace).generate()
        SignalAnalysisRecord(recorder=run, max_lag_days=4).generate()
        decay = read("signal_analysis/decay.csv")
        decay = decay[decay["label"] == "NEXT_RETURN"]["IC"]
        assert decay[2] == pytest.approx(1)
        assert decay.drop(2).abs().max() < 0.2


class TestIndustries:
    def test_ic_within_each(self, scored: Any, table: Any, read: Any, industry: Path, workplace: Any) -> None:
        SignalAnalysisRecord(recorder=scored, min_stocks=4).generate()
        found = read("signal_analysis/industry.csv")
        assert [*found.index.unique()] == ["Banks & <Brokers>", "Small"]
        stocks = table.index.get_level_values("instrument")
        codes = workplace.rows.get_level_values("instrument").unique()
        after = table.index.get_level_values("datetime") > workplace.calendar[90]
        banks = table[stocks.isin(codes[:20]) | ((stocks == codes[23]) & after)]
        row = found[found["label"] == "RETURN"].loc["Banks & <Brokers>"]
        assert row["RankIC"] == pytest.approx(by_day(banks, "RETURN", 0).mean(), abs=1e-10)
        small = found[found["label"] == "RETURN"].loc["Small"]
        assert small["days"] == 91 - 60  # with the one that moves away there are four
        assert summary(scored)["industry"] == {
            "available": True,
            "reason": "",
            "min_stocks": 4,
            "left_out": [],
        }

    def test_one_that_is_too_small_is_named(self, scored: Any, industry: Path, read: Any) -> None:
        SignalAnalysisRecord(recorder=scored, min_stocks=5).generate()
        assert summary(scored)["industry"]["left_out"] == ["Small"]
        assert [*read("signal_analysis/industry.csv").index.unique()] == ["Banks & <Brokers>"]

    def test_none_is_large_enough(self, scored: Any, industry: Path, files: Any) -> None:
        SignalAnalysisRecord(recorder=scored, min_stocks=30).generate()
        assert "signal_analysis/industry.csv" not in files()
        assert summary(scored)["industry"]["reason"].startswith("no industry has 30 stocks")

    def test_a_store_without_says_how_to_bring_them_in(self, scored: Any) -> None:
        SignalAnalysisRecord(recorder=scored).generate()
        found = summary(scored)["industry"]
        assert not found["available"]
        assert "qlib-ext data side-data DIR industry FILE" in found["reason"]

    def test_a_faulty_table_does_not_stop_the_run_and_is_told(self, scored: Any, industry: Path) -> None:
        industry.write_text("instrument,start,end,industry\nSH600000,2020-02-01,2020-01-01,A\n")
        SignalAnalysisRecord(recorder=scored).generate()
        found = summary(scored)["industry"]
        assert not found["available"]
        assert "industry.csv" in found["reason"]

    def test_spells(self, workplace: Any, industry: Path) -> None:
        store = QlibStore(C.dpm.get_data_uri("day"))
        codes = [*workplace.rows.get_level_values("instrument").unique()]
        found, reason = industries(store, workplace.calendar, codes)
        assert found is not None
        assert reason == ""
        assert found.names == ("Banks & <Brokers>", "Small")
        assert found.code[90, 23] == 1
        assert found.code[91, 23] == 0
        assert (found.code[:, 24:] == -1).all()
        assert (found.code[:, :20] == 0).all()
        nobody, why = industries(store, workplace.calendar, ["SZ000001"])
        assert nobody is None
        assert "none of the scored stocks" in why


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"labels": "RETURN"}, "`labels` must be a list"),
            ({"quantiles": 1}, "`quantiles` must be at least 2, found 1"),
            ({"max_lag_days": -1}, "`max_lag_days` must be at least 0"),
            ({"autocorrelation_days": [0]}, "`autocorrelation_days` must be at least 1"),
            ({"top": []}, "must each name at least one number"),
            ({"min_stocks": 1}, "`min_stocks` must be at least 2"),
        ],
    )
    def test_are_checked_before_any_work(self, run: Any, arguments: Any, message: str) -> None:
        with pytest.raises(UserError, match=message):
            SignalAnalysisRecord(recorder=run, **arguments)

    def test_an_unknown_label_is_named(self, scored: Any) -> None:
        with pytest.raises(UserError, match="`labels` names `WEEK`"):
            SignalAnalysisRecord(recorder=scored, labels=["RETURN", "WEEK"]).generate()

    def test_predictions_of_another_store(self, run: Any, workplace: Any, model: Any) -> None:
        class Elsewhere:
            def predict(self, dataset: Any) -> pd.DataFrame:
                return model.predict(dataset)

        SignalRecord(recorder=run, model=Elsewhere(), dataset=workplace).generate()
        record = SignalAnalysisRecord(recorder=run)
        shift = lambda frame: frame.rename(  # noqa: E731
            index={day: day + pd.Timedelta(days=1) for day in frame.index.levels[0]}, level=0
        )
        load = record.load_table
        record.load_table = lambda path: shift(load(path))  # type: ignore[method-assign]
        with pytest.raises(UserError, match="days that the store lacks, the first is 2020-"):
            record.generate()
