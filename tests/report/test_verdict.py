from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qlib_ext.report import headline, verdict
from qlib_ext.report.headline import Estimate
from qlib_ext.report.note import note
from qlib_ext.report.sections.summary import Summary
from qlib_ext.report.verdict import offsets


@pytest.fixture(scope="module")
def known(made: Any) -> dict[str, Estimate]:
    return headline.estimates(made.view())


@pytest.fixture
def run(make: Callable[..., Any]) -> Any:
    """A run of its own, to be changed, long enough to pass."""
    return make(days=260, epochs=1)


def said(run: Any, known: Mapping[str, Estimate], kind: str = "warning") -> str:
    return " ".join(remark.text for remark in verdict.remarks(run.view(), known) if remark.kind == kind)


def change(run: Any, path: str, **values: Any) -> None:
    file = run.root / path
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


class TestSynthetic:
    def test_it_is_the_first_thing_on_the_page_and_in_the_note(self, run: Any) -> None:
        change(run, "data/summary.json", synthetic=True, synthetic_seed=7)
        page = Summary().render(run.view())
        said = "Synthetic market: a program drew it"
        assert "seed 7" in page
        assert page.index(said) < page.index("ranks the stocks")
        assert note(run.view()).startswith(f"**{said}")

    def test_a_real_market_is_not_said_to_be(self, made: Any) -> None:
        assert verdict.synthetic(made.view()) == ""
        assert "Synthetic" not in Summary().render(made.view())


class TestVerdict:
    @pytest.mark.parametrize(
        ("low", "high", "answer", "sentence"),
        [
            (0.01, 0.05, "yes", "The score ranks the stocks."),
            (-0.01, 0.05, "unclear", "Whether the score ranks the stocks is not clear."),
            (-0.05, -0.01, "no", "The score ranks the stocks the wrong way round."),
            (np.nan, np.nan, "unclear", "Whether the score ranks the stocks is not clear."),
        ],
    )
    def test_the_score(
        self, made: Any, known: dict[str, Estimate], low: float, high: float, answer: str, sentence: str
    ) -> None:
        claim = verdict.claims(made.view(), known | {"RankIC": Estimate(0.03, low, high)})[0]
        assert (claim.answer, claim.said) == (answer, sentence)
        assert "Mean daily RankIC against RETURN: 0.0300" in claim.because

    @pytest.mark.parametrize(
        ("after", "before", "answer", "sentence"),
        [
            ((0.01, 0.1), (0.02, 0.2), "yes", "The portfolio beat the index after cost."),
            ((-0.1, -0.01), (0.02, 0.2), "no", "The portfolio fell short of the index after cost."),
            (
                (-0.1, 0.1),
                (0.02, 0.2),
                "unclear",
                "The portfolio beat the index before cost; after cost it is not clear.",
            ),
            (
                (-0.1, 0.1),
                (-0.02, 0.2),
                "unclear",
                "Whether the portfolio beats the index after cost is not clear.",
            ),
        ],
    )
    def test_the_portfolio(
        self, made: Any, known: dict[str, Estimate], after: Any, before: Any, answer: str, sentence: str
    ) -> None:
        changed = {
            "backtest/annualised_excess_return": Estimate(0.05, *after),
            "backtest/annualised_excess_return_without_cost": Estimate(0.1, *before),
        }
        claim = verdict.claims(made.view(), known | changed)[1]
        assert (claim.answer, claim.said) == (answer, sentence)
        assert "+5.0% a year after cost" in claim.because

    def test_the_hardest_benchmark_decides(self, run: Any, known: dict[str, Estimate]) -> None:
        run.put("benchmarks/setup.json", json.dumps({"draws": 200, "random_below": 0.93}))
        figure = "annualised_excess_return"
        changed = known | {
            f"backtest/{figure}": Estimate(0.05, 0.01, 0.1),
            f"benchmarks/equal_weight/{figure}": Estimate(0.02, -0.01, 0.05),
            f"benchmarks/equal_weight/{figure}_without_cost": Estimate(0.03, 0.01, 0.06),
        }
        claim = verdict.claims(run.view(), changed)[1]
        assert claim.answer == "unclear"
        assert claim.said.startswith("The portfolio beat the universe at equal weight before cost")
        assert "Over the index +5.0% (+1.0% to +10.0%)." in claim.because
        assert (
            "Of 200 lists drawn by chance, with the same turnover and cost, 93% ended below it."
            in claim.because
        )
        changed[f"benchmarks/equal_weight/{figure}"] = Estimate(0.02, 0.01, 0.05)
        said = verdict.claims(run.view(), changed)[1].said
        assert said == "The portfolio beat the universe at equal weight and the index after cost."

    @pytest.mark.parametrize(
        ("index", "universe", "answer", "said"),
        [
            ((0.06, -0.01, 0.13), (0.05, 0.03, 0.07), "unclear", "beats the index after cost is not clear"),
            ((-0.03, -0.07, 0.01), (-0.02, -0.03, -0.01), "no", "fell short of the universe at equal weight"),
        ],
    )
    def test_what_is_least_sure_is_the_hardest_to_beat(
        self,
        run: Any,
        known: dict[str, Estimate],
        index: tuple[float, float, float],
        universe: tuple[float, float, float],
        answer: str,
        said: str,
    ) -> None:
        changed = dict(known)
        for name, (value, low, high) in {"backtest": index, "benchmarks/equal_weight": universe}.items():
            changed[f"{name}/annualised_excess_return"] = Estimate(value, low, high)
            changed[f"{name}/annualised_excess_return_without_cost"] = Estimate(value, -1.0, 1.0)
        claim = verdict.claims(run.view(), changed)[1]
        assert claim.answer == answer
        assert said in claim.said

    @pytest.mark.parametrize(
        ("low", "high", "answer"), [(0.01, 0.02, "yes"), (-0.01, 0.02, "unclear"), (-0.02, -0.01, "no")]
    )
    def test_the_momentum(
        self, made: Any, known: dict[str, Estimate], low: float, high: float, answer: str
    ) -> None:
        claim = verdict.claims(made.view(), known | {"momentum/over_persistence": Estimate(0.01, low, high)})[
            2
        ]
        assert claim.answer == answer
        assert "69.2% beside 67.4%" in claim.because

    def test_only_what_the_run_has_is_judged(self, made: Any, known: dict[str, Estimate]) -> None:
        ranking = {name: found for name, found in known.items() if "/" not in name}
        assert len(verdict.claims(made.view(), ranking)) == 1


