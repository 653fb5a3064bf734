from __future__ import annotations

import pytest

from qlib_ext.checks import UserError
from qlib_ext.report.comparison.settings import canonical, find_key, label, seed_of, settings, shown

PARAMS = {
    "model.class": "a.b.Model",
    "model.kwargs.seed": "3",
    "model.kwargs.balancer.kwargs.seed": "9",
    "model.kwargs.device": "cuda",
    "model.kwargs.checkpoint_dir": "/somewhere",
    "dataset.kwargs.cache": "/somewhere",
    "cmd-sys.argv": "qrun",
    "_QLIB_X": "1",
    "model.kwargs.trainer.n_epochs": "20",
    "model.kwargs.tasks.momentum.label": "MOMENTUM",
    "model.kwargs.tasks.score.label": "RETURN",
    "dataset.kwargs.segments.test": "[datetime.date(2017, 1, 1), datetime.date(2020, 12, 31)]",
    "dataset.kwargs.columns": "['RETURN', 'x']",
}


class TestSettings:
    def test_what_moves_no_figure_is_left_out(self) -> None:
        assert {*settings(PARAMS)} == {
            "model.class",
            "model.kwargs.trainer.n_epochs",
            "model.kwargs.tasks.momentum.label",
            "model.kwargs.tasks.score.label",
            "dataset.kwargs.segments.test",
            "dataset.kwargs.columns",
            "tasks",
        }

    def test_old_and_new_spelling_of_dates_and_lists_are_one(self) -> None:
        found = settings(PARAMS)
        assert found["dataset.kwargs.segments.test"] == "[2017-01-01, 2020-12-31]"
        assert found["dataset.kwargs.columns"] == "[RETURN, x]"
        assert settings(found | {"tasks": "x"})["dataset.kwargs.columns"] == "[RETURN, x]"

    def test_classes_of_earlier_versions_go_by_their_names_of_today(self) -> None:
        old = {
            "record.BacktestRecord.class": "qlib_ext.record.backtest.BacktestRecord",
            "record.BacktestRecord.kwargs.strategy.kwargs.topk": "50",
            "model.class": "qlib_ext.data.windows.X",
        }
        new = old | {
            "record.BacktestRecord.class": "qlib_ext.records.backtest.BacktestRecord",
            "model.class": "qlib_ext.features.base.X",
        }
        assert settings(old) == settings(new)
        assert "record.BacktestRecord.strategy.kwargs.topk" in settings(old)

    def test_tasks_are_named_with_the_score_first(self) -> None:
        assert settings(PARAMS)["tasks"] == "score + momentum"
        assert "tasks" not in settings({"model.class": "a.LGBModel"})

    def test_records_count_by_their_class_wherever_they_stand(self) -> None:
        def params(number: int) -> dict[str, str]:
            return {
                f"record.{number}.class": "qlib_ext.records.backtest.BacktestRecord",
                f"record.{number}.kwargs.strategy.kwargs.topk": "50",
                "record.7.class": "qlib_ext.records.report.ReportRecord",
                "record.7.kwargs.out_dir": "x",
                "record.8.class": "mine.Record",
                "record.8.kwargs.strategy": "y",
            }

        assert (
            settings(params(1)) == settings(params(4)) == {"record.BacktestRecord.strategy.kwargs.topk": "50"}
        )

    def test_items_of_lists_by_place_or_by_class_are_one(self) -> None:
        old = {
            "a.processors.0.class": "q.Norm",
            "a.processors.0.kwargs.x": "1",
            "a.processors.1.class": "q.Norm",
            "a.processors.1.kwargs.x": "2",
            "a.processors.2.class": "q.Line",
            "record.3.class": "qlib_ext.records.backtest.BacktestRecord",
            "record.3.kwargs.strategy.class": "s.Top",
            "a.layers.0.size": "8",
        }
        new = {
            "a.processors.Norm.class": "q.Norm",
            "a.processors.Norm.kwargs.x": "1",
            "a.processors.Norm-2.class": "q.Norm",
            "a.processors.Norm-2.kwargs.x": "2",
            "a.processors.Line.class": "q.Line",
            "record.BacktestRecord.class": "qlib_ext.records.backtest.BacktestRecord",
            "record.BacktestRecord.kwargs.strategy.class": "s.Top",
            "a.layers.0.size": "8",
        }
        assert settings(old) == settings(new)
        assert settings(new)["record.BacktestRecord.strategy.class"] == "s.Top"

    def test_a_single_record_and_its_module(self) -> None:
        params = {
            "record.class": "RankingRecord",
            "record.module_path": "qlib_ext.records.ranking",
            "record.kwargs.labels": "['RETURN']",
            "record.kwargs.precision_at": "[10]",
        }
        assert settings(params) == {"record.RankingRecord.labels": "[RETURN]"}

    def test_records_in_one_long_text_do_not_count(self) -> None:
        assert settings({"record": "[{'class': 'A'}, {'cla"}) == {}


class TestSeed:
    def test_the_models_own(self) -> None:
        assert seed_of(PARAMS, {"seed": "7"}) == "3"
        assert seed_of({}, {"seed": "7"}) == "7"
        assert seed_of({"dataset.kwargs.seed": "1"}, {}) == "–"
        assert seed_of({"model.kwargs.kwargs.random_state": "4"}, {}) == "4"


class TestWords:
    def test_numbers_have_one_form(self) -> None:
        assert canonical("1e-3") == canonical("0.001")
        assert canonical("100000000") == canonical("1e8")
        assert canonical("csi300") == "csi300"

    def test_a_class_is_shown_without_its_modules(self) -> None:
        assert shown("model.kwargs.balancer.class", "qlib_ext.model.balancers.cqb.CQB") == "CQB"
        assert shown("model.kwargs.seed", "0.001") == "0.001"
        assert shown("x.class", "two words.") == "two words."

    def test_a_label_is_as_short_as_it_can_be(self) -> None:
        keys = [
            "model.kwargs.tasks.score.loss.class",
            "model.kwargs.tasks.momentum.loss.class",
            "model.kwargs.n",
        ]
        assert [label(key, keys) for key in keys] == ["score loss", "momentum loss", "n"]


class TestFindKey:
    KEYS = (
        "model.kwargs.balancer.class",
        "model.kwargs.trainer.n_epochs",
        "a.kwargs.x",
        "b.kwargs.x",
        "universe",
    )

    @pytest.mark.parametrize(
        ("wanted", "found"),
        [
            ("model.kwargs.balancer.class", "model.kwargs.balancer.class"),
            ("balancer", "model.kwargs.balancer.class"),
            ("balancer.class", "model.kwargs.balancer.class"),
            ("trainer.n_epochs", "model.kwargs.trainer.n_epochs"),
            ("b.x", "b.kwargs.x"),
            ("universe", "universe"),
        ],
    )
    def test_by_its_end(self, wanted: str, found: str) -> None:
        assert find_key(wanted, self.KEYS) == found

    def test_several(self) -> None:
        with pytest.raises(UserError, match=r"found 2 for `x`: a\.kwargs\.x, b\.kwargs\.x"):
            find_key("x", self.KEYS)

    def test_none(self) -> None:
        with pytest.raises(UserError, match=r"found `balancr` \(did you mean balancer"):
            find_key("balancr", self.KEYS)
