"""Scores that are no numbers: a network that its last weights have spoilt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import qlib
import torch
from qlib.utils import init_instance_by_config

from qlib_ext.model.step_log import NonFiniteError


def test_scores_that_are_no_numbers_are_not_ranked(configured: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    config = configured(PANEL_CACHE="off", N_EPOCHS=1)
    qlib.init(provider_uri=config["qlib_init"]["provider_uri"], region="cn", kernels=1)
    dataset = init_instance_by_config(config["task"]["dataset"])
    model = init_instance_by_config(config["task"]["model"])
    model.fit(dataset)
    assert len(model.predict(dataset))
    with torch.no_grad():
        for weights in model._network.heads["score"].parameters():
            weights.fill_(torch.nan)
    with pytest.raises(
        NonFiniteError, match=r"the task score has predictions that are no numbers .* on 2016-05-30"
    ):
        model.predict(dataset)
