import math

import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.model.backbones.transformer import Transformer, sinusoids


def naive(weights, window, layers, heads):
    """Outputs `[T, D]` of one stock's window, head by head and day by day (Vaswani et al., 2017)."""

    def linear(name, x):
        return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]

    def normalised(name, x):
        scale = (x.var(unbiased=False) + 1e-5).sqrt()
        return weights[f"{name}.weight"] * (x - x.mean()) / scale + weights[f"{name}.bias"]

    size = len(weights["input.bias"])
    states = []
    for day, fields in enumerate(window):
        position = [
            math.sin(day / 10_000 ** (i / size)) if i % 2 == 0 else math.cos(day / 10_000 ** ((i - 1) / size))
            for i in range(size)
        ]
        states.append(linear("input", fields) + torch.tensor(position))
    for layer in range(layers):
        name = f"layers.{layer}"
        w, b = weights[f"{name}.self_attn.in_proj_weight"], weights[f"{name}.self_attn.in_proj_bias"]
        projected = [(w @ x + b).chunk(3) for x in states]
        width = size // heads
        new = []
        for t, x in enumerate(states):
            mixed = []
            for head in range(heads):
                part = slice(head * width, (head + 1) * width)
                scores = [
                    math.exp(float(projected[t][0][part] @ key[part]) / math.sqrt(width))
                    for _, key, _ in projected
                ]
                mixed.append(
                    sum(
                        p / sum(scores) * value[part]
                        for p, (_, _, value) in zip(scores, projected, strict=True)
                    )
                )
            x = normalised(f"{name}.norm1", x + linear(f"{name}.self_attn.out_proj", torch.cat(mixed)))
            forward = linear(f"{name}.linear2", linear(f"{name}.linear1", x).relu())
            new.append(normalised(f"{name}.norm2", x + forward))
        states = new
    return torch.stack(states)


def built(**kwargs):
    torch.manual_seed(0)
    small = {"hidden_size": 8, "num_heads": 2, "feedforward_size": 12}
    return Transformer(num_features=6, lookback_days=4, **{**small, **kwargs})


@pytest.mark.parametrize(("pooling", "layers", "heads"), [("last", 2, 2), ("mean", 1, 4)])
def test_is_what_the_equations_say(make_day, pooling, layers, heads):
    panel = make_day()
    backbone = built(pooling=pooling, num_layers=layers, num_heads=heads).eval()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.1)  # biases and norms begin as 0 and 1
        outputs = [naive(backbone.state_dict(), window, layers, heads) for window in panel.features]
        expected = torch.stack([out[-1] if pooling == "last" else out.mean(dim=0) for out in outputs])
        torch.testing.assert_close(backbone(panel), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [7, 8])
def test_positions(size):
    found = sinusoids(60, size)
    assert found.shape == (60, size)
    assert found.dtype == torch.float32
    for day, column in ((0, 0), (0, 1), (1, 0), (59, 6), (30, 3)):
        angle = day / 10_000 ** ((column - column % 2) / size)
        assert found[day, column].item() == pytest.approx(
            (math.cos if column % 2 else math.sin)(angle), abs=1e-6
        )


def test_the_order_of_the_days_counts(make_day):
    """Without positions, the mean over days would not see it."""
    panel = make_day()
    backbone = built(pooling="mean").eval()
    before = backbone(panel)
    panel.features[:] = panel.features.flip(1)
    assert (backbone(panel) - before).abs().max() > 1e-3


def test_layers_begin_with_weights_of_their_own():
    first, second = built().layers
    assert not torch.equal(first.linear1.weight, second.linear1.weight)


def test_positions_are_no_weights():
    assert "positions" not in built().state_dict()


def test_stocks_do_not_see_each_other(make_day):
    panel = make_day()
    backbone = built().eval()
    before = backbone(panel)
    panel.features[0] += 1
    after = backbone(panel)
    assert not torch.allclose(after[0], before[0])
    torch.testing.assert_close(after[1:], before[1:])


def test_dropout_acts_in_training_only(make_day):
    panel = make_day()
    backbone = built(dropout=0.5)
    assert not torch.equal(backbone.train()(panel), backbone(panel))
    torch.testing.assert_close(backbone.eval()(panel), built(dropout=0.0).train()(panel))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"hidden_size": 9}, r"`hidden_size` must be a multiple of `num_heads` \(2\), found 9"),
        ({"num_heads": 0}, "`num_heads` must be at least 1, found 0"),
        ({"feedforward_size": 0}, "`feedforward_size` must be at least 1, found 0"),
        ({"num_layers": 0}, "`num_layers` must be at least 1, found 0"),
        ({"hidden_size": 0}, "`hidden_size` must be at least 1, found 0"),
        ({"pooling": "max"}, "`pooling` must be one of last, mean, found 'max'"),
        ({"dropout": 1.0}, r"`dropout` must lie in \[0, 1\), found 1.0"),
    ],
)
def test_messages(kwargs, message):
    with pytest.raises(UserError, match=message):
        built(**kwargs)
