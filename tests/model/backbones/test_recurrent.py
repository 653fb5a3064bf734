import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.model.backbones.gru import GRU
from qlib_ext.model.backbones.lstm import LSTM


@pytest.fixture(params=[LSTM, GRU])
def built(request):
    def make(**kwargs):
        torch.manual_seed(0)
        return request.param(num_features=6, lookback_days=4, **kwargs)

    return make


def test_stocks_do_not_see_each_other(make_day, built):
    panel = make_day()
    backbone = built(hidden_size=5)
    before = backbone(panel)
    panel.features[0] += 1
    after = backbone(panel)
    assert not torch.equal(after[0], before[0])
    assert torch.equal(after[1:], before[1:])


def test_dropout_acts_in_training_only(make_day, built):
    panel = make_day()
    without, backbone = built(hidden_size=5), built(hidden_size=5, dropout=0.5)
    assert torch.equal(without.train()(panel), without.eval()(panel))
    assert not torch.equal(backbone.train()(panel), backbone(panel))
    assert torch.equal(backbone.eval()(panel), without(panel))


def test_the_size_is_the_authors(built):
    assert built().out_features == 128
    assert built().rnn.num_layers == 2


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"hidden_size": 0}, "`hidden_size` must be at least 1, found 0"),
        ({"hidden_size": 64.0}, "`hidden_size` must be an integer, found 64.0"),
        ({"num_layers": 0}, "`num_layers` must be at least 1, found 0"),
        ({"dropout": 1.0}, r"`dropout` must lie in \[0, 1\), found 1.0"),
    ],
)
def test_messages(built, kwargs, message):
    with pytest.raises(UserError, match=message):
        built(**kwargs)
