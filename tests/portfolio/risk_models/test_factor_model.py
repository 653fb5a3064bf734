"""Factors from exposures, against skfolio's own model and by what was planted."""

from dataclasses import replace

import numpy as np
import pytest
from skfolio.containers import AssetPanel
from skfolio.descriptor import Passthrough
from skfolio.factor_exposure import FixedWeightedFactor, GlobalFactor, OneHotCategoricalFactors
from skfolio.moments import EWCovariance
from skfolio.moments.variance import EWVariance
from skfolio.prior import CharacteristicsFactorModel, EmpiricalPrior

from qlib_ext.checks import UserError
from qlib_ext.portfolio.risk_models.exposures import exposures, style_planes
from qlib_ext.portfolio.risk_models.factor_model import FactorModel, regressions
from qlib_ext.portfolio.risk_models.histories import traded_returns
from tests.portfolio.markets import INDUSTRIES, LATE, day_of, history_of

HISTORY = history_of()
STYLES = ["size", "beta", "volatility", "reversal"]
DAILY = {"class": "qlib_ext.portfolio.calendars.daily.Daily"}


def whole(**changes):
    """The market without gaps, where every stock is worth the same from day to day."""
    value = np.tile(np.exp(np.random.default_rng(3).normal(0, 1, 30)), (len(HISTORY.days), 1))
    return replace(HISTORY, returns=np.nan_to_num(HISTORY.returns), planes={"market_value": value}, **changes)


def test_it_is_skfolio_s_model_of_the_same_exposures() -> None:
    known = day_of(whole())
    model = FactorModel(styles=STYLES, window=150)
    risk, _ = model.estimate(known)
    planes, values = style_planes(known, traded_returns(known), 151)
    made = exposures(known, planes, values, STYLES, INDUSTRIES)
    panel = AssetPanel(
        {
            "returns": known.returns[-151:],
            "market_cap": values,
            **{f"own_{name}": made.styles[k] for k, name in enumerate(STYLES)},
        },
        np.arange(151),
        np.array(known.codes),
    )
    panel.add_categorical_field("industry", np.tile(known.industry, (151, 1)), levels=list(INDUSTRIES))
    as_it_is = {"outlier_transformer": "passthrough", "scoring_transformer": "passthrough"}
    oracle = CharacteristicsFactorModel(
        factors=[
            ("market", GlobalFactor()),
            *(
                (name, FixedWeightedFactor(descriptors=[("x", Passthrough(f"own_{name}"))], **as_it_is))
                for name in STYLES
            ),
            ("industry", OneHotCategoricalFactors("industry", family="industry")),
        ],
        constrained_families=[("industry", None)],
        factor_prior_estimator=EmpiricalPrior(
            covariance_estimator=EWCovariance(half_life=90, min_observations=40, nearest=False)
        ),
        idio_variance_estimator=EWVariance(half_life=60, min_observations=40),
        min_regression_assets=20,
    ).fit(characteristics=panel)
    expected = oracle.factor_model_
    assert expected.factor_names.tolist() == list(risk.factors)
    np.testing.assert_allclose(regressions(known.returns[-151:], made)[0], expected.factor_returns, atol=1e-6)
    np.testing.assert_allclose(risk.specific, expected.idio_covariance, rtol=1e-4)
    np.testing.assert_allclose(
        risk.covariance(), oracle.return_distribution_.covariance, rtol=1e-3, atol=1e-8
    )


def test_what_is_left_is_what_the_factors_do_not_explain() -> None:
    known = day_of(HISTORY)
    traded = traded_returns(known)
    made = exposures(known, *style_planes(known, traded, 100), STYLES, INDUSTRIES)
    factors, left = regressions(traded[-100:], made)
    before = replace(made, styles=made.styles[:, :-1])  # whose last day is the day before
    np.testing.assert_allclose(left[-1], traded[-1] - before.loadings() @ factors[-1], atol=1e-15)
    assert np.isnan(left[-90:-60, LATE]).all()


