import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.model.backbones.dsn import DSN


def built(**kwargs):
    torch.manual_seed(0)
    return DSN(num_features=6, lookback_days=4, **{"hidden_size": 5, "layer_sizes": (8, 7), **kwargs})


@pytest.mark.parametrize("layer_sizes", [(), (8,), (8, 7)])
def test_is_layer_by_layer_what_the_equation_says(make_day, layer_sizes):
    panel = make_day()
    backbone = built(layer_sizes=layer_sizes)
    weights = [parameter.detach() for parameter in backbone.parameters()]
    for stock, window in enumerate(panel.features):
        state = [float(x) for day in window for x in day]
        for w, b in zip(weights[::2], weights[1::2], strict=True):
            state = [
                max(0.0, sum(float(x) * s for x, s in zip(row, state, strict=True)) + float(bias))
                for row, bias in zip(w, b, strict=True)
            ]
        torch.testing.assert_close(backbone(panel)[stock], torch.tensor(state), atol=1e-5, rtol=1e-4)


def test_stocks_do_not_see_each_other(make_day):
    panel = make_day()
    backbone = built()
    before = backbone(panel)
    panel.features[0] += 1
    after = backbone(panel)
    assert not torch.equal(after[0], before[0])
    torch.testing.assert_close(after[1:], before[1:])


def test_dropout_acts_in_training_only(make_day):
    panel = make_day()
    backbone = built(dropout=0.5)
    assert not torch.equal(backbone.train()(panel), backbone(panel))
    assert torch.equal(backbone.eval()(panel), built().train()(panel))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"hidden_size": 0}, "`hidden_size` must be at least 1, found 0"),
        ({"layer_sizes": 8}, "`layer_sizes` must be a list of sizes, found 8"),
        ({"layer_sizes": [8, 0]}, r"`layer_sizes\[1\]` must be at least 1, found 0"),
        ({"dropout": -0.1}, r"`dropout` must lie in \[0, 1\), found -0.1"),
    ],
)
def test_messages(kwargs, message):
    with pytest.raises(UserError, match=message):
        built(**kwargs)
