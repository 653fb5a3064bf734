import pytest
import torch

from qlib_ext.model.backbones.gru import GRU


def naive(weights, features, layers):
    """The top layer's last hidden state, one cell and one day at a time (Cho et al., 2014, in cuDNN's form)."""
    inputs = [features[:, day] for day in range(features.shape[1])]
    for layer in range(layers):
        w_x, w_h, b_x, b_h = (
            weights[f"rnn.{name}_l{layer}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        h = torch.zeros(len(features), w_h.shape[1])
        outputs = []
        for x in inputs:
            (reset_x, update_x, new_x), (reset_h, update_h, new_h) = (
                (x @ w_x.T + b_x).chunk(3, dim=1),
                (h @ w_h.T + b_h).chunk(3, dim=1),
            )
            update = torch.sigmoid(update_x + update_h)
            new = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
            h = (1 - update) * new + update * h
            outputs.append(h)
        inputs = outputs
    return inputs[-1]


def built(**kwargs):
    torch.manual_seed(0)
    return GRU(num_features=6, lookback_days=4, **kwargs)


@pytest.mark.parametrize("layers", [1, 3])
def test_is_the_last_hidden_state(make_day, layers):
    panel = make_day()
    backbone = built(hidden_size=5, num_layers=layers)
    assert backbone.out_features == 5
    torch.testing.assert_close(backbone(panel), naive(backbone.state_dict(), panel.features, layers))
