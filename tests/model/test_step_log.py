from __future__ import annotations

import math

import pandas as pd
import pytest
import torch

from qlib_ext.model.gradients import norms_and_cosine
from qlib_ext.model.step_log import NonFiniteError, StepLog, check_measured

DATES = pd.bdate_range("2020-01-01", periods=5)


def log(*tasks):
    return StepLog(tasks or ("score", "momentum"), "CQB", 3, DATES)


def step(*losses):
    return torch.tensor(losses), torch.tensor(losses).log(), None


def test_means_of_what_was_read():
    found = log()
    found.add(2, *step(1.0, 2.0))
    found.add(0, *step(2.0, 4.0))
    assert found.read() == "score 1.5000 momentum 3.0000"
    assert found.read() == "score 1.5000 momentum 3.0000"
    found.add(1, *step(6.0, 0.0 + 6.0))
    assert found.read() == "score 3.0000 momentum 4.0000"


def test_the_first_day_without_a_finite_loss_is_named():
    found = log()
    found.add(1, *step(1.0, 2.0))
    found.add(4, *step(0.5, math.inf))
    found.add(3, *step(math.nan, math.nan))
    with pytest.raises(
        NonFiniteError,
        match=r"a loss is not finite on 2020-01-07 in epoch 3 \(score 0.5, momentum inf\): lower `learning_rate`",
    ):
        found.read()


def test_a_balancer_that_makes_one_of_it_is_named():
    found = log()
    found.add(0, *step(-1.0, 2.0))
    with pytest.raises(NonFiniteError, match="CQB makes a loss not finite on 2020-01-01 in epoch 3"):
        found.read()


def test_gradients_are_means_over_the_steps_that_have_some():
    found = log()
    jacobians = torch.randn(2, 2, 7, generator=torch.Generator().manual_seed(0))
    for jacobian in (jacobians[0], None, jacobians[1]):
        found.add(0, *step(1.0, 1.0)[:2], jacobian)
    norms, cosines = zip(*map(norms_and_cosine, jacobians), strict=True)
    assert found.gradients() == pytest.approx(
        {
            "gradient/norm/score": (norms[0][0] + norms[1][0]).item() / 2,
            "gradient/norm/momentum": (norms[0][1] + norms[1][1]).item() / 2,
            "gradient/cosine": (cosines[0] + cosines[1]).item() / 2,
        }
    )


def test_without_gradients_and_of_one_task():
    assert log().gradients() == {}
    found = log("score")
    found.add(0, *step(1.0)[:2], torch.ones(1, 4))
    assert found.gradients() == {"gradient/norm/score": 2.0}


def test_measured_losses():
    check_measured("valid", {"score": 1.0}, 2)
    with pytest.raises(
        NonFiniteError, match=r"loss of task score on `valid` is not finite after epoch 2 \(nan\)"
    ):
        check_measured("valid", {"score": math.nan}, 2)
