from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from qlib_ext.checks import UserError
from qlib_ext.metrics.overfitting import backtest_overfitting
from qlib_ext.metrics.significance import bootstrap_difference, holm
from qlib_ext.report.comparison.compared import Comparison, compare
from qlib_ext.report.comparison.runs import ComparedRun, LeftOut, read
from qlib_ext.tracking.runs import find_runs
from tests.report.comparison.conftest import EQUAL, Shelf, Store, tables

DRAWS = 200


def runs_of(store: Store, *wanted: str) -> tuple[list[ComparedRun], list[LeftOut]]:
    return read(store.client, find_runs(store.client, wanted or ["main"], finished=False))


class TestReading:
    def test_what_is_left_out_and_why(self, store: Store) -> None:
        runs, left_out = runs_of(store)
        why = {each.name: each.why for each in left_out}
        assert why["still training"] == "not finished: MLflow has it as RUNNING"
        assert why["empty"] == "it has neither `ranking/daily.parquet` nor `backtest/daily.parquet`"
        assert why["broken"].startswith("its artifacts cannot be read: ")
        assert len(why) == 3
        assert compare(runs, left_out, draws=20).left_out == left_out

    def test_nothing_to_compare(self, store: Store) -> None:
        runs, left_out = runs_of(store, "broken")
        with pytest.raises(UserError, match="no run can be compared: broken: its artifacts cannot be read"):
            compare(runs, left_out)

    def test_the_first_label_and_returns_after_cost(self, store: Store) -> None:
        (run,), _ = runs_of(store, "cqb 0")
        assert run.daily["IC"].mean() < 0.2, "NEXT_RETURN's is higher by one"
        ranking, backtest = tables(0, 0.05, 120).values()
        pd.testing.assert_series_equal(
            run.daily["RankIC"], ranking["rank_ic/RETURN"], check_names=False, check_freq=False
        )
        excess = backtest["return"] - backtest["cost"] - backtest["benchmark"]
        np.testing.assert_allclose(run.daily["excess"].dropna(), excess, atol=1e-15)
        assert (run.seed, run.experiment) == ("0", "main")
        assert run.conditions["label"] == "RETURN = Ref($close, -2) / Ref($close, -1) - 1"


class TestGroups:
    def test_seeds_are_put_together_and_the_better_group_comes_first(self, comparison: Comparison) -> None:
        assert [group.name for group in comparison.groups] == ["CQB", "EqualWeighting"]
        assert [len(group.runs) for group in comparison.groups] == [3, 3]
        assert comparison.baseline.name == "EqualWeighting", "the group of the first run"
        assert comparison.warnings == []

    def test_mean_and_deviation_over_seeds(self, shelf: Shelf) -> None:
        for seed, ic in enumerate((0.01, 0.02, 0.06)):
            shelf.run(seed=seed, metrics={"IC": ic})
        row = shelf.compared().summary.loc["all runs"]
        assert row["IC"] == pytest.approx(0.03, abs=1e-15)
        assert row["IC, sd"] == pytest.approx(np.std([0.01, 0.02, 0.06], ddof=1), abs=1e-15)
        assert (row["runs"], row["seeds"]) == (3, "0 1 2")
        assert "train/loss/score" not in row, "of an epoch, and no result"

    def test_one_run_has_no_deviation(self, shelf: Shelf) -> None:
        shelf.run()
        row = shelf.compared().summary.loc["all runs"]
        assert row["IC"] == 0.03
        assert math.isnan(row["IC, sd"])

    def test_by_a_key_and_what_then_differs_within(self, full_shelf: Shelf) -> None:
        found = full_shelf.compared(by=["seed"])
        assert [group.name for group in found.groups] == ["seed 0", "seed 1", "seed 2"]
        assert any("differ in more than their seed: model balancer" in warning for warning in found.warnings)

    def test_by_experiment_and_by_name(self, shelf: Shelf) -> None:
        shelf.run("a", experiment="one")
        shelf.run("b", experiment="two")
        assert [group.name for group in shelf.compared(by=["experiment"]).groups] == [
            "experiment one",
            "experiment two",
        ]
        assert {group.name for group in shelf.compared(by=["name"]).groups} == {
            "name a",
            "name b",
        }

    def test_by_a_tag(self, shelf: Shelf) -> None:
        shelf.run(tags={"git_commit": "aaaa"})
        shelf.run(tags={"git_commit": "bbbb"})
        found = shelf.compared(by=["git_commit"])
        assert {group.name for group in found.groups} == {"git_commit aaaa", "git_commit bbbb"}
        assert "The runs were made by 2 versions of the code: aaaa; bbbb." in found.warnings

    def test_a_run_made_again_counts_once(self, shelf: Shelf) -> None:
        old, new = shelf.run("old"), shelf.run("new")
        found = shelf.compared()
        assert [run.run_id for run in found.groups[0].runs] == [new]
        assert [(each.run_id, each.why[:13]) for each in found.left_out] == [(old, f"run {new[:8]} ")]

    def test_made_again_on_other_data_it_is_said(self, shelf: Shelf) -> None:
        shelf.run(tags={"data_fingerprint": "1"})
        shelf.run(tags={"data_fingerprint": "2"})
        warnings = shelf.compared().warnings
        assert (
            "all runs has several runs of seed 0, of different data or machines; they count as several seeds."
            in warnings
        )
        assert any("differ in their data: 1 (all runs) | 2 (all runs)" in warning for warning in warnings)


