import pytest
from skfolio import RiskMeasure
from skfolio.measures import ExtraRiskMeasure, RatioMeasure
from skfolio.moments import BaseCovariance, DenoiseCovariance, GerberCovariance, RegimeAdjustmentMethod
from skfolio.optimization import BaseOptimization, HierarchicalRiskParity, MeanRisk, ObjectiveFunction
from skfolio.prior import EmpiricalPrior

from qlib_ext.checks import UserError
from qlib_ext.portfolio.skfolio_objects import skfolio_object


def covariance(**kwargs):
    return skfolio_object(kwargs, BaseCovariance, name="estimator")


def optimiser(path, **kwargs):
    config = {"class": f"skfolio.optimization.{path}", "kwargs": kwargs}
    return skfolio_object(config, BaseOptimization, name="method")


def test_parts_are_objects_at_any_depth() -> None:
    found = optimiser(
        "MeanRisk",
        prior_estimator={
            "class": "skfolio.prior.EmpiricalPrior",
            "kwargs": {
                "covariance_estimator": {
                    "class": "skfolio.moments.DenoiseCovariance",
                    "kwargs": {
                        "covariance_estimator": {
                            "class": "skfolio.moments.GerberCovariance",
                            "kwargs": {"threshold": 0.4},
                        }
                    },
                }
            },
        },
    )
    assert isinstance(found.prior_estimator, EmpiricalPrior)
    denoise = found.prior_estimator.covariance_estimator
    assert isinstance(denoise, DenoiseCovariance)
    assert isinstance(denoise.covariance_estimator, GerberCovariance)
    assert denoise.covariance_estimator.threshold == 0.4


def test_a_word_is_a_member_where_the_argument_is_an_enumeration() -> None:
    found = optimiser("MeanRisk", risk_measure="CVAR", objective_function="maximize_ratio", solver="CLARABEL")
    assert found.risk_measure is RiskMeasure.CVAR
    assert found.objective_function is ObjectiveFunction.MAXIMIZE_RATIO
    assert found.solver == "CLARABEL"
    assert optimiser("HierarchicalRiskParity", risk_measure="VALUE_AT_RISK").risk_measure is (
        ExtraRiskMeasure.VALUE_AT_RISK
    )
    stacked = optimiser("StackingOptimization", estimators=[], quantile_measure="CVAR_RATIO")
    assert stacked.quantile_measure is RatioMeasure.CVAR_RATIO
    regime = {"class": "skfolio.moments.RegimeAdjustedEWCovariance", "kwargs": {"regime_method": "RMS"}}
    assert covariance(**regime).regime_method is RegimeAdjustmentMethod.RMS


def test_lists_hold_objects_and_pairs_are_tuples() -> None:
    found = optimiser(
        "StackingOptimization",
        estimators=[
            ["tree", {"class": "skfolio.optimization.HierarchicalRiskParity"}],
            ["mean", {"class": "skfolio.optimization.MeanRisk", "kwargs": {"risk_measure": "CDAR"}}],
        ],
    )
    (tree, first), (_, second) = found.estimators
    assert isinstance(found.estimators[0], tuple)
    assert tree == "tree"
    assert isinstance(first, HierarchicalRiskParity)
    assert second.risk_measure is RiskMeasure.CDAR


def test_data_stay_as_they_are() -> None:
    weights = {"SH600000": 0.1}
    found = optimiser("MeanRisk", max_weights=weights, groups=[["a", "b"]], linear_constraints=["a <= 0.3"])
    assert found.max_weights == weights
    assert found.groups == [["a", "b"]]
    assert found.linear_constraints == ["a <= 0.3"]


def test_an_object_is_returned_as_it_is() -> None:
    made = MeanRisk()
    assert skfolio_object(made, BaseOptimization, name="method") is made


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"class": "skfolio.moments.LedoitWolff"},
            "`estimator.class` names no class.*did you mean LedoitWolf",
        ),
        ({"class": "skfolio.prior.EmpiricalPrior"}, "`estimator.class` must be a BaseCovariance"),
        ({"class": "skfolio.moments.OAS", "kwargs": {"shrinkage": 1}}, "has no place for `shrinkage`"),
        (
            {
                "class": "skfolio.moments.DenoiseCovariance",
                "kwargs": {"covariance_estimator": {"class": "os.X"}},
            },
            r"`estimator.kwargs.covariance_estimator.class` must be of one of the packages",
        ),
        (
            {
                "class": "skfolio.moments.DenoiseCovariance",
                "kwargs": {"covariance_estimator": {"class": "skfolio.prior.EmpiricalPrior"}},
            },
            r"`estimator.kwargs.covariance_estimator.class` must be a BaseCovariance, found skfolio.prior.EmpiricalPrior",
        ),
        (
            {
                "class": "skfolio.moments.RegimeAdjustedEWCovariance",
                "kwargs": {"regime_method": "FIRST_MOMENTS"},
            },
            "`estimator.kwargs.regime_method` must be one of .*did you mean FIRST_MOMENT",
        ),
    ],
)
def test_faults_are_named(config, message) -> None:
    with pytest.raises(UserError, match=message):
        covariance(**config)
