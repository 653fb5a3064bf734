import pytest
import torch

from qlib_ext.model.backbones.lstm import LSTM


def naive(weights, features, layers):
    """The top layer's last hidden state, one cell and one day at a time (Hochreiter and Schmidhuber, 1997)."""
    inputs = [features[:, day] for day in range(features.shape[1])]
    for layer in range(layers):
        w_x, w_h, b_x, b_h = (
            weights[f"rnn.{name}_l{layer}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        h = torch.zeros(len(features), w_h.shape[1])
        c = torch.zeros_like(h)
        outputs = []
        for x in inputs:
            enter, forget, cell, leave = (x @ w_x.T + b_x + h @ w_h.T + b_h).chunk(4, dim=1)
            c = torch.sigmoid(forget) * c + torch.sigmoid(enter) * torch.tanh(cell)
            h = torch.sigmoid(leave) * torch.tanh(c)
            outputs.append(h)
        inputs = outputs
    return inputs[-1]


@pytest.fixture
def panel(make_panels):
    return make_panels()[6]


def built(**kwargs):
    torch.manual_seed(0)
    return LSTM(num_features=6, lookback_days=4, **kwargs)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_is_the_last_hidden_state(panel, layers):
    backbone = built(hidden_size=5, num_layers=layers)
    assert backbone.out_features == 5
    expected = naive(backbone.state_dict(), panel.features, layers)
    torch.testing.assert_close(backbone(panel), expected)


def test_golden(panel):
    backbone = built(hidden_size=2)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.copy_(torch.sin(torch.arange(parameter.numel())).view_as(parameter))
    panel.features[0] = torch.cos(torch.arange(24.0)).view(4, 6)
    torch.testing.assert_close(backbone(panel)[0], torch.tensor(GOLDEN), atol=1e-5, rtol=1e-5)


GOLDEN = [-0.2931177, -0.5246041]