class TestBaseline:
    @pytest.mark.parametrize("wanted", ["CQB", "cqb", "cqb 1", "QB"])
    def test_by_name_part_or_run(self, full_shelf: Shelf, wanted: str) -> None:
        assert full_shelf.compared(baseline=wanted).baseline.name == "CQB"

    def test_by_id(self, full_shelf: Shelf) -> None:
        run_id = full_shelf.runs[-1].run_id
        assert full_shelf.compared(baseline=run_id).baseline.name == "CQB"

    def test_none_and_several(self, full_shelf: Shelf) -> None:
        with pytest.raises(
            UserError, match=r"one of the groups `EqualWeighting`, `CQB`, found `CQP` \(did you mean CQB"
        ):
            full_shelf.compared(baseline="CQP")
        with pytest.raises(UserError, match=r"must mean one group, found 2 for `q`: `EqualWeighting`, `CQB`"):
            full_shelf.compared(baseline="q")


class TestTests:
    def test_means_over_seeds_are_tested_on_common_days(
        self, full_shelf: Shelf, comparison: Comparison
    ) -> None:
        runs = full_shelf.runs
        mean = {
            name: sum(run.daily["RankIC"] for run in runs if run.name.startswith(name)) / 3
            for name in ("cqb", "equal")
        }
        expected = bootstrap_difference(mean["cqb"], mean["equal"], draws=DRAWS)
        row = comparison.tests.query("measure == 'RankIC' and group == 'CQB'").iloc[0]
        np.testing.assert_allclose(
            row[["difference", "low", "high", "p"]].astype(float), expected, atol=1e-12
        )
        assert row["days"] == 120
        assert row["p, Holm"] == row["p"] < 0.05, "one comparison needs no correction"

    @pytest.mark.parametrize("name", ["RETURN", "OF_WHICH_A_PROCESSOR_MADE_IT"])
    def test_overlapping_returns_are_drawn_in_longer_blocks(self, shelf: Shelf, name: str) -> None:
        described = {"label_days": {name: {"reach": 26, "span": 20}}}
        shelf.run("equal", skill=0.02, params=EQUAL, summary=described)
        shelf.run("cqb", skill=0.05, summary=described)
        tests = shelf.compared(draws=DRAWS).tests.query("group == 'CQB'").set_index("measure")
        for measure, block in (("IC", 40), ("return", None)):
            equal, cqb = (run.daily[measure].dropna() for run in shelf.runs)
            expected = bootstrap_difference(cqb, equal, draws=DRAWS, block_days=block)
            found = tests.loc[measure, ["difference", "low", "high", "p"]].astype(float)
            np.testing.assert_allclose(found, expected, atol=1e-12)

    def test_the_better_group_is_found_and_alone_in_the_set(self, comparison: Comparison) -> None:
        tests = comparison.tests.set_index(["measure", "group"])
        assert tests.loc[("RankIC", "CQB"), "p, confidence set"] == 1
        assert tests.loc[("RankIC", "EqualWeighting"), "p, confidence set"] < 0.1
        assert comparison.spa["RankIC"] < 0.05
        assert math.isnan(tests.loc[("RankIC", "EqualWeighting"), "p"])

    def test_several_groups_are_corrected_together(self, shelf: Shelf) -> None:
        for k, skill in enumerate((0.03, 0.032, 0.036, 0.05)):
            shelf.run(skill=skill, params={"model.kwargs.trainer.n_epochs": str(k)})
        tests = shelf.compared().tests.query("measure == 'IC'")
        np.testing.assert_array_equal(tests["p, Holm"], holm(tests["p"]))
        assert tests["p"].notna().sum() == 3

    def test_groups_of_different_days_meet_on_the_common_ones(self, shelf: Shelf) -> None:
        shelf.run(days=120)
        shelf.run(days=60, params=EQUAL)
        row = shelf.compared().tests.query("measure == 'IC' and group == 'EqualWeighting'").iloc[0]
        assert row["days"] == 60

    def test_no_common_day(self, shelf: Shelf) -> None:
        shelf.run(days=60)
        shelf.run(days=60, params=EQUAL)
        later = shelf.runs[1].daily
        later.index = later.index + pd.Timedelta(days=400)
        found = shelf.compared()
        row = found.tests.query("measure == 'IC' and group == 'EqualWeighting'").iloc[0]
        assert row["days"] == 0
        assert math.isnan(row["p"])
        assert math.isnan(found.spa["IC"])

    def test_three_days(self, shelf: Shelf) -> None:
        shelf.run(days=3)
        shelf.run(days=3, params=EQUAL)
        found = shelf.compared()
        assert found.tests["p, confidence set"].isna().all(), "three days say nothing"
        assert found.tests.query("measure == 'IC'")["days"].max() == 3

    def test_runs_without_a_backtest_are_compared_by_the_rest(self, shelf: Shelf) -> None:
        shelf.run(without=("backtest",))
        shelf.run(params=EQUAL)
        found = shelf.compared()
        assert {*found.tests["measure"]} == {"RankIC", "IC"}
        assert found.trials is not None
        assert found.trials.count == 1
        assert "1 of 1 runs of CQB have no `backtest/daily.parquet`." in found.warnings

    def test_runs_of_an_older_version_say_less(self, shelf: Shelf) -> None:
        shelf.run(without=("data", "backtest/setup.json"))
        shelf.run(params=EQUAL, without=("data", "backtest/setup.json"))
        found = shelf.compared()
        assert len(found.groups) == 2
        assert not any("Not comparable" in warning for warning in found.warnings)
        assert "1 of 1 runs of CQB have no `data/summary.json`." in found.warnings


