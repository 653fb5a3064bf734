from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from qlib_ext.report import html
from qlib_ext.report.charts import Bars, Lines
from qlib_ext.report.comparison.charts import MANY, charts
from qlib_ext.report.comparison.compared import Comparison
from qlib_ext.report.comparison.document import MOST_GROUPS, render
from qlib_ext.report.comparison.words import _of_choosing, claims, group_rows, p_value, rows_of_tests, value
from qlib_ext.report.figures import drawn
from qlib_ext.report.language import language
from tests.report.comparison.conftest import EQUAL, Shelf


class TestCharts:
    def test_every_chart_is_there_and_can_be_drawn(self, comparison: Comparison) -> None:
        found = charts(comparison)
        assert [*found] == [
            "group_ic",
            "group_excess_return",
            "difference_ic",
            "difference_return",
            "cumulative_return",
            "cumulative_excess",
            "cumulative_rank_ic",
            "cumulative_ic",
            "overfitting",
        ]
        for chart in found.values():
            drawn(chart)

    def test_lines_are_means_over_seeds_between_their_deviations(self, comparison: Comparison) -> None:
        chart = charts(comparison)["cumulative_ic"]
        assert isinstance(chart, Lines)
        group = comparison.groups[0]
        paths = np.array([run.daily["IC"].to_numpy().cumsum() for run in group.runs])
        np.testing.assert_allclose(chart.series["CQB"], paths.mean(axis=0), atol=1e-12)
        low, high = chart.bands["CQB"]
        np.testing.assert_allclose(high - low, 2 * paths.std(axis=0, ddof=1), atol=1e-12)

    def test_value_is_compounded_and_ends_where_the_account_does(self, comparison: Comparison) -> None:
        chart = charts(comparison)["cumulative_return"]
        assert isinstance(chart, Lines)
        ends = [np.prod(1 + run.daily["return"].dropna()) for run in comparison.groups[0].runs]
        assert chart.series["CQB"].iloc[-1] == pytest.approx(np.mean(ends), rel=1e-12)
        assert "Index SH000300" in chart.series
        assert chart.log_choice

    def test_intervals_stand_around_the_differences(self, comparison: Comparison) -> None:
        chart = charts(comparison)["difference_return"]
        assert isinstance(chart, Bars)
        row = comparison.tests.query("measure == 'return' and group == 'CQB'").iloc[0]
        assert chart.low is not None
        assert chart.values.loc["CQB", "return after cost"] == pytest.approx(1e4 * row["difference"])
        assert chart.low.loc["CQB", "return after cost"] == pytest.approx(1e4 * row["low"])

    def test_of_many_groups_the_best_and_the_baseline_are_shown_at_first(self, shelf: Shelf) -> None:
        for k in range(MANY + 3):
            shelf.run(skill=0.01 + k / 100, days=20, params={"model.kwargs.trainer.n_epochs": str(k)})
        chart = charts(shelf.compared(draws=20))["cumulative_ic"]
        assert isinstance(chart, Lines)
        assert [*chart.hidden] == ["n_epochs 2", "n_epochs 1"]

    def test_groups_are_attributed_where_their_runs_are(self, shelf: Shelf) -> None:
        for seed, styles in ((0, 0.01), (1, 0.03)):
            shelf.run(seed=seed, days=20, metrics={"attribution/equal_weight/styles": styles})
        compared = shelf.compared(draws=20)
        chart = charts(compared)["group_attribution"]
        assert isinstance(chart, Bars)
        assert chart.values["Styles"].tolist() == [pytest.approx(0.02)]
        page = render(compared, "t", {})
        assert "Beyond the universe at equal weight, a year" in page
        assert "2.00% ± 1.41" in page

    def test_one_group_has_nothing_to_differ_from(self, shelf: Shelf) -> None:
        shelf.run(without=("backtest",))
        assert [*charts(shelf.compared())] == [
            "group_ic",
            "group_excess_return",
            "cumulative_rank_ic",
            "cumulative_ic",
        ]


