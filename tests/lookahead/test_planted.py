"""Each planted leak is caught by name, on the right dates; what does not leak raises no alarm."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qlib_ext.lookahead.findings import KINDS, Result
from qlib_ext.market.store import QlibStore

BARS = "qlib_ext.features.daily_bars.DailyBars"
STATUS = {"indices": ["SH600000", "SH600001"], "windows": [2, 3]}
MACRO = {"class": "qlib_ext.features.side_data.macro.Macro", "kwargs": {"series": ["cpi"]}}


EXPRESSIONS = "qlib_ext.features.expressions.Expressions"
SIDE_FEATURES = [
    "$close / Ref($close, 1)",
    "side.report.roe",
    "CSRank(Fresh(side.report.growth, 60))",
    "Age(side.report.growth)",
    "IsMissing(side.report.growth)",
    "Ref(side.mood.score, 2)",
    "side.macro.cpi",
]


def config(name: str, **kwargs: Any) -> dict[str, Any]:
    """A class of planted_leaks.py, as a workflow names it."""
    return {"class": f"planted_leaks.{name}", "kwargs": kwargs}


def kinds(result: Result) -> set[str]:
    for finding in result.findings:
        sys.stdout.write(f"{finding.kind}: {finding.message}\n")  # shown where a test fails
    return {finding.kind for finding in result.findings}


def told(result: Result, kind: str) -> str:
    """The one finding of a kind, in its words."""
    (message,) = [finding.message for finding in result.findings if finding.kind == kind][:1]
    return message


class TestNoFalseAlarm:
    def test_daily_panels(self, task: Any, audited: Any) -> None:
        result = audited(task())
        assert result.findings == ()
        assert result.dates == 16
        assert {check.name for check in result.checks} >= {"dates", "refits", "splits", "scoring"}

    def test_a_model_without_a_score_on_some_days(self, task: Any, audited: Any) -> None:
        result = audited(task(model=config("Partial")))
        assert result.findings == ()
        assert "scoring" in {check.name for check in result.checks}

    def test_scores_that_round_by_the_number_of_rows(self, task: Any, audited: Any) -> None:
        assert audited(task(model=config("RoundsByRows"))).findings == ()

    def test_daily_panels_with_side_data(self, task: Any, audited: Any) -> None:
        side = {
            "market_value": {"class": "qlib_ext.features.side_data.market_value.SideMarketValue"},
            "concepts": {"class": "qlib_ext.features.side_data.concepts.SideConcepts"},
            "market_status": {
                "class": "qlib_ext.features.side_data.market_status.IndexStatus",
                "kwargs": STATUS,
            },
        }
        assert audited(task(dataset=side)).findings == ()

    def test_daily_bars_beside_macro_figures(self, task: Any, audited: Any) -> None:
        assert audited(task(features=BARS, macro=MACRO)).findings == ()

    def test_numbers_of_side_data(self, task: Any, audited: Any) -> None:
        assert audited(task(features=EXPRESSIONS, expressions=SIDE_FEATURES)).findings == ()

    def test_features_that_remember_longer_than_the_days_between(self, task: Any, audited: Any) -> None:
        """Market values over 60 days: a batch takes the day before for the future, its own market does not."""
        trailing = {
            "class": "qlib_ext.features.side_data.market_value.TrailingTradedValue",
            "kwargs": {"window_days": 60, "min_days": 5, "volume": "raw"},
        }
        result = audited(task(dataset={"market_value": trailing}))
        assert result.findings == ()
        assert result.facts["changed_markets"] > 5

    def test_qlibs_own_handler(self, table_task: Any, audited: Any) -> None:
        assert audited(table_task()).findings == ()

    def test_a_processor_that_is_fitted_on_the_training_days(
        self, table_task: Any, segments: Any, audited: Any
    ) -> None:
        first, last = segments["train"]
        norm = {
            "class": "RobustZScoreNorm",
            "kwargs": {"fields_group": "feature", "fit_start_time": first, "fit_end_time": last},
        }
        assert audited(table_task(infer=[norm])).findings == ()

    def test_a_model_that_is_trained_on_the_training_days(self, task: Any, audited: Any) -> None:
        assert audited(task(model=config("ScaledByLabels"))).findings == ()


WINDOWS = {
    "NextDay": ("label-in-features", "ranks the stocks as the label `NEXT_RETURN` does"),
    "Centred": ("feature-looks-ahead", "bars of later days"),
    "WholeSample": ("feature-looks-ahead", "bars of later days"),
    "RankedInTime": ("feature-looks-ahead", "`CLOSE0` follows from bars"),
    "WithLabel": ("label-in-features", "ranks the stocks as the label `RETURN` does"),
    "FilledBackwards": ("feature-looks-ahead", "bars of later days"),
    "FittedOnAll": ("statistics-look-ahead", "features.median moves"),
}


class TestFeatures:
    @pytest.mark.parametrize("leak", WINDOWS)
    def test_windows(self, leak: str, task: Any, audited: Any) -> None:
        result = audited(task(features=f"planted_leaks.{leak}"))
        kind, words = WINDOWS[leak]
        follows = (
            {"levels-hold-later-splits"} if leak == "WholeSample" else set()
        )  # it is of prices, not of ratios
        assert kinds(result) == {kind} | follows
        assert words in told(result, kind)

    @pytest.mark.parametrize(
        ("expression", "kind"),
        [
            ("Ref($close, -1)/$close-1", "feature-looks-ahead"),
            ("Ref(Mean($close, 5), -2)/$close", "feature-looks-ahead"),
            ("Ref($close, -30)/$close", "feature-looks-ahead"),
            ("Ref($close, -2)/Ref($close, -1)-1", "label-in-features"),
        ],
    )
    def test_expressions(self, expression: str, kind: str, table_task: Any, audited: Any) -> None:
        features = {"CHANGE": "$close/Ref($close, 1)-1", "LEAK": expression}
        result = audited(table_task(features))
        follows = (
            {"training-data-look-ahead"} if "-30" in expression else set()
        )  # it reaches into the next segment
        assert kinds(result) == {kind} | follows
        assert "`LEAK`" in told(result, kind)
        assert "`CHANGE`" not in told(result, kind)

    @pytest.mark.parametrize("name", ["Standardised", "Backfill", "Interpolate"])
    def test_processors(self, name: str, table_task: Any, audited: Any) -> None:
        result = audited(table_task(infer=[{**config(name)}]), dates=60)
        follows = {"training-data-look-ahead"} if name == "Standardised" else set()
        assert kinds(result) == {"feature-looks-ahead"} | follows

    def test_bars_that_are_interpolated_are_declared_and_seen(self, task: Any, audited: Any) -> None:
        result = audited(task(features=BARS, fill="linear"), dates=60)
        assert kinds(result) == {"declared-look-ahead", "feature-looks-ahead"}
        assert "interpolated" in told(result, "declared-look-ahead")
        assert "OPEN" in told(result, "feature-looks-ahead")

    def test_levels_of_prices_that_later_splits_adjust(self, task: Any, audited: Any) -> None:
        result = audited(task(features=BARS, form="level"))
        assert kinds(result) == {"declared-look-ahead", "levels-hold-later-splits"}

    def test_features_of_which_nothing_can_be_said(
        self, table_task: Any, audited: Any, store: QlibStore
    ) -> None:
        """A table that was made elsewhere."""
        index = pd.MultiIndex.from_product(
            [store.calendar, store.instruments()], names=["datetime", "instrument"]
        )
        columns = pd.MultiIndex.from_tuples([("feature", "A"), ("label", "RETURN")])
        table = pd.DataFrame(np.random.default_rng(0).normal(size=(len(index), 2)), index, columns)
        made = table_task()
        handler = made["dataset"]["kwargs"]["handler"]["kwargs"]
        handler["data_loader"] |= {"class": "StaticDataLoader", "kwargs": {"config": table}}
        handler["instruments"] = None
        assert kinds(audited(made)) == {"store-not-read"}

    def test_a_leak_is_dated_and_sized(self, table_task: Any, audited: Any, store: QlibStore) -> None:
        result = audited(table_task({"LEAK": "Ref($close, -1)/$close-1"}))
        (finding,) = result.findings
        assert finding.first_date == f"{store.calendar[0]:%Y-%m-%d}"
        assert finding.dates == 16
        assert "of 1" in finding.size
        assert finding.way_out == KINDS["feature-looks-ahead"].way_out
        assert finding.way_out in finding.message


class TestRows:
    def test_todays_members_for_the_past(self, task: Any, audited: Any) -> None:
        result = audited(task(features="planted_leaks.TodaysMembers"))
        assert "membership-looks-ahead" in kinds(result)
        assert "who joins or leaves the universe later" in told(result, "membership-looks-ahead")

    def test_stocks_that_trade_tomorrow(self, task: Any, audited: Any) -> None:
        result = audited(task(features="planted_leaks.StillThereTomorrow"))
        assert kinds(result) == {"rows-look-ahead"}

    def test_rows_that_are_dropped_for_what_comes(self, table_task: Any, audited: Any) -> None:
        result = audited(table_task(infer=[config("DropsTheDoomed")]), dates=60)
        assert "rows-look-ahead" in kinds(result)

    def test_a_list_of_one_day_for_all_days(
        self, task: Any, audited: Any, store: QlibStore, use: Callable[[Path], None], tmp_path: Path
    ) -> None:
        root = _copy(store, tmp_path)
        codes = store.instruments()
        close = store.read(["close"], codes)[0]
        for code in codes[4:8]:  # listed late
            for file in (root / "features" / code.lower()).iterdir():
                content = np.fromfile(file, dtype="<f4")
                content[1:150] = np.nan
                content.tofile(file)
        assert close.shape[1] == len(codes)
        lines = [f"{code}\t{store.calendar[0]:%Y-%m-%d}\t{store.calendar[-1]:%Y-%m-%d}\n" for code in codes]
        (root / "instruments" / "few.txt").write_text("".join(lines))
        use(root)
        result = audited(task())
        assert kinds(result) == {"member-before-listing"}
        assert "4 of 16 stocks" in told(result, "member-before-listing")


class TestSideData:
    def test_macro_figures_by_reference_date(self, task: Any, audited: Any) -> None:
        macro = config("ByReferenceDate", series=["cpi"])
        result = audited(task(features=BARS, macro=macro), dates=60)
        assert kinds(result) == {"side-looks-ahead"}
        assert "CPI" in told(result, "side-looks-ahead")
        assert "rows of `macro` that were known later" in told(result, "side-looks-ahead")

    def test_macro_figures_on_a_line_are_declared_and_seen(self, task: Any, audited: Any) -> None:
        macro = {
            "class": "qlib_ext.features.side_data.macro.Macro",
            "kwargs": {"series": ["cpi"], "fill": "linear"},
        }
        result = audited(task(features=BARS, macro=macro), dates=60)
        assert {"declared-look-ahead", "side-looks-ahead"} <= kinds(result)

    def test_macro_figures_that_are_released_when_their_month_ends(
        self, task: Any, audited: Any, store: QlibStore, use: Callable[[Path], None], tmp_path: Path
    ) -> None:
        root = _copy(store, tmp_path)
        file = root / "side" / "macro.parquet"
        table = pd.read_parquet(file)
        table["release_date"] = pd.PeriodIndex(table["period"], freq="M").end_time.normalize()
        table.to_parquet(file, index=False)
        use(root)
        result = audited(task(features=BARS, macro=MACRO))
        assert kinds(result) == {"released-at-period-end"}

    def test_tomorrows_market_value(self, task: Any, audited: Any) -> None:
        result = audited(task(dataset={"market_value": config("TomorrowsValue")}))
        assert "market-value-looks-ahead" in kinds(result)
        assert "rows of `market_value`" in told(result, "market-value-looks-ahead")

    def test_market_values_that_are_dated_a_day_early(
        self, task: Any, audited: Any, store: QlibStore, use: Callable[[Path], None], tmp_path: Path
    ) -> None:
        root = _copy(store, tmp_path)
        file = root / "side" / "market_value.parquet"
        table = pd.read_parquet(file)
        table["datetime"] -= pd.offsets.BDay()
        table[table["datetime"] >= store.calendar[0]].to_parquet(file, index=False)
        use(root)
        side = {"market_value": {"class": "qlib_ext.features.side_data.market_value.SideMarketValue"}}
        assert kinds(audited(task(dataset=side))) == {"market-value-of-a-later-day"}

    def test_numbers_of_tomorrow(self, task: Any, audited: Any) -> None:
        features = ["$close / Ref($close, 1)", "Ref(side.report.roe, -1)"]
        result = audited(task(features=EXPRESSIONS, expressions=features))
        assert kinds(result) == {"declared-look-ahead", "side-looks-ahead"}
        assert "rows of `report` that were known later" in told(result, "side-looks-ahead")

    def test_numbers_that_count_before_they_are_known(self, task: Any, audited: Any) -> None:
        result = audited(task(features="planted_leaks.KnownEarly", expressions=SIDE_FEATURES))
        assert kinds(result) == {"side-looks-ahead"}

    def test_scores_that_are_dated_a_day_early(
        self, task: Any, audited: Any, store: QlibStore, use: Callable[[Path], None], tmp_path: Path
    ) -> None:
        """News of a day move with the return of that day; stamped a day before, they foresee it."""
        root = _copy(store, tmp_path)
        close = pd.DataFrame(
            store.read(["close"], store.instruments())[0], store.calendar, store.instruments()
        )
        news = close.pct_change().clip(-0.1, 0.1).stack().rename("score").reset_index()
        news.columns = ["datetime", "instrument", "score"]
        news["score"] += np.random.default_rng(0).normal(0, 0.01, len(news))
        made = task(features=EXPRESSIONS, expressions=["$close / $open", "side.news.score"])
        for days, expected in ((0, set()), (1, {"side-of-a-later-day"})):
            dated = news.assign(datetime=news["datetime"] - days * pd.offsets.BDay())
            dated[dated["datetime"] >= store.calendar[0]].to_parquet(root / "side" / "news.parquet")
            use(root)
            assert kinds(audited(made, dates=4, refits=1)) == expected

    def test_industries_of_the_last_day_for_the_past(self, task: Any, audited: Any) -> None:
        result = audited(task(dataset={"concepts": config("TodaysIndustry")}))
        assert kinds(result) == {"concepts-look-ahead"}
        assert "rows of `industry`" in told(result, "concepts-look-ahead")

    def test_tomorrows_state_of_the_market_and_what_is_fitted_to_it(self, task: Any, audited: Any) -> None:
        result = audited(task(dataset={"market_status": config("TomorrowsStatus", **STATUS)}))
        assert kinds(result) == {"market-status-looks-ahead", "statistics-look-ahead"}
        assert "bars of later days" in told(result, "market-status-looks-ahead")
        assert "market_status.median moves" in told(result, "statistics-look-ahead")


class TestSegments:
    def test_no_purge(self, task: Any, audited: Any) -> None:
        result = audited(task(dataset={"purge": False}))
        assert kinds(result) == {"not-purged"}
        assert "the last 2 days of segment `train` reach into `valid`" in told(result, "not-purged")

    def test_no_purge_under_qlibs_own_dataset(self, table_task: Any, segments: Any, audited: Any) -> None:
        assert kinds(audited(table_task(segments_are=segments))) == {"not-purged"}

    def test_nor_does_a_model_read_the_test_that_is_trained_on_such_days(
        self, table_task: Any, segments: Any, audited: Any
    ) -> None:
        made = table_task(segments_are=segments) | {"model": config("ScaledByTable")}
        assert kinds(audited(made)) == {"not-purged"}
        made = table_task() | {"model": config("ScaledByTable")}
        result = audited(made)
        assert result.findings == ()
        assert "training" in {check.name for check in result.checks}

    def test_the_test_before_the_training(self, table_task: Any, segments: Any, audited: Any) -> None:
        turned = {"train": segments["test"], "valid": segments["valid"], "test": segments["train"]}
        assert "segment-order" in kinds(audited(table_task(segments_are=turned)))

    def test_segments_with_days_in_common(self, table_task: Any, segments: Any, audited: Any) -> None:
        common = {**segments, "train": [segments["train"][0], segments["valid"][1]]}
        assert "segments-overlap" in kinds(audited(table_task(segments_are=common)))

    def test_days_to_fit_on_that_reach_into_the_test(self, task: Any, segments: Any, audited: Any) -> None:
        result = audited(task({"fit_end_time": segments["test"][1]}))
        assert kinds(result) == {"fit-range", "statistics-look-ahead"}

    def test_a_processor_that_is_fitted_on_all_days(
        self, table_task: Any, segments: Any, audited: Any
    ) -> None:
        norm = {
            "class": "ZScoreNorm",
            "kwargs": {
                "fields_group": "feature",
                "fit_start_time": segments["train"][0],
                "fit_end_time": segments["test"][1],
            },
        }
        result = audited(table_task(infer=[norm]))
        assert kinds(result) == {"fit-range", "statistics-look-ahead", "training-data-look-ahead"}
        assert "ZScoreNorm" in told(result, "fit-range")

    def test_labels_that_reach_further_than_they_say(self, task: Any, audited: Any) -> None:
        smoothed = [config("SmoothsLabels")]
        result = audited(task({"infer_processors": smoothed, "learn_processors": []}))
        assert kinds(result) == {"label-longer-than-declared", "not-purged"}
        said = told(result, "label-longer-than-declared")
        (reach,) = re.findall(r"labels reach (\d+) days ahead, and their expressions 2", said)
        assert int(reach) >= 6  # more where a stock has no row for some days

    def test_training_rows_of_the_next_segment(self, task: Any, audited: Any) -> None:
        result = audited(task(dataset={"class": "planted_leaks.TrainsOnTheNextSegment"}))
        assert "label-longer-than-declared" in kinds(result)
        assert "not-purged" in kinds(result)


MODELS = {
    "NormalisedOverDays": {"score-looks-ahead", "score-depends-on-other-days"},
    "ShiftedByADay": {"score-looks-ahead", "score-depends-on-other-days"},
    "SmoothedScores": {"score-looks-ahead", "score-depends-on-other-days"},
    "KeepsAState": {"score-depends-on-other-days"},
    "LooksUpTomorrow": {"score-looks-ahead"},
    "Dropout": {"score-not-repeatable"},
    "ReadsTheTest": {"fit-reads-test"},
}


class TestScores:
    @pytest.mark.parametrize("name", MODELS)
    def test_models(self, name: str, task: Any, audited: Any) -> None:
        assert kinds(audited(task(model=config(name)))) == MODELS[name]

    def test_days_that_are_mixed_in_a_batch(self, task: Any, audited: Any) -> None:
        result = audited(task(dataset={"class": "planted_leaks.ShuffledDataset"}))
        assert kinds(result) == {"batch-mixes-days", "feature-looks-ahead"}


def _copy(store: QlibStore, folder: Path) -> Path:
    root = folder / "store"
    shutil.copytree(store.root, root)
    return root