class TestTrials:
    def test_the_best_run_against_the_luck_of_all(self, full_shelf: Shelf, comparison: Comparison) -> None:
        runs = full_shelf.runs
        ratios = {run.run_id: run.daily["excess"].mean() / run.daily["excess"].std() for run in runs}
        best = max(runs, key=lambda run: ratios[run.run_id])
        n, e = len(runs), np.euler_gamma
        luck = np.std([*ratios.values()], ddof=1) * (
            (1 - e) * stats.norm.ppf(1 - 1 / n) + e * stats.norm.ppf(1 - 1 / (n * math.e))
        )
        assert comparison.trials is not None
        assert (comparison.trials.count, comparison.trials.best.run_id) == (6, best.run_id)
        assert comparison.trials.ratio == pytest.approx(ratios[best.run_id] * math.sqrt(243), rel=1e-10)
        assert comparison.trials.luck == pytest.approx(luck * math.sqrt(243), rel=1e-10)
        daily = best.daily["excess"].dropna()
        z = ratios[best.run_id]
        error = math.sqrt(
            (1 - stats.skew(daily) * z + (stats.kurtosis(daily, fisher=False) - 1) / 4 * z**2)
            / (len(daily) - 1)
        )
        assert comparison.trials.probability == pytest.approx(stats.norm.cdf((z - luck) / error), abs=1e-10)
        shown = comparison.runs.set_index("run").loc[best.run_id, "deflated Sharpe ratio"]
        assert shown == comparison.trials.probability

    def test_what_choosing_the_best_run_is_worth(self, full_shelf: Shelf, comparison: Comparison) -> None:
        daily = pd.concat([run.daily["excess"] for run in full_shelf.runs], axis=1).dropna()
        assert comparison.overfitting is not None
        assert (comparison.overfitting.configurations, comparison.overfitting.blocks) == (6, 10)
        assert comparison.overfitting.probability == backtest_overfitting(daily.to_numpy()).probability

    def test_one_run_is_no_choice(self, shelf: Shelf) -> None:
        shelf.run()
        assert shelf.compared().overfitting is None

    @pytest.mark.parametrize(("days", "said"), [(80, False), (81, True)])  # the first is not traded
    def test_a_few_days_say_nothing_of_the_choice(self, shelf: Shelf, days: int, said: bool) -> None:
        for seed in range(3):
            shelf.run(seed=seed, days=days)
        assert (shelf.compared(draws=20).overfitting is not None) is said

    def test_no_backtest_no_trial(self, shelf: Shelf) -> None:
        shelf.run(without=("backtest",))
        assert shelf.compared().trials is None