class TestWords:
    def test_a_better_group_is_said_to_be(self, comparison: Comparison) -> None:
        said = claims(comparison)
        assert said[0].answer == "yes"
        assert said[0].said.startswith("RankIC is higher than that of EqualWeighting: CQB (+0.03")
        assert "Of 1 comparisons, p below 0.05 after Holm's correction" in said[0].because
        assert "luck of 6 trials" in said[-1].said

    def test_the_choice_of_the_best_is_judged(self, shelf: Shelf) -> None:
        for k in range(3):
            shelf.run(seed=k, skill=0.1 * k, params={"model.kwargs.trainer.n_epochs": str(k)})
        compared = shelf.compared(draws=20)
        assert compared.overfitting is not None
        said = claims(compared)[-2]
        probability = html.percent(compared.overfitting.probability, 0)
        assert f"probability of {probability} (probability of backtest overfitting" in said.because
        assert "Of 3 runs the one with the highest ratio" in said.because
        assert "of the ledger" not in said.because
        assert compared.trials is not None
        unseen = _of_choosing(compared.overfitting, dataclasses.replace(compared.trials, others=4)).because
        assert "4 trials of the ledger that are not compared here do not count" in unseen
        few = _of_choosing(compared.overfitting._replace(probability=0.01, configurations=4), None)
        assert (few.answer, few.said[:10]) == ("unclear", "4 runs are")
        sure = _of_choosing(compared.overfitting._replace(probability=0.01, configurations=5), None)
        toss = _of_choosing(compared.overfitting._replace(probability=0.5), None)
        open_ = _of_choosing(compared.overfitting._replace(probability=0.2), None)
        assert [each.answer for each in (sure, open_, toss)] == ["yes", "unclear", "no"]
        page = render(compared, "t", {})
        assert "Choice of the best" in page
        assert 'id="chart-overfitting"' in page

    def test_what_one_training_says_is_called_so(self, shelf: Shelf) -> None:
        shelf.run(skill=0.2)
        shelf.run(skill=0.0, params=EQUAL)
        said = claims(shelf.compared(baseline="EqualWeighting"))[0]
        assert said.answer == "unclear"
        assert "is higher than that of EqualWeighting: CQB" in said.said
        assert said.said.endswith("This is of one training of a method, and says nothing of other seeds.")

    def test_seeds_that_differ_more_than_the_groups_leave_it_open(self, shelf: Shelf) -> None:
        for seed, skill in enumerate((0.0, 0.0, 0.3)):
            shelf.run(skill=skill, seed=seed)
            shelf.run(skill=0.0, seed=seed, params=EQUAL)
        comparison = shelf.compared(baseline="EqualWeighting")
        row = comparison.tests.query("measure == 'RankIC' and group == 'CQB'").iloc[0]
        assert row["p, Holm"] < 0.05
        assert row["low, seeds"] <= 0 < row["high, seeds"]
        said = claims(comparison)[0]
        assert said.answer == "unclear"
        assert "Other seeds may turn it" in said.said

    def test_a_worse_group_is_said_to_be(self, full_shelf: Shelf) -> None:
        said = claims(full_shelf.compared(baseline="CQB"))
        assert said[0].answer == "no"
        assert said[0].said.startswith("RankIC is lower than that of CQB: EqualWeighting (−0.03")

    def test_no_difference_is_no_claim(self, shelf: Shelf) -> None:
        shelf.run(seed=1)
        shelf.run(seed=2, skill=0.0301, params=EQUAL)
        said = claims(shelf.compared())
        assert said[0].answer == "unclear"
        assert said[0].said == "RankIC: no group differs from CQB by more than chance may bring."

    def test_a_loss_is_no_luck(self, shelf: Shelf) -> None:
        shelf.run(skill=-0.05)
        claim = claims(shelf.compared())[-1]
        assert claim.answer == "no"
        assert claim.said == "None of 1 trial earned more than the index, after cost."

    def test_cells(self, comparison: Comparison) -> None:
        assert value("IC", 0.04123, 0.00216) == "0.0412 ± 0.0022"
        assert value("backtest/max_drawdown", -0.2) == "−20.00%"
        assert value("backtest/max_drawdown", -0.2, 0.013) == "−20.00% ± 1.30"
        assert p_value(0.0005) == "< 0.001"
        assert p_value(float("nan")) == "–"
        assert [row[:2] for row in group_rows(comparison, ["IC"])] == [
            ["CQB", "3"],
            ["EqualWeighting (baseline)", "3"],
        ]
        names = [row[0] for row in rows_of_tests(comparison, "IC")]
        assert names == ["CQB", "EqualWeighting (baseline)"]