def test_a_planted_factor_is_found() -> None:
    """Half of the stocks, the large ones, move with a factor of their own."""
    rng = np.random.default_rng(0)
    large = np.where(np.arange(30) < 15, 1.0, -1.0)
    planted = rng.normal(0, 0.01, 420)
    returns = planted[:, None] * large + rng.normal(0, 0.003, (420, 30))
    value = np.tile(np.exp(large), (420, 1))
    history = replace(HISTORY, returns=returns, market=returns.mean(axis=1), planes={"market_value": value})
    risk, _ = FactorModel(styles=["size"], industries=False, window=250).estimate(day_of(history))
    assert risk.factors == ("market", "size")
    size = risk.loadings[:, 1]
    volatility = np.sqrt(risk.factor_covariance[1, 1]) * (size[0] - size[-1]) / 2
    assert volatility == pytest.approx(0.01, rel=0.15)
    assert np.sqrt(risk.specific) == pytest.approx(np.full(30, 0.003), rel=0.3)


def test_it_is_fitted_again_when_the_calendar_says_so() -> None:
    model, every_day = FactorModel(window=100), FactorModel(window=100, refit=DAILY)
    for back in (20, 19, 10):
        model.estimate(day_of(HISTORY, back=back))
    first = HISTORY.days[-21]
    assert [day.month for day in HISTORY.days[[-21, -11, -1]]] == [7, 7, 8]
    assert model.last_fit.day == first
    risk, _ = model.estimate(day_of(HISTORY, back=10))
    np.testing.assert_array_equal(risk.factor_covariance, model.last_fit.covariance)
    today = every_day.estimate(day_of(HISTORY, back=10))[0]
    np.testing.assert_array_equal(risk.loadings, today.loadings)  # of today, whenever F was made
    assert not np.allclose(risk.factor_covariance, today.factor_covariance, rtol=1e-6)
    model.estimate(day_of(HISTORY))
    assert model.last_fit.day == HISTORY.days[-1]
    model.estimate(day_of(HISTORY, back=20))
    assert model.last_fit.day == first  # another backtest, of earlier days
    other = replace(HISTORY, codes=tuple(f"SZ{stock:06}" for stock in range(30)))
    model.estimate(day_of(other, back=19))
    assert set(model.last_fit.specific) <= set(other.codes)


def test_a_stock_that_came_after_the_fit_has_what_its_styles_suggest() -> None:
    history = whole()
    scores = history.scores.copy()
    scores[:-15, 4] = np.nan  # no member before
    history = replace(history, scores=scores)
    model = FactorModel(window=150)
    model.estimate(day_of(history, back=18))
    assert HISTORY.days[-19].month == HISTORY.days[-13].month
    risk, notes = model.estimate(day_of(history, back=12))
    assert "SH600004" not in model.last_fit.specific
    expected = FactorModel(window=150).estimate(day_of(history, back=12))[0]
    assert risk.known.all()
    assert 0.5 < np.sqrt(risk.specific[4] / expected.specific[4]) < 2
    assert any("unknown when the factor model was fitted on" in note and "SH600004" in note for note in notes)


def test_a_stock_that_is_an_industry_by_itself_says_nothing_of_others() -> None:
    industry = HISTORY.industry.copy()
    industry[:, 9] = 3
    alone = whole(industry=industry, industry_names=(*INDUSTRIES, "water"))
    scores = alone.scores.copy()
    scores[:-15, 4] = np.nan
    model = FactorModel(window=150)
    model.estimate(day_of(replace(alone, scores=scores), back=18))
    risk, _ = model.estimate(day_of(replace(alone, scores=scores), back=12))
    assert risk.specific[9] == pytest.approx(0, abs=1e-12)
    everywhere = FactorModel(window=150).estimate(day_of(whole(), back=12))[0]
    assert risk.variances()[9] == pytest.approx(everywhere.variances()[9], rel=0.5)
    assert 0.5 < np.sqrt(risk.specific[4] / everywhere.specific[4]) < 2