class TestConfiguration:
    def test_differences_and_what_is_shared(self, comparison: Comparison) -> None:
        table = comparison.configuration
        assert [*table.index] == ["model.kwargs.balancer.class", "model.kwargs.balancer.kwargs.beta"]
        assert table.loc["model.kwargs.balancer.class"].to_dict() == {
            "CQB": "CQB",
            "EqualWeighting": "EqualWeighting",
        }
        assert table.loc["model.kwargs.balancer.kwargs.beta"].to_dict() == {
            "CQB": "0.5",
            "EqualWeighting": "–",
        }
        assert comparison.shared["record.BacktestRecord.strategy.kwargs.topk"] == "50"
        assert "model.kwargs.seed" not in comparison.shared


class TestWarnings:
    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"tags": {"data_fingerprint": "9999"}}, r"their data: 0123 \(CQB\) \| 9999 \(EqualWeighting\)"),
            (
                {"summary": {"segments": {"test": {"start": "2018-01-02", "end": "2018-12-28"}}}},
                r"their test segment: 2017-01-03 to 2017-12-29 \(CQB\) \| 2018-01-02 to 2018-12-28",
            ),
            ({"summary": {"universe": "csi100"}}, "their universe: csi300"),
            ({"summary": {"labels": {"RETURN": "x"}}}, "their label: RETURN = Ref"),
            ({"setup": {"benchmark": "SH000016"}}, "their index: SH000300"),
            (
                {"setup": {"exchange": {"open_cost": 0.0, "close_cost": 0.0015}}},
                "costs and fills: open_cost 0.0005",
            ),
            ({"setup": {"rules": {"digest": "0123abcd"}}}, r"close_cost 0.0015 \(digest 0123abcd\)"),
            ({"setup": {"account": 1e6}}, r"their account: 100,000,000 \(CQB\) \| 1,000,000"),
        ],
    )
    def test_what_makes_runs_hard_to_compare(
        self, shelf: Shelf, changed: dict[str, object], said: str
    ) -> None:
        shelf.run()
        shelf.run(params=EQUAL, **changed)  # type: ignore[arg-type]
        (warning, *_) = shelf.compared().warnings
        assert warning.startswith("Not comparable as they stand")
        assert pd.Series([warning]).str.contains(said).all(), warning

    def test_runs_that_know_the_future(self, shelf: Shelf) -> None:
        shelf.run()
        shelf.run(params=EQUAL, tags={"combinatorial": "6 folds, 2 of them scored at a time"})
        (said,) = [each for each in shelf.compared(draws=20).warnings if "combinatorial" in each]
        assert said.startswith(
            "1 of 1 runs of EqualWeighting have scores of a combinatorial cross-validation"
        )

    def test_numbers_of_runs(self, shelf: Shelf) -> None:
        shelf.run()
        shelf.run(params=EQUAL)
        assert "Each group has one run: how much another seed would change its figures is not known." in (
            shelf.compared().warnings
        )
        shelf.run(seed=1)
        assert any(
            "different numbers of runs: 2 of CQB; 1 of EqualWeighting" in w for w in shelf.compared().warnings
        )
