from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import pytest
import qlib
import yaml

from qlib_ext.checks import UserError
from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.market.store import QlibStore
from qlib_ext.model.multi_task import MultiTaskModel
from qlib_ext.recommend.trained import TrainedRun, check_summary
from qlib_ext.tracking.artifacts import RunArtifacts
from tests.recommend.conftest import ROOT, SEGMENTS, TRAINED_UNTIL, Cut

SUMMARY: dict[str, Any] = {
    "segments": {"test": {"start": "2017-01-03", "end": "2017-06-30"}},
    "fields": ["close"],
    "missing_fields": [],
    "labels": {"RETURN": "$close"},
    "universe": "csi300",
    "store_end": "2017-06-30",
    "fingerprint": "0123456789abcdef",
    "lookback_days": 60,
    "of a later version": None,
}


def test_a_summary_as_a_run_writes_it_passes() -> None:
    check_summary(SUMMARY, "the run `x`")


@pytest.mark.parametrize(
    ("summary", "said"),
    [
        ([], "list indices must be integers"),
        (3, "'int' object is not subscriptable"),
        (SUMMARY | {"segments": 3}, "its segments is 3"),
        (SUMMARY | {"segments": {"test": "2017"}}, "string indices must be"),
        (SUMMARY | {"store_end": "some day"}, "some day"),
        ({name: SUMMARY[name] for name in SUMMARY if name != "universe"}, "it has no 'universe'"),
    ],
)
def test_one_of_another_shape_is_one_sentence(summary: Any, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        check_summary(summary, "the run `x`")
    assert str(caught.value).startswith(
        "the run `x` must keep in data/summary.json what its dataset was, found"
    )
    assert "\n" not in str(caught.value)


DAY = pd.Timestamp("2017-06-30")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"dataset": 3}, "`dataset` must be a mapping with `class`"),
        ({"dataset": {"class": "a.B", "kwargs": 3}}, "`dataset.kwargs` must be a mapping, found 3"),
        ({"dataset": {"class": "a.B"}}, "`dataset.handler` must be a mapping with `class`"),
        ({"model": "a.B"}, "`model` must be a mapping with `class`"),
        ({"model": {"class": "B", "module_path": 3}}, "`model.module_path` must be a dotted name, found 3"),
    ],
)
def test_a_configuration_of_another_shape_is_one_sentence(config: Any, said: str) -> None:
    run = TrainedRun("0" * 32, "x", config, SUMMARY, RunArtifacts(Path(), {}))
    with pytest.raises(UserError, match=re.escape(said)):
        run.model(None) if "model" in config else run.dataset({"test": (DAY, DAY)})  # type: ignore[arg-type]


class Folder:
    """A recorder that keeps artifacts in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def log_artifact(self, path: str, folder: str) -> None:
        (self.root / folder).mkdir(exist_ok=True)
        shutil.copy(path, self.root / folder)


def test_the_state_of_the_market_is_normalised_as_in_the_training(
    trained: QlibStore, cut: Cut, tmp_path: Path
) -> None:
    """On a store that has lost most of the days of the training: what is fitted there would be something else."""
    text = (ROOT / "workflows" / "master_csi300.yaml").read_text(encoding="utf-8")
    given = {"HIDDEN_SIZE": 8, "PANEL_CACHE": "off", "DEVICE": "cpu"}
    task = yaml.safe_load(jinja2.Template(text).render(given))["task"]
    kwargs = task["dataset"]["kwargs"]
    begin, end = SEGMENTS["train"]
    kwargs["handler"]["kwargs"] |= {"fit_start_time": begin, "fit_end_time": end}
    config = copy.deepcopy(task)
    qlib.init(provider_uri=str(trained.root), region="cn", kernels=1)
    dataset = DailyPanelDataset(**{**kwargs, "segments": SEGMENTS})
    model = MultiTaskModel(**task["model"]["kwargs"])
    model.initialise(dataset)
    model.history = [{"epoch": 0.0, "best": 1.0}]
    model._save(Folder(tmp_path), dataset)
    expected = model.predict(dataset)

    shorter = cut(start="2016-08-15", end=TRAINED_UNTIL)
    qlib.init(provider_uri=str(shorter.root), region="cn", kernels=1)
    paths = ("training/weights.safetensors", "training/network.json")
    artifacts = RunArtifacts(tmp_path, {})
    assert all(artifacts.has(path) for path in paths)
    run = TrainedRun("0" * 32, "x", config, dataset.describe(), artifacts)
    day = TRAINED_UNTIL
    again = run.dataset({"test": (day, day)})
    for name, values in dataset.statistics().items():
        np.testing.assert_array_equal(again.statistics()[name], values)
    found = run.model(again).predict(again)
    pd.testing.assert_frame_equal(found, expected.loc[[day]], atol=1e-5)
