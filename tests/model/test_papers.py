"""The parts of the two papers work together: the backbone of one under the tasks of the other, and so the balancer."""

from __future__ import annotations

from pathlib import Path

import jinja2
import numpy as np
import pytest
import qlib
import yaml

from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.market.synthetic.sample import SampleMarket
from qlib_ext.model.multi_task import MultiTaskModel

WORKFLOWS = Path(__file__).parents[2] / "workflows"
TINY = {
    "hidden_size": 8,
    "width": 8,
    "cardinality": 4,
    "stem_channels": 8,
}


def model_of(workflow):
    """The arguments of a workflow's model, as the workflow has them but for where it runs."""
    text = (WORKFLOWS / f"{workflow}.yaml").read_text(encoding="utf-8")
    config = yaml.safe_load(jinja2.Template(text).render())
    return {**config["task"]["model"]["kwargs"], "device": "cpu", "checkpoint_dir": None, "resume": 0}


def tiny(kwargs, epochs=1):
    """A few epochs of small networks."""
    backbone = {**kwargs["backbone"], "kwargs": {**kwargs["backbone"]["kwargs"], **TINY}}
    trainer = {**kwargs["trainer"], "n_epochs": epochs, "learning_rate": 1e-2}
    return MultiTaskModel(**{**kwargs, "backbone": backbone, "trainer": trainer})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("market") / "sample"
    SampleMarket(seed=3, stocks=20, start="2015-01-01", end="2015-12-31").write(root)
    qlib.init(provider_uri=str(root), region="cn", kernels=1)
    handler = {
        "class": "qlib_ext.data.handlers.panel.PanelHandler",
        "kwargs": {
            "instruments": "csi300",
            "features": {"class": "qlib_ext.features.alpha360.Alpha360", "kwargs": {"lookback_days": 9}},
            "fit_start_time": "2015-06-01",
            "fit_end_time": "2015-06-30",
            "infer_processors": [
                {"class": "qlib_ext.data.processors.momentum_line.MomentumLine"},
                {
                    "class": "qlib_ext.data.processors.rise_or_fall.RiseOrFall",
                    "kwargs": {"source": "NEXT_RETURN"},
                },
            ],
            "learn_processors": [{"class": "qlib_ext.data.processors.cross_section_norm.CrossSectionNorm"}],
        },
    }
    segments = {
        "train": ("2015-06-10", "2015-06-30"),
        "valid": ("2015-07-01", "2015-07-08"),
        "test": ("2015-07-15", "2015-07-20"),
    }
    return DailyPanelDataset(handler=handler, segments=segments)


def test_resnext_is_a_backbone_of_mimstocr(dataset):
    resnext = model_of("resnext_sp500")["backbone"]
    trained = tiny({**model_of("mimstocr_csi300"), "backbone": resnext}, epochs=2)
    trained.fit(dataset)
    found = trained.predict(dataset)
    assert list(found.columns) == ["score", *(f"momentum_{c}" for c in range(5))]
    assert np.isfinite(found.to_numpy()).all()
    assert found["score"].nunique() > 0.9 * len(found)
    assert len(trained.history) == 2
    assert "balance/V/score" in trained.history[0]
    assert "phase" not in trained.history[0]


def test_cqb_balances_resnext_in_its_phases(dataset):
    cqb = model_of("mimstocr_csi300")["balancer"]
    trained = tiny({**model_of("resnext_sp500"), "balancer": cqb})
    trained.fit(dataset)
    found = trained.predict(dataset)
    assert list(found.columns) == ["score", "direction_0", "direction_1"]
    assert np.isfinite(found.to_numpy()).all()
    np.testing.assert_allclose(found.filter(like="direction_").sum(axis=1), 1.0, rtol=1e-5)
    phases = [record["phase"] for record in trained.history]
    assert phases == sorted(phases)
    assert set(phases) == set(range(len(model_of("resnext_sp500")["trainer"]["phases"])))
    assert {"balance/V/score", "balance/V/direction"} <= trained.history[-1].keys()
