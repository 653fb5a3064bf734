"""What holds for every backbone."""

import copy
import importlib
import inspect
import pkgutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save

from qlib_ext.model import backbones
from qlib_ext.model.backbones.alstm import ALSTM
from qlib_ext.model.backbones.base import Backbone
from qlib_ext.model.backbones.dsn import DSN
from qlib_ext.model.backbones.gated import Gated
from qlib_ext.model.backbones.gats import GATs
from qlib_ext.model.backbones.gru import GRU
from qlib_ext.model.backbones.hist import HIST
from qlib_ext.model.backbones.lstm import LSTM
from qlib_ext.model.backbones.master import MASTER
from qlib_ext.model.backbones.mccnn import MCCNN
from qlib_ext.model.backbones.resnext import ResNeXt
from qlib_ext.model.backbones.rsr import RSR
from qlib_ext.model.backbones.transformer import Transformer
from tests.model.backbones.conftest import MARKET

SMALL = {"hidden_size": 6}
RESNEXT = {"hidden_size": 8, "cardinality": 4, "width": 8, "stem_channels": 6, "stem_days": 3}
GATED_LSTM = {"class": "qlib_ext.model.backbones.lstm.LSTM", "kwargs": SMALL}
GATED_GATS = {"class": "qlib_ext.model.backbones.gats.GATs", "kwargs": SMALL}
KINDS = {
    "LSTM": (LSTM, SMALL),
    "GRU": (GRU, SMALL),
    "ALSTM": (ALSTM, SMALL),
    "ALSTM of GRU": (ALSTM, {**SMALL, "rnn": "GRU"}),
    "Transformer": (Transformer, {"hidden_size": 8, "num_heads": 2, "feedforward_size": 10}),
    "Transformer of means": (
        Transformer,
        {"hidden_size": 8, "num_heads": 2, "feedforward_size": 10, "pooling": "mean"},
    ),
    "GATs": (GATs, SMALL),
    "GATs of LSTM": (GATs, {**SMALL, "rnn": "LSTM"}),
    "RSR": (RSR, SMALL),
    "RSR, implicit": (RSR, {**SMALL, "strength": "implicit", "num_concepts": 5}),
    "HIST": (HIST, SMALL),
    "HIST, corrected": (HIST, {**SMALL, "correct_concepts": True, "rnn": "LSTM"}),
    "ResNeXt": (ResNeXt, {**RESNEXT, "dropout": 0.2}),
    "ResNeXt with attention": (ResNeXt, {**RESNEXT, "blocks": 2, "pooling": "attention", "stages": 2}),
    "ResNeXt of the last day": (ResNeXt, {**RESNEXT, "norm": "group", "pooling": "last", "stages": 2}),
    "DSN": (DSN, {**SMALL, "layer_sizes": (9, 7), "dropout": 0.2}),
    "MCCNN": (MCCNN, {**SMALL, "filters": 4, "filter_days": 3, "layers": 1}),
    "MASTER": (MASTER, {"hidden_size": 8, "dropout": 0.2, "num_market": MARKET}),
    "MASTER without a gate": (MASTER, {"hidden_size": 8, "beta": None}),
    "LSTM behind a gate": (Gated, {"backbone": GATED_LSTM, "beta": 2.0, "num_market": MARKET}),
    "GATs behind a gate": (Gated, {"backbone": GATED_GATS, "num_market": MARKET}),
}
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="this torch finds no CUDA device"),
    ),
]
each_kind = pytest.mark.parametrize("kind", KINDS)


def built(kind, panel, seed=0):
    torch.manual_seed(seed)
    _, lookback_days, num_features = panel.features.shape
    backbone, kwargs = KINDS[kind]
    return backbone(num_features=num_features, lookback_days=lookback_days, **kwargs)