class TestRemarks:
    """Each is made where its rule says so, and not where it does not."""

    def test_few_days(self, run: Any, known: dict[str, Estimate]) -> None:
        assert "Only 258 days" not in said(run, known)
        summary = run.view().table("ranking/summary.csv").assign(days=249)
        run.put("ranking/summary.csv", summary)
        assert "Only 249 days" in said(run, known)
        run.put("ranking/summary.csv", summary.assign(days=250))
        assert "Only" not in said(run, known)

    @pytest.mark.parametrize("name", ["IC", "RankIC", "ICIR", "RankICIR"])
    def test_too_good(self, run: Any, known: dict[str, Estimate], name: str) -> None:
        limit = 1.5 if name.endswith("IR") else 0.15
        assert "Suspiciously high" not in said(run, known | {name: Estimate(limit)})
        for value in (limit + 0.01, -limit - 0.01):
            assert f"Suspiciously high: {name} " in said(run, known | {name: Estimate(value)})

    @pytest.mark.parametrize(
        ("scored", "worst", "warned"),
        [(271, 271, False), (269, 269, True), (299, 149, True), (299, 151, False)],
    )
    def test_coverage(
        self, run: Any, known: dict[str, Estimate], scored: int, worst: int, warned: bool
    ) -> None:
        days = pd.bdate_range("2017-01-02", periods=100, name="datetime")
        table = pd.DataFrame({"segment": "test", "members": 300, "scored": scored}, index=days)
        table.loc[days[5], "scored"] = worst
        run.put("data/coverage.parquet", table)
        assert ("Scores cover" in said(run, known)) == warned
        if worst != scored and warned:
            assert "2017-01-09" in said(run, known)

    def test_look_ahead(self, run: Any, known: dict[str, Estimate]) -> None:
        assert "look-ahead" not in said(run, known)
        assert "changed everything after 12 dates (2009-01-05 to 2013-12-27)" in said(run, known, "note")
        leak = {
            "kind": "feature-looks-ahead",
            "message": "`X` follows from bars of later days: <b>mend it</b>",
        }
        change(run, "lookahead/audit.json", findings=[leak] * 4)
        warned = said(run, known)
        assert "raises 4 alarms on 12 dates" in warned
        assert warned.count("feature-looks-ahead: `X`") == 3
        assert "and 1 more." in warned
        assert "&lt;b&gt;mend it" in Summary().render(run.view())
        remembers = {"kind": "changes-with-history", "message": "`EMA`: other features"}
        change(run, "lookahead/audit.json", findings=[remembers], checks=[{"name": "history"}])
        assert "changes with how much history is loaded: `EMA`: other features." in said(run, known)
        assert "knows the future" not in said(run, known)
        assert "shorter history" not in said(run, known, "note")
        change(run, "lookahead/audit.json", findings=[])
        assert "With a shorter history they are the same too" in said(run, known, "note")
        (run.root / "lookahead/audit.json").unlink()
        assert "was not looked at" in said(run, known, "note")

    def test_audit(self, run: Any, known: dict[str, Estimate]) -> None:
        counts = {"error": 2, "warning": 1, "note": 4}
        change(run, "data/quality.json", counts=counts)
        assert "The data audit found 2 errors and 1 warning: figures" in said(run, known)
        change(run, "data/quality.json", counts=counts | {"error": 0})
        assert "The data audit found 1 warning, and no error." in said(run, known)
        change(run, "data/quality.json", counts=counts | {"error": 0, "warning": 0})
        assert "audit" not in said(run, known)
        (run.root / "data/quality.json").unlink()
        assert "not audited" in said(run, known, "note")

    def test_a_return_that_nobody_could_have_earned(self, run: Any, known: dict[str, Estimate]) -> None:
        assert "nobody could have earned" not in said(run, known)
        labels = {"RETURN": "Ref($close, -1) / $close - 1"}
        change(run, "data/summary.json", labels=labels)
        assert "against RETURN, which begins at the close of the day of the score" in said(run, known)

    def test_what_the_score_is_trained_on(self, run: Any, known: dict[str, Estimate]) -> None:
        assert "trained on" not in said(run, known, "note")  # this configuration has no tasks
        run.put("config.yaml", "model: {kwargs: {tasks: {score: {label: RETURN}}}}")
        assert "is known 2 days after the score." in said(run, known, "note")
        run.put("config.yaml", "model: {kwargs: {tasks: {score: {label: NEXT_RETURN}}}}")
        note = said(run, known, "note")
        assert "is known 1 day after the score; IC and precision are against RETURN." in note
        for other in ("model: [", "model: LightGBM", "[]"):
            run.put("config.yaml", other)
            assert "trained on" not in said(run, known, "note")

    def test_labels_that_reach_into_the_next_segment(self, run: Any, known: dict[str, Estimate]) -> None:
        change(run, "data/summary.json", label_horizon_days=2)
        assert "`purge` is off" not in said(run, known)
        run.put("config.yaml", "dataset: {kwargs: {purge: false}}")
        assert "`purge` is off: labels look 2 days ahead" in said(run, known)
        run.put("config.yaml", "dataset: {kwargs: {purge: true}}")
        assert "`purge` is off" not in said(run, known)

    def test_notes_of_the_trading(self, run: Any, known: dict[str, Estimate]) -> None:
        assert "Trading ends on" in said(run, known, "note")
        change(run, "backtest/setup.json", notes=[])
        assert "Trading ends on" not in said(run, known, "note")

    def test_an_index_without_dividends(self, run: Any, known: dict[str, Estimate]) -> None:
        assert "its dividends are missing" in said(run, known, "note")
        change(run, "backtest/setup.json", benchmark_total_return=True)
        assert "its dividends are missing" not in said(run, known, "note")

    def test_warnings_come_first(self, made: Any, known: dict[str, Estimate]) -> None:
        kinds = [remark.kind for remark in verdict.remarks(made.view(), known)]
        assert kinds == sorted(kinds, reverse=True)
        assert {*kinds} == {"warning", "note"}