def test_a_factor_that_tells_no_stocks_apart_has_no_risk() -> None:
    """One industry has nothing beyond the market; one stock has no style either."""
    risk, _ = FactorModel(window=120).estimate(day_of(replace(HISTORY, industry=0 * HISTORY.industry)))
    assert risk.factors[-1] == INDUSTRIES[0]
    assert not risk.factor_covariance[-1].any()
    assert risk.known.sum() == 29  # all but the one that was listed late
    alone = replace(
        HISTORY,
        codes=HISTORY.codes[:1],
        scores=HISTORY.scores[:, :1],
        returns=HISTORY.returns[:, :1],
        planes={name: plane[:, :1] for name, plane in HISTORY.planes.items()},
        industry=HISTORY.industry[:, :1],
    )
    risk, _ = FactorModel(window=120).estimate(day_of(alone))
    assert risk.variances()[0] == pytest.approx(risk.factor_covariance[0, 0])


def test_what_the_store_lacks_is_told() -> None:
    bare = replace(HISTORY, planes={}, industry=None, industry_names=())
    risk, notes = FactorModel(window=150).estimate(day_of(bare))
    assert risk.factors == ("market", "beta", "momentum", "volatility", "reversal")
    assert any("does without size, liquidity" in note for note in notes)
    assert any("does without industries" in note for note in notes)
    short, notes = FactorModel(window=150).estimate(day_of(HISTORY, length=200))
    assert "momentum" not in short.factors
    assert any("does without momentum" in note for note in notes)


def test_fewer_days_than_asked_for_are_told() -> None:
    _, notes = FactorModel(window=400).estimate(day_of(HISTORY))
    assert any("fitted on 167 days of 400" in note for note in notes)


def test_traded_values_stand_for_market_values() -> None:
    planes = {name: plane for name, plane in HISTORY.planes.items() if name != "market_value"}
    risk, notes = FactorModel(window=100).estimate(day_of(replace(HISTORY, planes=planes)))
    assert {"size", "liquidity"} <= set(risk.factors)
    assert not any("does without" in note for note in notes)


def test_stocks_without_an_industry_are_one_of_their_own() -> None:
    industry = HISTORY.industry.copy()
    industry[:, [0, 3, 6]] = -1
    risk, _ = FactorModel(styles=["beta"], window=100).estimate(day_of(replace(HISTORY, industry=industry)))
    assert risk.factors == ("market", "beta", *INDUSTRIES[:2], "no industry", "steel")
    assert risk.loadings[0, [0, 2, 3, 4, 5]].tolist() == [1, 0, 0, 1, 0]
    assert risk.loadings[1, [0, 2, 3, 4, 5]].tolist() == [1, 0, 1, 0, 0]
    assert risk.known.sum() == 29
    assert not risk.known[LATE]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"styles": ["size", "value"]}, "`styles` must be one of .*, found 'value'"),
        ({"styles": ["size", "size"]}, "`styles` must name each once"),
        ({"industries": "cn"}, "`industries` must be true or false"),
        ({"window": 30}, "`window` must be at least 60, found 30"),
        ({"factor_covariance": {"class": "skfolio.moments.EWMu"}}, "must be a BaseCovariance"),
        ({"specific_variance": {"class": "skfolio.moments.OAS"}}, "must be a BaseVariance"),
        ({"refit": {"class": "qlib_ext.portfolio.calendars.drift_band.DriftBand"}}, "must be a Periodic"),
    ],
)
def test_faults_are_named(kwargs, message) -> None:
    with pytest.raises(UserError, match=message):
        FactorModel(**kwargs)


def test_an_estimator_that_fails_is_named() -> None:
    slow = {"class": "skfolio.moments.EWCovariance", "kwargs": {"half_life": 300}}
    with pytest.raises(
        UserError, match=r"the factor model cannot be fitted on .*, on 100 days: .*not finite"
    ):
        FactorModel(window=100, factor_covariance=slow).estimate(day_of(HISTORY))
