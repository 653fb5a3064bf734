import math
from dataclasses import replace

import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.model.backbones.master import MASTER
from qlib_ext.model.backbones.transformer import sinusoids
from tests.model.backbones.conftest import MARKET
from tests.model.backbones.largest import Largest


def softmax(scores):
    exponentials = [math.exp(float(score)) for score in scores]
    return [e / sum(exponentials) for e in exponentials]


def normalised(weights, name, x):
    """Layer normalisation of one vector."""
    centred = x - x.mean()
    scale = math.sqrt(float((centred**2).mean()) + 1e-5)
    return weights[f"{name}.weight"] * centred / scale + weights[f"{name}.bias"]


def attention(weights, name, entries, heads):
    """One attention layer on a list of vectors, head by head and pair by pair."""
    size = len(entries[0])
    part = size // heads
    projection = weights[f"{name}.projection.weight"]
    entries = [normalised(weights, f"{name}.norm", x) for x in entries]
    queries, keys, values = ([projection[k * size : (k + 1) * size] @ x for x in entries] for k in range(3))
    found = []
    for own, query in zip(entries, queries, strict=True):
        mixed = []
        for head in range(heads):
            here = slice(head * part, (head + 1) * part)
            share = softmax([float(query[here] @ key[here]) / math.sqrt(part) for key in keys])
            mixed.append(sum(p * value[here] for p, value in zip(share, values, strict=True)))
        between = normalised(weights, f"{name}.norm_between", own + torch.cat(mixed))
        first, second = (f"{name}.feedforward.{k}" for k in (0, 3))
        hidden = weights[f"{first}.weight"] @ between + weights[f"{first}.bias"]
        hidden = torch.where(hidden > 0, hidden, 0.0)
        found.append(between + weights[f"{second}.weight"] @ hidden + weights[f"{second}.bias"])
    return found


def naive(backbone, panel, heads, stock_heads):
    """Embeddings as the equations stand: stock by stock, day by day, pair by pair, in float64."""
    weights = {name: value.double() for name, value in backbone.state_dict().items()}
    stocks, days, fields = panel.features.shape
    gate = [1.0] * fields
    if backbone.gate is not None:
        market = panel.market_status.double()
        scores = weights["gate.linear.weight"] @ market + weights["gate.linear.bias"]
        gate = [fields * share for share in softmax(scores / backbone.gate.beta)]
    gate = torch.tensor(gate, dtype=torch.float64)
    positions = sinusoids(days, backbone.out_features).double()
    states = [
        [
            weights["input.weight"] @ (gate * panel.features[i, t].double())
            + weights["input.bias"]
            + positions[t]
            for t in range(days)
        ]
        for i in range(stocks)
    ]
    states = [attention(weights, "over_days", window, heads) for window in states]
    by_day = [
        attention(weights, "over_stocks", [states[i][t] for i in range(stocks)], stock_heads)
        for t in range(days)
    ]
    embeddings = []
    for i in range(stocks):
        own = [by_day[t][i] for t in range(days)]
        share = softmax([float((weights["key.weight"] @ z) @ own[-1]) for z in own])
        embeddings.append(sum(p * z for p, z in zip(share, own, strict=True)))
    return torch.stack(embeddings)


def built(**kwargs):
    torch.manual_seed(0)
    given = {"hidden_size": 8, "num_heads": 4, "num_stock_heads": 2, "num_market": MARKET, **kwargs}
    return MASTER(num_features=6, lookback_days=4, **given).eval()


class TestMASTER:
    @pytest.mark.parametrize(("heads", "stock_heads", "beta"), [(4, 2, 5.0), (1, 8, 0.3), (2, 1, None)])
    def test_is_what_the_equations_say(self, make_day, heads, stock_heads, beta):
        panel = make_day(stocks=9)
        backbone = built(num_heads=heads, num_stock_heads=stock_heads, beta=beta)
        with torch.no_grad():
            for parameter in backbone.parameters():
                parameter.mul_(1.5)  # so that attention is far from uniform
            expected = naive(backbone, panel, heads, stock_heads)
            torch.testing.assert_close(backbone(panel).double(), expected, atol=1e-5, rtol=1e-5)

    def test_stocks_see_each_other_on_every_day_of_the_window(self, make_day):
        panel = make_day()
        backbone = built()
        before = backbone(panel)
        for day in range(panel.features.shape[1]):
            features = panel.features.clone()
            features[0, day] += 1
            moved = (backbone(replace(panel, features=features)) - before).abs().sum(dim=1)
            assert (moved > 0).all()

    def test_makes_nothing_of_size_n_by_n(self, make_day):
        """In training too, where the gradient goes through it."""

        stocks, days, size = 500, 4, 8
        panel = replace(make_day(), features=torch.randn(stocks, days, 6))
        backbone = built().train()
        with Largest() as seen:
            backbone(panel).sum().backward()
        assert stocks * days * size <= seen.numel <= 3 * stocks * days * size < stocks**2

    def test_the_sizes_are_the_authors(self):
        backbone = MASTER(num_features=158, lookback_days=8, num_market=63)
        heads = backbone.over_days.num_heads, backbone.over_stocks.num_heads
        assert (backbone.out_features, heads, backbone.gate.beta) == (256, (4, 2), 5.0)
        assert backbone.over_days.dropout.p == backbone.over_stocks.dropout.p == 0.5

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"hidden_size": 0}, "`hidden_size` must be at least 1, found 0"),
            ({"hidden_size": 6}, r"`hidden_size` must be a multiple of `num_heads` \(4\), found 6"),
            ({"num_stock_heads": 3}, r"`hidden_size` must be a multiple of `num_stock_heads` \(3\), found 8"),
            ({"num_heads": 0}, "`num_heads` must be at least 1, found 0"),
            ({"dropout": 1.0}, r"`dropout` must lie in \[0, 1\), found 1.0"),
            ({"beta": 0}, "`beta` must be above 0, found 0"),
            ({"num_market": 0}, "a gate needs features of the market, found none: name `market_status`"),
        ],
    )
    def test_messages(self, kwargs, message):
        with pytest.raises(UserError, match=message):
            built(**kwargs)