class TestOffsets:
    @pytest.mark.parametrize(
        ("formula", "expected"),
        [
            ("Ref($close, -2) / Ref($close, -1) - 1", [2, 1]),
            ("Ref($close,-1)/$close-1", [1, 0]),
            ("Ref($close, 4)-Ref($close, 8)", [-4, -8]),
            ("", []),
        ],
    )
    def test_days_after_the_score(self, formula: str, expected: list[int]) -> None:
        assert offsets(formula) == expected


class TestSummary:
    def test_verdict_warnings_figures_and_rules_in_this_order(self, made: Any) -> None:
        page = Summary().render(made.view())
        parts = ["The score ranks the stocks.", "Look at this first", "RankICIR", "Ranking against RETURN"]
        parts += ["Good to know", "How this is judged"]
        places = [page.index(part) for part in parts]
        assert places == sorted(places)

    def test_no_box_without_a_warning(self, run: Any) -> None:
        change(run, "data/quality.json", counts={"error": 0, "warning": 0, "note": 0})
        assert "Look at this first" not in Summary().render(run.view())

    def test_it_stands_without_the_optional_artifacts(self, run: Any) -> None:
        for path in Summary().optional:
            (run.root / path).unlink(missing_ok=True)
        view = replace(
            run.view(), metrics={k: v for k, v in run.metrics.items() if not k.startswith("backtest")}
        )
        page = Summary().render(view)
        assert "portfolio" not in page
        assert "not audited" in page
