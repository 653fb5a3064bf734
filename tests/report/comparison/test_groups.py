from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qlib_ext.report.comparison.groups import differing, grouped, names
from qlib_ext.report.comparison.settings import settings

BALANCER, BACKBONE = "model.kwargs.balancer.class", "model.kwargs.backbone.class"
RECORD = "qlib_ext.records.backtest.BacktestRecord"
BETA, TOPK = "model.kwargs.balancer.kwargs.beta", "record.BacktestRecord.strategy.kwargs.topk"
CQB, EW = {BALANCER: "b.cqb.CQB", BETA: "0.5"}, {BALANCER: "b.equal.EqualWeighting"}
LSTM, GATS = {BACKBONE: "b.lstm.LSTM"}, {BACKBONE: "b.gats.GATs"}

SETTINGS = st.lists(
    st.dictionaries(
        st.sampled_from([BALANCER, BACKBONE, BETA, TOPK, "tasks", "model.class", "x.loss.class"]),
        st.sampled_from(["a.A", "b.A", "a.B", "1", "2", "a + b"]),
    ),
    min_size=1,
    max_size=6,
)


def named(*settings: dict[str, str]) -> list[str]:
    return names(settings, differing(settings))


class TestNames:
    def test_balancer_and_backbone(self) -> None:
        assert named(CQB | LSTM, EW | LSTM, CQB | GATS) == ["CQB, LSTM", "EqualWeighting, LSTM", "CQB, GATs"]

    def test_what_is_the_same_everywhere_is_not_named(self) -> None:
        assert named(CQB | LSTM, EW | LSTM) == ["CQB", "EqualWeighting"]

    def test_what_belongs_to_one_balancer_is_not_named_with_it(self) -> None:
        assert "beta" not in " ".join(named(CQB, EW))

    def test_a_swept_number_is_named_in_every_group(self) -> None:
        assert named(CQB | {TOPK: "10"}, CQB | {TOPK: "20"}, CQB | {TOPK: "50"}) == [
            "topk 10",
            "topk 20",
            "topk 50",
        ]

    def test_another_loss_is_named_where_it_is_unusual(self) -> None:
        usual, other = {"m.loss.class": "l.NDCG"}, {"m.loss.class": "l.CrossEntropy"}
        assert named(CQB | usual, EW | usual, CQB | other) == ["CQB", "EqualWeighting", "CQB, CrossEntropy"]

    def test_fewer_tasks(self) -> None:
        both, one = {"tasks": "score + momentum"}, {"tasks": "score"}
        assert named(CQB | both, EW | both, EW | one) == [
            "CQB",
            "EqualWeighting",
            "EqualWeighting, score only",
        ]

    def test_a_model_without_a_balancer_goes_by_its_class(self) -> None:
        multi, trees = {"model.class": "q.MultiTaskModel"}, {"model.class": "qlib.LGBModel"}
        assert named(CQB | multi, EW | multi, trees) == ["CQB", "EqualWeighting", "LGBModel"]

    def test_classes_of_one_name_are_told_apart_by_their_modules(self) -> None:
        found = named({BALANCER: "a.CQB"}, {BALANCER: "b.CQB"})
        assert found == ["balancer a.CQB", "balancer b.CQB"]

    def test_a_portfolio_goes_by_what_finds_its_weights(self) -> None:
        strategy = "record.0.kwargs.strategy"
        optimiser = f"{strategy}.kwargs.portfolio.optimiser"
        weights = {"record.0.class": RECORD, f"{strategy}.class": "s.target_weights.TargetWeights"}
        best = {"record.0.class": RECORD, f"{strategy}.class": "s.topk_dropout.TopkDropout"}
        eigen = weights | {f"{optimiser}.class": "o.eigen.EigenPortfolio"}
        least = weights | {
            f"{optimiser}.class": "o.skfolio.Skfolio",
            f"{optimiser}.kwargs.method.class": "skfolio.optimization.MeanRisk",
        }
        assert named(*map(settings, (best, eigen, least))) == ["TopkDropout", "EigenPortfolio", "MeanRisk"]

    def test_one_group(self) -> None:
        assert named(CQB) == ["all runs"]

    @given(SETTINGS)
    def test_no_two_groups_share_a_name(self, settings: list[dict[str, str]]) -> None:
        keys = differing(settings)
        parts = grouped(settings, keys)
        found = names([settings[part[0]] for part in parts], keys)
        assert len({*found}) == len(found) == len(parts)
        assert all(found)


class TestGrouped:
    @given(SETTINGS)
    def test_every_run_is_in_the_group_of_its_like(self, settings: list[dict[str, str]]) -> None:
        parts = grouped(settings, differing(settings))
        assert sorted(k for part in parts for k in part) == [*range(len(settings))]
        assert len({frozenset(each.items()) for each in settings}) == len(parts)

    def test_spellings_of_a_number_do_not_differ(self) -> None:
        assert differing([{TOPK: "1e1"}, {TOPK: "10"}]) == []

    def test_a_missing_key_differs(self) -> None:
        assert differing([CQB, {BALANCER: "b.cqb.CQB"}]) == [BETA]


def test_scores_that_were_given_are_named_by_what_gave_them() -> None:
    params = [
        {"model.class": "qlib.contrib.model.gbdt.LGBModel", "model.kwargs.loss": "mse"},
        {"model.class": "qlib_ext.model.given_scores.GivenScores", "model.kwargs.path": "/data/mine.csv"},
        {"model.class": "qlib_ext.model.given_scores.GivenScores", "model.kwargs.run": "60a3a47a"},
    ]
    features = "dataset.kwargs.handler.kwargs.features"
    of_model = {f"{features}.class": "qlib_ext.features.alpha360.Alpha360"}
    of_none = {
        f"{features}.class": "qlib_ext.features.no_features.NoFeatures",
        f"{features}.kwargs.fields": "[close]",
    }
    found = [settings(each | more) for each, more in zip(params, (of_model, of_none, of_none), strict=True)]
    assert names(found, differing(found)) == ["LGBModel", "scores of mine.csv", "scores of 60a3a47a"]
