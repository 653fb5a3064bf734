"""What holds for every backbone."""

import importlib
import inspect
import pkgutil
from dataclasses import replace

import pytest
import torch

from qlib_ext.model import backbones
from qlib_ext.model.backbones.base import Backbone
from qlib_ext.model.backbones.gats import GATs
from qlib_ext.model.backbones.gru import GRU
from qlib_ext.model.backbones.lstm import LSTM

KINDS = {
    LSTM: {"hidden_size": 6},
    GRU: {"hidden_size": 6},
    GATs: {"hidden_size": 6},
}
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def built(kind, panel, seed=0, **kwargs):
    torch.manual_seed(seed)
    _, lookback_days, num_features = panel.features.shape
    return kind(num_features=num_features, lookback_days=lookback_days, **{**KINDS[kind], **kwargs})


def taken(panel, stocks):
    """The panel with some of its stocks, or all in another order."""
    return replace(
        panel,
        features=panel.features[stocks],
        instruments=panel.instruments[stocks],
        market_value=None if panel.market_value is None else panel.market_value[stocks],
        labels={name: values[stocks] for name, values in panel.labels.items()},
        raw_labels={name: values[stocks] for name, values in panel.raw_labels.items()},
    )


def test_every_backbone_is_held_to_the_laws():
    modules = [
        importlib.import_module(f"{backbones.__name__}.{module.name}")
        for module in pkgutil.iter_modules(backbones.__path__)
    ]
    found = {
        value
        for module in modules
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Backbone) and value is not Backbone
    }
    assert found == set(KINDS)


@each_kind
class TestLaws:
    def test_one_embedding_a_stock_of_the_promised_size(self, kind, make_panels):
        panel = make_panels()[5]
        backbone = built(kind, panel)
        embedding = backbone(panel)
        assert embedding.shape == (len(panel), backbone.out_features)
        assert embedding.dtype == torch.float32
        assert torch.isfinite(embedding).all()

    @pytest.mark.parametrize("seed", range(3))
    def test_permuting_the_stocks_permutes_the_embeddings(self, kind, make_panels, seed):
        panel = make_panels(seed=seed)[5]
        backbone = built(kind, panel).eval()
        order = torch.randperm(len(panel), generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(backbone(taken(panel, order)), backbone(panel)[order])

    def test_a_single_stock(self, kind, make_panels):
        panel = taken(make_panels()[5], torch.tensor([2]))
        backbone = built(kind, panel)
        embedding = backbone(panel)
        assert embedding.shape == (1, backbone.out_features)
        assert torch.isfinite(embedding).all()

    def test_the_gradient_reaches_every_parameter_and_every_stock(self, kind, make_panels):
        panel = make_panels()[5]
        panel.features.requires_grad_()
        backbone = built(kind, panel)
        backbone(panel).square().sum().backward()
        for name, parameter in backbone.named_parameters():
            assert parameter.grad.abs().sum() > 0, name
        assert (panel.features.grad.abs().sum(dim=(1, 2)) > 0).all()

    def test_the_same_twice_in_evaluation(self, kind, make_panels):
        panel = make_panels()[5]
        backbone = built(kind, panel).eval()
        before = panel.features.clone()
        assert torch.equal(backbone(panel), backbone(panel))
        assert torch.equal(panel.features, before)

    def test_the_seed_decides_the_weights(self, kind, make_panels):
        panel = make_panels()[5]
        first, again, other = (built(kind, panel, seed) for seed in (0, 0, 1))
        for name, value in first.state_dict().items():
            assert torch.equal(value, again.state_dict()[name])
        assert not torch.equal(first(panel), other(panel))

    @pytest.mark.parametrize("device", DEVICES)
    def test_on_every_device(self, kind, make_panels, device):
        panel, elsewhere = make_panels()[5], make_panels(device=device)[5]
        backbone = built(kind, panel).eval()
        expected = backbone(panel)
        found = backbone.to(device)(elsewhere)
        assert found.device.type == device
        torch.testing.assert_close(found.cpu(), expected, atol=1e-5, rtol=1e-5)
