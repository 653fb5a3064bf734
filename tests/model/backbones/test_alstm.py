import math

import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.model.backbones.alstm import ALSTM


def naive(backbone, features):
    """Embeddings stock by stock and day by day; the recurrent network itself is torch's."""
    weights = backbone.state_dict()
    score_in, score_out = weights["attention.0.weight"], weights["attention.3.weight"]
    embeddings = []
    for window in features:
        inputs = torch.stack(
            [(weights["input.weight"] @ day + weights["input.bias"]).tanh() for day in window]
        )
        states = backbone.rnn(inputs)[0]
        exponentials = [
            math.exp(float(score_out @ (score_in @ state + weights["attention.0.bias"]).tanh()))
            for state in states
        ]
        average = sum(p / sum(exponentials) * state for p, state in zip(exponentials, states, strict=True))
        embeddings.append(torch.cat([states[-1], average]))
    return torch.stack(embeddings)


def built(**kwargs):
    torch.manual_seed(0)
    return ALSTM(num_features=6, lookback_days=4, **{"hidden_size": 5, **kwargs})


@pytest.mark.parametrize("rnn", ["LSTM", "GRU"])
def test_is_the_last_state_beside_the_attended_ones(make_day, rnn):
    panel = make_day()
    backbone = built(rnn=rnn)
    with torch.no_grad():
        for parameter in backbone.attention.parameters():
            parameter.mul_(10)  # so that attention is far from uniform
        torch.testing.assert_close(backbone(panel), naive(backbone, panel.features))


def test_an_embedding_is_twice_the_hidden_size():
    assert built().out_features == 10
    assert ALSTM(num_features=6, lookback_days=60).out_features == 256


def test_stocks_do_not_see_each_other(make_day):
    panel = make_day()
    backbone = built()
    before = backbone(panel)
    panel.features[0] += 1
    after = backbone(panel)
    assert not torch.equal(after[0], before[0])
    assert torch.equal(after[1:], before[1:])


def test_dropout_acts_in_training_only_and_in_the_attention_too(make_day):
    panel = make_day()
    backbone = built(dropout=0.5)
    found = backbone.train()(panel)
    assert not torch.equal(found, backbone(panel))
    assert torch.equal(backbone.eval()(panel), built().eval()(panel))
    backbone.train().rnn.eval()
    assert torch.equal(backbone(panel)[:, :5], backbone(panel)[:, :5])
    assert not torch.equal(backbone(panel)[:, 5:], backbone(panel)[:, 5:])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"hidden_size": 1}, "`hidden_size` must be at least 2, found 1"),
        ({"num_layers": 0}, "`num_layers` must be at least 1, found 0"),
        ({"rnn": "lstm"}, "`rnn` must be one of GRU, LSTM, found 'lstm'"),
        ({"dropout": -0.1}, r"`dropout` must lie in \[0, 1\), found -0.1"),
    ],
)
def test_messages(kwargs, message):
    with pytest.raises(UserError, match=message):
        built(**kwargs)
