"""What Qlib's own models learned comes back from files without a pickle, to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from qlib.contrib.model.gbdt import LGBModel
from qlib.contrib.model.linear import LinearModel

from qlib_ext.model.plain_weights import BOOSTER, LINEAR, give_weights, weights_of


@pytest.mark.parametrize("intercept", [False, True])
def test_a_linear_model_comes_back(tmp_path: Path, intercept: bool) -> None:
    draw = np.random.default_rng(0)
    features, label = draw.normal(size=(50, 3)).astype("float32"), draw.normal(size=50).astype("float32")
    model = LinearModel(estimator="ols", fit_intercept=intercept)
    assert weights_of(model) == {}, "it learned nothing yet"
    model._fit(features.copy(), label, None)
    ((path, content),) = weights_of(model).items()
    assert path == LINEAR
    (tmp_path / path).parent.mkdir()
    (tmp_path / path).write_bytes(content)
    again = LinearModel(estimator="ols", fit_intercept=intercept)
    assert give_weights(again, tmp_path)
    assert np.array_equal(
        features @ again.coef_ + again.intercept_, features @ model.coef_ + model.intercept_
    )
    assert again.coef_.dtype == model.coef_.dtype


def test_a_folder_without_weights_gives_none(tmp_path: Path) -> None:
    assert not give_weights(LinearModel(), tmp_path)
    (tmp_path / BOOSTER).parent.mkdir()
    (tmp_path / BOOSTER).write_text("trees")
    assert not give_weights(LinearModel(), tmp_path), "the trees of another"
    assert weights_of(LGBModel()) == {}
