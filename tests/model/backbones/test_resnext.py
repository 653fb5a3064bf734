import math

import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.model.backbones.convolution import BatchNorm, TimePooling, normalization
from qlib_ext.model.backbones.resnext import ResNeXt

SMALL = {"hidden_size": 6, "cardinality": 2, "width": 4, "stem_channels": 4, "stem_days": 3}


def convolved(weight, states, groups, stride):
    """A grouped convolution `[C, T]` -> `[C', T']`, multiplied out one number at a time."""
    outputs, of_group, days = weight.shape
    reach = days // 2
    result = []
    for channel in range(outputs):
        group = channel // (outputs // groups)
        row = []
        for day in range(0, states.shape[1], stride):
            total = 0.0
            for i in range(of_group):
                for k in range(days):
                    at = day + k - reach
                    if 0 <= at < states.shape[1]:
                        total += float(weight[channel, i, k]) * float(states[group * of_group + i, at])
            row.append(total)
        result.append(row)
    return torch.tensor(result)


def layer(weights, name, states, groups=1, stride=1):
    """Convolution and batch normalisation by running statistics."""
    found = convolved(weights[f"{name}.0.weight"], states, groups, stride)
    mean, var, scale, shift = (
        weights[f"{name}.1.{part}"].unsqueeze(1) for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (found - mean) / (var + 1e-5).sqrt() * scale + shift


def naive(weights, window, stages, blocks, cardinality):
    """Embedding of one stock's window `[T, F]`, block by block (Xie et al., 2017, Figure 3(c))."""
    states = layer(weights, "stem", window.T).relu()
    for stage in range(stages):
        for block in range(blocks):
            name = f"blocks.{stage * blocks + block}"
            stride = 2 if stage > 0 and block == 0 else 1
            inner = layer(weights, f"{name}.narrow", states).relu()
            inner = layer(weights, f"{name}.grouped", inner, cardinality, stride).relu()
            widened = layer(weights, f"{name}.widen", inner)
            if f"{name}.shortcut.0.weight" in weights:
                states = layer(weights, f"{name}.shortcut", states, stride=stride)
            states = (widened + states).relu()
    return states  # [C, T']


def built(lookback_days=4, num_features=6, **kwargs):
    torch.manual_seed(0)
    return ResNeXt(num_features=num_features, lookback_days=lookback_days, **{**SMALL, **kwargs})


def spread(backbone):
    """Move weights and statistics away from where they begin, which would hide a part that is left out."""
    with torch.no_grad():
        for tensor in [*backbone.parameters(), *backbone.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape), alpha=0.3)
    return backbone.eval()


