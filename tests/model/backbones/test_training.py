"""Every backbone under the trainer and as part of the Qlib model, on a market small enough for a test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import qlib
import torch

from qlib_ext.checks import UserError
from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.market.synthetic.sample import SampleMarket
from qlib_ext.model.balancers.cqb import CQB
from qlib_ext.model.balancers.equal import EqualWeighting
from qlib_ext.model.losses.cross_entropy import CrossEntropy
from qlib_ext.model.losses.mse import MSE
from qlib_ext.model.multi_task import MultiTaskModel
from qlib_ext.model.network import MultiTaskNetwork
from qlib_ext.model.options import TrainerOptions
from qlib_ext.model.task import Task
from qlib_ext.model.trainer import Trainer

FAMILY = "qlib_ext.model.backbones"
SMALL = {"hidden_size": 6, "num_layers": 1}
BACKBONES = {
    "GRU": {"class": f"{FAMILY}.gru.GRU", "kwargs": SMALL},
    "ALSTM": {"class": f"{FAMILY}.alstm.ALSTM", "kwargs": SMALL},
    "Transformer": {
        "class": f"{FAMILY}.transformer.Transformer",
        "kwargs": {**SMALL, "num_heads": 2, "feedforward_size": 8},
    },
    "GATs": {"class": f"{FAMILY}.gats.GATs", "kwargs": SMALL},
    "RSR": {"class": f"{FAMILY}.rsr.RSR", "kwargs": {**SMALL, "num_concepts": 3}},
    "HIST": {"class": f"{FAMILY}.hist.HIST", "kwargs": SMALL},
    "ResNeXt": {
        "class": f"{FAMILY}.resnext.ResNeXt",
        "kwargs": {"hidden_size": 8, "cardinality": 2, "width": 8, "stem_channels": 8, "stages": 2},
    },
    "DSN": {"class": f"{FAMILY}.dsn.DSN", "kwargs": {"hidden_size": 6, "layer_sizes": [8]}},
    "MCCNN": {"class": f"{FAMILY}.mccnn.MCCNN", "kwargs": {"hidden_size": 6, "filters": 4}},
    "MASTER": {"class": f"{FAMILY}.master.MASTER", "kwargs": {"hidden_size": 8, "dropout": 0.1}},
    "Gated": {
        "class": f"{FAMILY}.gated.Gated",
        "kwargs": {"backbone": {"class": f"{FAMILY}.lstm.LSTM", "kwargs": SMALL}},
    },
}
each_backbone = pytest.mark.parametrize("name", BACKBONES)


class WithConcepts:
    """Daily panels that know three concepts and a market value of each stock, and two features of the market."""

    def __init__(self, panels):
        self.panels = panels

    def __len__(self):
        return len(self.panels)

    def __getattr__(self, name):
        return getattr(self.panels, name)

    def __getitem__(self, position):
        panel = self.panels[position]
        concepts = torch.stack([panel.instruments % 2, panel.instruments % 3, panel.instruments // 4]) == 1
        market_value = 1.0 + panel.instruments.float()
        status = torch.tensor([0.1 * position, -1.0])
        return replace(panel, concepts=concepts.T.float(), market_value=market_value, market_status=status)


def trained(name, make_panels, balancer, **options):
    torch.manual_seed(0)
    tasks = [Task("score", "RETURN", MSE()), Task("momentum", "MOMENTUM", CrossEntropy(), classes=5)]
    network = MultiTaskNetwork(BACKBONES[name], tasks, num_features=6, lookback_days=4, num_market=2)
    settings = TrainerOptions(**{"n_epochs": 2, "learning_rate": 1e-2, **options})
    trainer = Trainer(network, tasks, balancer, settings, seed=0, device=torch.device("cpu"))
    trainer.fit(WithConcepts(make_panels(days=9)), WithConcepts(make_panels(days=6, seed=1)))
    return trainer


@each_backbone
class TestTrainer:
    def test_learns_what_the_made_market_holds(self, name, make_panels):
        history = trained(name, make_panels, CQB(), n_epochs=6, learning_rate=2e-2).history
        for task in ("score", "momentum"):
            losses = [record[f"train/loss/{task}"] for record in history]
            assert min(losses[-3:]) < 0.97 * losses[0]
        assert history[-1]["gradient/norm/score"] > 0

    def test_in_bfloat16_too(self, name, make_panels):
        single = trained(name, make_panels, EqualWeighting(), n_epochs=1).history
        half = trained(name, make_panels, EqualWeighting(), n_epochs=1, precision="bfloat16").history
        for one, other in zip(single, half, strict=True):
            assert other["train/loss/score"] == pytest.approx(one["train/loss/score"], rel=0.05)

    def test_one_seed_one_result(self, name, make_panels):
        weights = [
            trained(name, make_panels, EqualWeighting(), n_epochs=1).network.state_dict() for _ in range(2)
        ]
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


HANDLER = {
    "class": "qlib_ext.data.handlers.panel.PanelHandler",
    "kwargs": {
        "instruments": "csi300",
        "features": {"class": "qlib_ext.features.alpha360.Alpha360", "kwargs": {"lookback_days": 5}},
        "fit_start_time": "2015-06-01",
        "fit_end_time": "2015-06-30",
        "infer_processors": [{"class": "qlib_ext.data.processors.momentum_line.MomentumLine"}],
        "learn_processors": [{"class": "qlib_ext.data.processors.cross_section_norm.CrossSectionNorm"}],
    },
}
SEGMENTS = {
    "train": ("2015-06-17", "2015-06-30"),
    "valid": ("2015-07-01", "2015-07-08"),
    "test": ("2015-07-15", "2015-07-24"),
}


SIDE = {
    "market_value": {"class": "qlib_ext.features.side_data.market_value.TrailingTradedValue"},
    "concepts": {
        "class": "qlib_ext.features.side_data.concepts.CorrelationClusters",
        "kwargs": {"n_clusters": 3, "window_days": 60, "min_days": 40, "refit_every_days": 20},
    },
    "market_status": {
        "class": "qlib_ext.features.side_data.market_status.IndexStatus",
        "kwargs": {"indices": ["SH000300"], "windows": [5]},
    },
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("market") / "sample"
    SampleMarket(seed=3, stocks=20, start="2015-01-01", end="2015-12-31").write(root)
    return root


@pytest.fixture(scope="module")
def make_dataset(store):
    def make(**side):
        qlib.init(provider_uri=str(store), region="cn", kernels=1)
        return DailyPanelDataset(handler=HANDLER, segments=SEGMENTS, **side)

    return make


@pytest.fixture(scope="module")
def plain(make_dataset):
    return make_dataset()


@pytest.fixture(scope="module")
def with_side(make_dataset):
    return make_dataset(**SIDE)


def model(name):
    backbone = {**BACKBONES[name], "kwargs": {**BACKBONES[name]["kwargs"]}}
    return MultiTaskModel(
        backbone=backbone,
        tasks={
            "score": {"label": "RETURN", "loss": {"class": "qlib_ext.model.losses.mse.MSE"}},
            "momentum": {
                "label": "MOMENTUM",
                "loss": {"class": "qlib_ext.model.losses.approx_ndcg.ApproxNDCG"},
            },
        },
        balancer={"class": "qlib_ext.model.balancers.cqb.CQB", "kwargs": {"window": 1}},
        trainer={"n_epochs": 2, "learning_rate": 1e-2},
        checkpoint_dir=None,
        device="cpu",
    )


NEED_SIDE = ("RSR", "MASTER", "Gated")


class TestModel:
    @pytest.mark.parametrize(
        ("name", "dataset"),
        [(name, "plain") for name in BACKBONES if name not in NEED_SIDE]
        + [(name, "with_side") for name in [*NEED_SIDE, "HIST"]],
    )
    def test_fits_and_predicts(self, name, dataset, request):
        dataset = request.getfixturevalue(dataset)
        fitted = model(name)
        fitted.fit(dataset)
        found = fitted.predict(dataset)
        assert len(fitted.history) == 2
        assert np.isfinite(found.to_numpy()).all()
        assert found["score"].nunique() > 0.9 * len(found)

    def test_hist_makes_use_of_concepts_and_market_values(self, plain, with_side):
        fitted = model("HIST")
        fitted.fit(with_side)
        difference = fitted.predict(with_side)["score"] - fitted.predict(plain)["score"]
        assert (difference.abs() > 1e-6).mean() > 0.9

    def test_rsr_says_what_it_misses(self, plain):
        with pytest.raises(UserError, match="RSR relates stocks by the concepts that they share"):
            model("RSR").fit(plain)

    @pytest.mark.parametrize("name", ["MASTER", "Gated"])
    def test_a_gate_says_what_it_misses(self, name, plain):
        with pytest.raises(UserError, match="needs features of the market, found none: name `market_status`"):
            model(name).fit(plain)

    def test_master_goes_by_the_market(self, with_side):
        fitted = model("MASTER")
        fitted.fit(with_side)
        before = fitted.predict(with_side)["score"]
        planes = with_side._side.market_status
        with_side._side.market_status = -planes
        try:
            after = fitted.predict(with_side)["score"]
        finally:
            with_side._side.market_status = planes
        assert ((before - after).abs() > 1e-6).mean() > 0.9