class TestPage:
    def test_it_holds_every_part(self, comparison: Comparison) -> None:
        text = render(comparison, "Comparison of main", {"Made by": "qlib-ext compare main"})
        for part in (
            "Summary",
            "Groups",
            "Differences to the baseline",
            "Returns",
            "Information coefficient",
            "Configuration",
            "Runs",
            "Left out: 0 runs",
            "Provenance",
        ):
            assert (f">{part}<" in text) == (part != "Left out: 0 runs"), part
        assert "qlib-ext compare main" in text
        assert "model.kwargs.balancer.class" in text
        for group in comparison.groups:
            for run in group.runs:
                assert run.run_id[:8] in text

    def test_a_synthetic_market_is_said_before_every_claim(self, shelf: Shelf) -> None:
        shelf.run(seed=1, summary={"synthetic": True, "synthetic_seed": 4})
        shelf.run(seed=2)
        page = render(shelf.compared(), "Comparison", {})
        assert page.index("Synthetic market: a program drew it") < page.index("luck of")

    def test_a_real_market_is_not_said_to_be_synthetic(self, comparison: Comparison) -> None:
        assert comparison.synthetic == ""
        assert "Synthetic" not in render(comparison, "Comparison", {})

    def test_portfolios_are_compared_by_how_they_were_made(self, shelf: Shelf) -> None:
        made = {
            "construction/forecast_tracking_error": 0.04,
            "construction/realised_tracking_error": 0.055,
            "construction/turnover_new": 0.123,
            "construction/relaxed_share": 0.25,
        }
        shelf.run(days=20, metrics=made)
        shelf.run(days=20, params=EQUAL)
        page = render(shelf.compared(draws=20), "Comparison", {})
        table = page[page.index(">Portfolio construction<") :]
        assert '<td class="number" data-label="Tracking error, realised">5.5%</td>' in table
        assert (
            table.index("25.0%")
            < table.index(">Turnover of a mean rebalancing, by cause<")
            < table.index("12.3%")
        )
        shelf.runs.pop(0)
        assert "Portfolio construction" not in render(shelf.compared(draws=20), "Comparison", {})

    def test_of_many_groups_a_value_is_a_row(self, shelf: Shelf) -> None:
        for k in range(MOST_GROUPS + 1):
            shelf.run(days=20, params={"model.kwargs.trainer.n_epochs": str(min(k, 4))}, name=f"n{k}")
            shelf.run(days=20, params={"model.kwargs.trainer.n_epochs": str(k), **EQUAL})
        page = render(shelf.compared(draws=20), "Comparison", {})
        cells = r'<th scope="row">model.kwargs.balancer.class</th><td>([^<]*)</td><td>([^<]*)</td>'
        having = {value: groups.count(";") + 1 for value, groups in re.findall(cells, page)}
        assert having == {"EqualWeighting": MOST_GROUPS + 1, "CQB": 5}

    def test_few_groups_have_a_column_each(self, comparison: Comparison) -> None:
        header = '<th scope="col">Parameter</th><th scope="col">CQB</th><th scope="col">EqualWeighting</th>'
        assert header in render(comparison, "Comparison", {})

    def test_it_is_told_in_chinese(self, comparison: Comparison) -> None:
        chinese = language("zh")
        text = render(comparison, "Comparison of main", {"Made by": "qlib-ext compare main"}, chinese)
        assert "<h1>比较：main</h1>" in text
        headings = re.findall(r"<h[23][^>]*>([^<]+)<", text)
        assert [each for each in headings if not re.search(r"[\u4e00-\u9fff]", each)] == []
        for claim in claims(comparison):
            for said in claim.said, claim.because:
                assert html.text(chinese.text(said)) in text
                assert chinese.text(said) != said

    def test_it_is_small_enough_to_send(self, comparison: Comparison) -> None:
        assert len(render(comparison, "x", {}).encode()) < 3e6

    def test_the_same_runs_make_the_same_page(self, comparison: Comparison) -> None:
        assert render(comparison, "x", {}) == render(comparison, "x", {})

    def test_names_stay_text(self, shelf: Shelf) -> None:
        evil = "<script>alert(1)</script>"
        shelf.run(evil, params={"model.kwargs.balancer.class": evil})
        shelf.run(f"{evil} again", params=EQUAL)
        assert evil not in render(shelf.compared(), evil, {evil: evil})