class TestEquations:
    @pytest.mark.parametrize(("stages", "blocks", "cardinality"), [(2, 2, 2), (3, 1, 1), (1, 1, 4)])
    def test_is_what_they_say_number_by_number(self, make_day, stages, blocks, cardinality):
        panel = make_day(stocks=3)
        backbone = spread(built(norm="batch", stages=stages, blocks=blocks, cardinality=cardinality))
        states = torch.stack(
            [
                naive(backbone.state_dict(), window, stages, blocks, cardinality)
                for window in panel.features.double()
            ]
        )
        assert states.shape[2] == math.ceil(4 / 2 ** (stages - 1))
        with torch.no_grad():
            torch.testing.assert_close(backbone(panel), states.mean(dim=2), atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("cardinality", [1, 2, 4])
    def test_channels_of_a_group_see_those_of_their_own_alone(self, cardinality):
        grouped = built(norm="batch", cardinality=cardinality).blocks[0].grouped.eval()
        states = torch.randn(1, 4, 5)
        before = grouped(states)
        states[:, 0] += 1.0
        changed = (grouped(states) != before).any(dim=2).squeeze(0)
        assert changed.tolist() == [channel < 4 // cardinality for channel in range(4)]

    def test_the_grouped_layer_has_so_many_times_fewer_weights(self):
        sizes = [
            built(width=8, cardinality=cardinality).blocks[0].grouped[0].weight.numel()
            for cardinality in (1, 2, 8)
        ]
        assert sizes == [8 * 8 * 3, 8 * 8 * 3 // 2, 8 * 8 * 3 // 8]

    @pytest.mark.parametrize(
        ("lookback_days", "stages", "expected"), [(60, 3, 15), (30, 3, 8), (5, 3, 2), (7, 1, 7), (60, 5, 4)]
    )
    def test_every_stage_but_the_first_halves_the_days(self, lookback_days, stages, expected):
        backbone = built(lookback_days=lookback_days, num_features=2, stages=stages).eval()
        states = backbone.blocks(backbone.stem(torch.randn(3, 2, lookback_days)))
        assert states.shape == (3, 6, expected)

    def test_defaults_are_the_papers(self):
        backbone = ResNeXt(num_features=20, lookback_days=30)
        assert backbone.stem[0].weight.shape == (64, 20, 7)
        assert [block.grouped[0].weight.shape for block in backbone.blocks] == [(128, 4, 3)] * 3
        assert [block.grouped[0].groups for block in backbone.blocks] == [32] * 3
        assert [block.narrow[0].out_channels for block in backbone.blocks] == [128] * 3
        assert backbone.out_features == 256


class TestPooling:
    @pytest.fixture
    def states(self):
        return torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0))

    def test_average_and_last(self, states):
        torch.testing.assert_close(TimePooling("average", 6)(states), states.sum(dim=2) / 5)
        assert torch.equal(TimePooling("last", 6)(states), states[:, :, 4])

    def test_attention_stock_by_stock(self, states):
        pooling = TimePooling("attention", 6)
        weights = {name.removeprefix("score."): x for name, x in pooling.state_dict().items()}
        found = pooling(states)
        for stock in range(4):
            scores = [
                float(
                    weights["2.weight"][0]
                    @ torch.tanh(weights["0.weight"] @ states[stock, :, day] + weights["0.bias"])
                )
                for day in range(5)
            ]
            total = sum(math.exp(score) for score in scores)
            expected = sum(math.exp(scores[day]) / total * states[stock, :, day] for day in range(5))
            torch.testing.assert_close(found[stock], expected)

    def test_attention_lies_between_the_days(self, states):
        found = TimePooling("attention", 6)(states)
        assert (found <= states.amax(dim=2)).all()
        assert (found >= states.amin(dim=2)).all()


class TestNorm:
    def test_of_a_group_looks_at_no_other_stock(self, make_day):
        panel = make_day()
        backbone = built(norm="group").train()
        before = backbone(panel)
        panel.features[0] += 1
        after = backbone(panel)
        assert not torch.allclose(after[0], before[0])
        torch.testing.assert_close(after[1:], before[1:])

    @pytest.mark.parametrize("training", [True, False])
    def test_of_a_batch_does_so_in_training_only(self, make_day, training):
        panel = make_day()
        backbone = built(norm="batch").train(training)
        before = backbone(panel)
        panel.features[0] += 1
        assert torch.allclose(backbone(panel)[1:], before[1:]) != training

    def test_of_a_batch_that_has_no_variance_takes_the_running_one(self):
        layer = BatchNorm(3)
        layer.running_mean[:] = torch.tensor([1.0, 2.0, 3.0])
        layer.running_var[:] = 4.0
        found = layer(torch.tensor([[[3.0], [2.0], [1.0]]]))
        torch.testing.assert_close(found.flatten(), torch.tensor([1.0, 0.0, -1.0]), atol=1e-5, rtol=1e-5)
        assert layer.num_batches_tracked == 0

    @pytest.mark.parametrize(
        ("channels", "expected"), [(256, 16), (64, 4), (32, 2), (16, 1), (24, 1), (8, 1), (2, 1)]
    )
    def test_of_a_group_takes_16_channels_together_where_they_can_be_divided_so(self, channels, expected):
        assert normalization("group", channels).num_groups == expected

    def test_of_a_group_is_the_same_in_training_and_in_evaluation(self, make_day):
        panel, backbone = make_day(), built(norm="group")
        assert torch.equal(backbone.train()(panel), backbone.eval()(panel))

    def test_of_a_group_keeps_what_sets_one_channel_apart_from_another(self):
        states = torch.arange(8.0).reshape(1, 8, 1)  # a window of one day
        found = normalization("group", 8)(states).flatten()
        torch.testing.assert_close(found, (states.flatten() - 3.5) / (5.25 + 1e-5) ** 0.5)

    def test_running_statistics_travel_with_the_weights(self, make_day):
        backbone, other = built(norm="batch"), built(norm="batch")
        for _ in range(3):
            backbone.train()(make_day())
        other.load_state_dict(backbone.state_dict())
        assert torch.equal(other.eval()(make_day()), backbone.eval()(make_day()))
        assert not torch.equal(built(norm="batch").eval()(make_day()), backbone(make_day()))


class TestSizes:
    @pytest.mark.parametrize(("lookback_days", "num_features"), [(4, 1), (20, 11), (61, 6), (250, 2)])
    def test_any_window_does(self, make_day, lookback_days, num_features):
        panel = make_day()
        object.__setattr__(panel, "features", torch.randn(len(panel), lookback_days, num_features))
        found = built(lookback_days=lookback_days, num_features=num_features)(panel)
        assert found.shape == (len(panel), 6)
        assert torch.isfinite(found).all()

    @pytest.mark.parametrize(("lookback_days", "stages", "needed"), [(3, 3, 4), (1, 2, 2), (60, 7, 64)])
    def test_one_that_is_too_short(self, lookback_days, stages, needed):
        with pytest.raises(
            UserError,
            match=rf"ResNeXt halves the window {stages - 1} times and needs a dataset with `lookback_days` of at least "
            rf"{needed}, found {lookback_days}: take longer windows, or fewer `stages`",
        ):
            built(lookback_days=lookback_days, stages=stages)
        built(lookback_days=needed, stages=stages)

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"width": 6, "cardinality": 4}, r"`width` must be a multiple of `cardinality` \(4\), found 6"),
            ({"cardinality": 0}, "`cardinality` must be at least 1, found 0"),
            ({"hidden_size": 1}, "`hidden_size` must be at least 2, found 1"),
            ({"stages": 0}, "`stages` must be at least 1, found 0"),
            ({"blocks": 0}, "`blocks` must be at least 1, found 0"),
            ({"stem_days": 4}, "`stem_days` must be odd, to have a day in the middle, found 4"),
            ({"pooling": "max"}, "`pooling` must be one of attention, average, last, found 'max'"),
            ({"norm": "layer"}, "`norm` must be one of batch, group, found 'layer'"),
            ({"dropout": 1.0}, r"`dropout` must lie in \[0, 1\), found 1.0"),
        ],
    )
    def test_messages(self, kwargs, message):
        with pytest.raises(UserError, match=message):
            built(**kwargs)


def test_dropout_acts_in_training_only(make_day):
    panel = make_day()
    backbone = built(dropout=0.5, norm="group")
    assert not torch.equal(backbone.train()(panel), backbone(panel))
    torch.testing.assert_close(backbone.eval()(panel), built(dropout=0.0, norm="group").train()(panel))


def test_learns_what_the_order_of_two_days_says():
    """A sign that only the last two days decide, found from random windows of twelve."""
    torch.manual_seed(0)
    backbone = built(lookback_days=12, num_features=2, hidden_size=16, width=16, cardinality=4)
    head = torch.nn.Linear(16, 1)
    optimizer = torch.optim.Adam([*backbone.parameters(), *head.parameters()], lr=1e-2)

    def day():
        features = torch.randn(96, 12, 2)
        return features, torch.sign(features[:, -1, 0] - features[:, -2, 0])

    def scores(features):
        return head(backbone.pooling(backbone.blocks(backbone.stem(features.transpose(1, 2)).relu())))

    for _ in range(60):
        features, target = day()
        optimizer.zero_grad()
        (scores(features).squeeze(1) - target).square().mean().backward()
        optimizer.step()
    backbone.eval()
    features, target = day()
    assert (scores(features).squeeze(1).sign() == target).float().mean() > 0.75