def taken(panel, stocks):
    """The panel with some of its stocks, or all in another order."""
    return replace(
        panel,
        features=panel.features[stocks],
        instruments=panel.instruments[stocks],
        market_value=None if panel.market_value is None else panel.market_value[stocks],
        concepts=None if panel.concepts is None else panel.concepts[stocks],
        labels={name: values[stocks] for name, values in panel.labels.items()},
        raw_labels={name: values[stocks] for name, values in panel.raw_labels.items()},
    )


def gradients(backbone, panel):
    """Embeddings, and the gradients of a sum over them, by parameter; the dropout drawn from one seed."""
    torch.manual_seed(0)
    backbone.zero_grad()
    embedding = backbone(panel)
    (embedding * torch.linspace(-1, 1, embedding.numel()).view_as(embedding)).sum().backward()
    return embedding.detach(), {name: parameter.grad for name, parameter in backbone.named_parameters()}


def test_every_backbone_is_held_to_the_laws():
    modules = [
        importlib.import_module(f"{backbones.__name__}.{module.name}")
        for module in pkgutil.iter_modules(backbones.__path__)
    ]
    found = {
        value
        for module in modules
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Backbone) and not inspect.isabstract(value)
    }
    assert found == {kind for kind, _ in KINDS.values()}


@each_kind
class TestLaws:
    def test_one_embedding_a_stock_of_the_promised_size(self, kind, make_day):
        panel = make_day()
        backbone = built(kind, panel)
        embedding = backbone(panel)
        assert embedding.shape == (len(panel), backbone.out_features)
        assert embedding.dtype == torch.float32
        assert torch.isfinite(embedding).all()

    @pytest.mark.parametrize("seed", range(3))
    def test_permuting_the_stocks_permutes_the_embeddings(self, kind, make_day, seed):
        panel = make_day(seed)
        backbone = built(kind, panel).eval()
        order = torch.randperm(len(panel), generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(backbone(taken(panel, order)), backbone(panel)[order])

    def test_and_so_where_stocks_are_alike(self, kind, make_day):
        """As suspended stocks are, whose every feature is the same."""
        panel = make_day()
        panel.features[[2, 5, 8]] = 0
        panel.features[[3, 4]] = panel.features[[6, 7]]
        backbone = built(kind, panel).eval()
        for order in (torch.arange(len(panel)).flip(0), torch.arange(len(panel)).roll(5)):
            torch.testing.assert_close(backbone(taken(panel, order)), backbone(panel)[order])

    @pytest.mark.parametrize("shape", [(5, 1), (30, 13)])
    def test_windows_of_any_size(self, kind, make_day, shape):
        panel = make_day()
        panel = replace(panel, features=torch.randn(len(panel), *shape))
        backbone = built(kind, panel).eval()
        found = backbone(panel)
        assert found.shape == (len(panel), backbone.out_features)
        assert torch.isfinite(found).all()

    def test_a_single_stock(self, kind, make_day):
        for stock in (1, 2):
            panel = taken(make_day(), torch.tensor([stock]))
            backbone = built(kind, panel)
            embedding, by_parameter = gradients(backbone, panel)
            assert embedding.shape == (1, backbone.out_features)
            assert torch.isfinite(embedding).all()
            assert all(torch.isfinite(g).all() for g in by_parameter.values() if g is not None)

    def test_two_stocks(self, kind, make_day):
        panel = taken(make_day(), torch.tensor([4, 7]))
        assert torch.isfinite(built(kind, panel)(panel)).all()

    def test_the_gradient_reaches_every_parameter_and_every_stock(self, kind, make_day):
        panel = make_day()
        panel.features.requires_grad_()
        _, by_parameter = gradients(built(kind, panel), panel)
        for name, gradient in by_parameter.items():
            assert gradient.abs().sum() > 0, name
            assert torch.isfinite(gradient).all(), name
        assert (panel.features.grad.abs().sum(dim=(1, 2)) > 0).all()

    def test_every_day_and_field_counts(self, kind, make_day):
        panel = make_day()
        panel.features.requires_grad_()
        gradients(built(kind, panel), panel)
        assert (panel.features.grad.abs().sum(dim=0) > 0).all()

    def test_the_same_twice_in_evaluation(self, kind, make_day):
        panel = make_day()
        backbone = built(kind, panel).eval()
        before = copy.deepcopy(panel)
        assert torch.equal(backbone(panel), backbone(panel))
        for name in ("features", "concepts", "market_value", "market_status", "instruments"):
            assert torch.equal(getattr(panel, name), getattr(before, name))

    def test_the_same_twice_in_training_to_the_last_bit(self, kind, make_day):
        panel = make_day()
        backbone = built(kind, panel)
        first, first_gradients = gradients(backbone, panel)
        again, gradients_again = gradients(backbone, panel)
        assert torch.equal(first, again)
        assert all(torch.equal(first_gradients[name], gradients_again[name]) for name in first_gradients)

    def test_whether_stocks_see_each_other_is_said(self, kind, make_day):
        """By this a day may be evaluated in parts, or must not."""
        panel = make_day()
        backbone = built(kind, panel).eval()
        half = torch.arange(len(panel)) < len(panel) // 2
        parts = torch.cat([backbone(taken(panel, half)), backbone(taken(panel, ~half))])
        alike = torch.allclose(parts, backbone(panel), atol=1e-5)
        assert alike is not backbone.stocks_see_each_other

    def test_the_same_without_a_graph(self, kind, make_day):
        panel = make_day()
        backbone = built(kind, panel).eval()
        with torch.inference_mode():
            found = backbone(panel)
        torch.testing.assert_close(found, backbone(panel).detach())

    def test_the_seed_decides_the_weights(self, kind, make_day):
        panel = make_day()
        first, again, other = (built(kind, panel, seed) for seed in (0, 0, 1))
        for name, value in first.state_dict().items():
            assert torch.equal(value, again.state_dict()[name])
        assert not torch.equal(first.eval()(panel), other.eval()(panel))

    def test_the_weights_are_all_that_there_is_beside_the_call_that_it_shows(self, kind, make_day, rebuild):
        panel = make_day()
        first = built(kind, panel).eval()
        other = rebuild(first).eval()
        assert not torch.equal(other(panel), first(panel))
        weights = {name: value.clone() for name, value in first.state_dict().items()}
        other.load_state_dict(load(save(weights)))
        assert torch.equal(other(panel), first(panel))

    def test_stocks_that_are_all_alike(self, kind, make_day):
        for value in (0.0, 3.0):
            panel = make_day()
            panel.features[:] = value
            embedding, by_parameter = gradients(built(kind, panel), panel)
            assert torch.isfinite(embedding).all()
            assert all(torch.isfinite(gradient).all() for gradient in by_parameter.values())

    def test_large_features(self, kind, make_day):
        panel = make_day()
        panel.features.mul_(1e4)
        embedding, by_parameter = gradients(built(kind, panel), panel)
        assert torch.isfinite(embedding).all()
        assert all(torch.isfinite(gradient).all() for gradient in by_parameter.values())

    @pytest.mark.parametrize("device", DEVICES)
    def test_under_bfloat16_autocast(self, kind, make_day, device):
        panel = make_day(stocks=30, device=device)
        backbone = built(kind, panel).eval().to(device)
        expected = backbone(panel)
        with torch.autocast(device, dtype=torch.bfloat16):
            found = backbone(panel)
        found.float().sum().backward()
        assert torch.isfinite(found).all()
        assert (found.float() - expected).norm() < 0.05 * expected.norm()
        for parameter in backbone.parameters():
            assert parameter.grad.dtype == torch.float32
            assert torch.isfinite(parameter.grad).all()

    @pytest.mark.parametrize("device", DEVICES)
    def test_on_every_device(self, kind, make_day, device):
        panel, elsewhere = make_day(), make_day(device=device)
        backbone = built(kind, panel).eval()
        expected = backbone(panel)
        found = backbone.to(device)(elsewhere)
        assert found.device.type == device
        torch.testing.assert_close(found.cpu(), expected, atol=1e-5, rtol=1e-5)
