from __future__ import annotations

import pytest

from qlib_ext.checks import UserError
from qlib_ext.workflow.soup import of_runs

NETWORK = {"backbone": {"class": "a.B"}, "tasks": {"score": {"label": "RETURN"}}, "device": "cpu"}


def test_the_data_and_the_records_stay_and_what_trains_goes():
    trainer = {"n_epochs": 9, "precision": "bfloat16"}
    model = {
        "class": "qlib_ext.model.multi_task.MultiTaskModel",
        "kwargs": {**NETWORK, "seed": 3, "resume": 1, "balancer": {"class": "a.C"}, "trainer": trainer},
    }
    task = {"model": model, "dataset": {"class": "a.D"}, "record": [{"class": "a.R"}]}
    found = of_runs(task, ["x", "y"], "uniform")
    assert found == {
        "model": {
            "class": "qlib_ext.model.soup.Soup",
            "kwargs": {
                "runs": ["x", "y"],
                "kind": "uniform",
                **NETWORK,
                "trainer": {"precision": "bfloat16"},
            },
        },
        "dataset": {"class": "a.D"},
        "record": [{"class": "a.R"}],
    }


def test_a_model_without_a_network_is_refused():
    with pytest.raises(UserError, match=r"must be a MultiTaskModel.*found qlib.contrib.model.gbdt.LGBModel"):
        of_runs({"model": {"class": "qlib.contrib.model.gbdt.LGBModel"}}, ["x", "y"], "greedy")
