from __future__ import annotations

import math

import pytest

from qlib_ext.model.selection import validation_score


def record(rank_ic, accuracy=0.0):
    return {"valid/rank_ic": rank_ic, "valid/accuracy/momentum": accuracy, "valid/loss/score": 3.0}


def authors(now, past):
    return validation_score("authors", now, past, {}, ["momentum"])


def test_rank_ic_and_loss():
    assert validation_score("rank_ic", record(0.3), [record(0.1)], {}, []) == 0.3
    assert validation_score("loss", record(0.3), [], {"score": 0.25}, []) == -0.75


def test_the_authors_score_by_hand():
    past = [record(-0.02, 0.4)]
    assert authors(record(0.01, 0.5), past) == pytest.approx(1.5 + 0.25)
    assert authors(record(-0.04, 0.3), past) == pytest.approx(-1.0 - 0.25)
    assert math.isnan(authors(record(math.nan, 0.5), past))
    past = [record(math.nan, 0.2), record(0.02, 0.0)]  # no score of all equal; no hit
    assert authors(record(0.03, 0.1), past) == pytest.approx(0.5 + 0.1)
    assert authors(record(0.03, 0.1), []) == 0.0
