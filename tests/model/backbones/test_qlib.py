"""The backbones that Qlib has too, with the same weights: everything but its last layer is equal."""

from __future__ import annotations

import contextlib
import importlib
import io
from dataclasses import replace

import pytest
import torch

from qlib_ext.model.backbones.alstm import ALSTM
from qlib_ext.model.backbones.gats import GATs
from qlib_ext.model.backbones.hist import HIST
from qlib_ext.model.backbones.transformer import Transformer

F, T, H = 6, 4, 8


def qlibs(module, name, **kwargs):
    """A network of Qlib's, in evaluation mode."""
    with contextlib.redirect_stdout(io.StringIO()):  # Qlib tells which other models it cannot import
        found = getattr(importlib.import_module(f"qlib.contrib.model.{module}"), name)
    torch.manual_seed(0)
    return found(d_feat=F, **kwargs).eval()


def flat(panel):
    """Features in Qlib's order of columns: one field after another, each with its T days."""
    return panel.features.transpose(1, 2).flatten(1)


def loaded(backbone, network, names, **others):
    """The backbone with the network's weights: those of the same name, those that `names` translates, and `others`."""
    weights = {}
    for key, value in network.state_dict().items():
        for theirs, ours in names.items():
            key = key.replace(theirs, ours)
        weights[key] = value
    weights.update(others)
    own = {name: weights[name] for name in backbone.state_dict()}
    backbone.load_state_dict(own)
    return backbone.eval()


@pytest.fixture
def panel(make_day):
    return make_day(stocks=20)


@pytest.mark.parametrize("rnn", ["GRU", "LSTM"])
def test_gats(panel, rnn):
    theirs = qlibs("pytorch_gats", "GATModel", hidden_size=H, base_model=rnn)
    sender, receiver = theirs.a.detach().flatten().chunk(2)  # Qlib's columns are j first, then i
    ours = loaded(
        GATs(F, T, hidden_size=H, rnn=rnn),
        theirs,
        {"transformation": "transform", "fc.": "output."},
        attention=torch.cat([receiver, sender]).unsqueeze(0),
    )
    with torch.no_grad():
        torch.testing.assert_close(theirs.fc_out(ours(panel)).squeeze(), theirs(flat(panel)))


@pytest.mark.parametrize("rnn", ["GRU", "LSTM"])
def test_alstm(panel, rnn):
    theirs = qlibs("pytorch_alstm", "ALSTMModel", hidden_size=H, rnn_type=rnn)
    names = {"att_net.att_fc_in": "attention.0", "att_net.att_fc_out": "attention.3", "net.fc_in": "input"}
    ours = loaded(ALSTM(F, T, hidden_size=H, rnn=rnn), theirs, names)
    with torch.no_grad():
        torch.testing.assert_close(theirs.fc_out(ours(panel)).squeeze(), theirs(flat(panel)))


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
def test_transformer(panel):
    theirs = qlibs("pytorch_transformer", "Transformer", d_model=H, nhead=2, num_layers=2)
    ours = loaded(
        Transformer(F, T, hidden_size=H, num_heads=2, feedforward_size=2048),
        theirs,
        {"transformer_encoder.layers": "layers", "feature_layer": "input"},
    )
    with torch.no_grad():
        torch.testing.assert_close(
            theirs.decoder_layer(ours(panel)).squeeze(), theirs(flat(panel)), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("rnn", ["GRU", "LSTM"])
@pytest.mark.parametrize("predefined", [False, True])
def test_hist(panel, rnn, predefined, monkeypatch):
    """With concepts of two stocks each, as Qlib's concepts of n stocks have n / (n + 1) times the length of ours."""
    monkeypatch.setattr(torch, "get_device", lambda tensor: "cpu")  # Qlib's asks for a GPU's number
    theirs = qlibs("pytorch_hist", "HISTModel", hidden_size=H, base_model=rnn)
    concepts = torch.zeros(len(panel), 6)
    if predefined:
        for k in range(6):
            concepts[[2 * k, (2 * k + 5) % len(panel)], k] = 1
    else:
        with torch.no_grad():
            for layer in (theirs.fc_es, theirs.fc_es_back, theirs.fc_es_fore):
                layer.bias.zero_()  # Qlib's shares them where there is no concept
    names = {
        "fc_es_fore": "predefined.forecast",
        "fc_es_back": "predefined.backcast",
        "fc_es.": "predefined.mix.",
        "fc_is_fore": "hidden.forecast",
        "fc_is_back": "hidden.backcast",
        "fc_is.": "hidden.mix.",
        "fc_indi.": "individual.",
    }
    mix = theirs.fc_es.weight.detach() * 2 / 3
    ours = loaded(HIST(F, T, hidden_size=H, rnn=rnn), theirs, names, **{"predefined.mix.weight": mix})
    seen = replace(panel, concepts=concepts, market_value=None)
    with torch.no_grad():
        torch.testing.assert_close(
            theirs.fc_out(ours(seen)).squeeze(), theirs(flat(panel), concepts), atol=1e-5, rtol=1e-4
        )
