import math
from dataclasses import replace

import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.model.backbones.hist import HIST, hidden_concepts, predefined_concepts


def cosine(x, y):
    return float(x @ y) / max(float(x.norm()) * float(y.norm()), 1e-12)


def leaky(x):
    return torch.where(x > 0, x, 0.01 * x)


def shared(weights, name, state, concepts):
    """Forecast and backcast of every stock, one by one."""

    def linear(layer, x):
        return weights[f"{name}.{layer}.weight"] @ x + weights[f"{name}.{layer}.bias"]

    if not concepts:
        return torch.zeros_like(state), torch.zeros_like(state)
    forecasts, backcasts = [], []
    for h in state:
        exponentials = [math.exp(cosine(h, e)) for e in concepts]
        mixed = linear(
            "mix", sum(p / sum(exponentials) * e for p, e in zip(exponentials, concepts, strict=True))
        )
        forecasts.append(leaky(linear("forecast", mixed)))
        backcasts.append(linear("backcast", mixed))
    return torch.stack(forecasts), torch.stack(backcasts)


def naive_predefined(state, concepts, market_value):
    found = []
    for k in range(concepts.shape[1]):
        members = [i for i in range(len(state)) if concepts[i, k] > 0]
        if members:
            total = sum(float(market_value[i]) for i in members)
            found.append(sum(float(market_value[i]) / total * state[i] for i in members))
    return found


def naive_hidden(residual):
    followers = {k: [] for k in range(len(residual))}
    for i, own in enumerate(residual):
        others = {k: cosine(own, residual[k]) for k in range(len(residual)) if k != i}
        if others and max(others.values()) > 0:
            followers[max(others, key=lambda k: others[k])].append(i)
    return [
        residual[k] + sum(cosine(residual[i], residual[k]) * residual[i] for i in members)
        for k, members in followers.items()
        if members
    ]


def naive(backbone, panel, correct=False):
    """Embeddings as the class says, stock by stock and concept by concept."""
    weights = backbone.state_dict()
    state = backbone.rnn(panel.features)[0][:, -1]
    market_value = torch.ones(len(state)) if panel.market_value is None else panel.market_value
    concepts = [] if panel.concepts is None else naive_predefined(state, panel.concepts, market_value)
    if correct:
        corrected = []
        for e in concepts:
            exponentials = [math.exp(float(h @ e)) for h in state]
            corrected.append(sum(p / sum(exponentials) * h for p, h in zip(exponentials, state, strict=True)))
        concepts = corrected
    forecast, backcast = shared(weights, "predefined", state, concepts)
    residual = state - backcast
    hidden_forecast, hidden_backcast = shared(weights, "hidden", residual, naive_hidden(residual))
    own = (residual - hidden_backcast) @ weights["individual.weight"].T + weights["individual.bias"]
    return forecast + hidden_forecast + leaky(own)


def built(**kwargs):
    torch.manual_seed(0)
    return HIST(num_features=6, lookback_days=4, **{"hidden_size": 5, **kwargs})


class TestHIST:
    @pytest.mark.parametrize("rnn", ["GRU", "LSTM"])
    @pytest.mark.parametrize("correct", [False, True])
    @pytest.mark.parametrize("missing", [(), ("market_value",), ("concepts",), ("concepts", "market_value")])
    def test_is_what_the_equations_say(self, make_day, rnn, correct, missing):
        panel = make_day(stocks=15, **dict.fromkeys(missing))
        backbone = built(rnn=rnn, correct_concepts=correct)
        with torch.no_grad():
            torch.testing.assert_close(backbone(panel), naive(backbone, panel, correct), atol=1e-5, rtol=1e-5)

    def test_every_part_counts(self, make_day):
        panel = make_day()
        backbone = built()
        whole = backbone(panel)
        without = [
            replace(panel, concepts=None),
            replace(panel, market_value=None),
            replace(panel, concepts=panel.concepts[:, :2]),
        ]
        for other in without:
            assert (backbone(other) - whole).abs().max() > 1e-5

    def test_market_values_count_in_proportion(self, make_day):
        panel = make_day()
        backbone = built()
        scaled = replace(panel, market_value=panel.market_value * 1e-9)
        torch.testing.assert_close(backbone(scaled), backbone(panel))

    @pytest.mark.parametrize("empty", [torch.zeros(12, 4), torch.zeros(12, 0)])
    def test_concepts_without_any_stock_are_as_none(self, make_day, empty):
        panel = make_day()
        backbone = built()
        expected = backbone(replace(panel, concepts=None))
        torch.testing.assert_close(backbone(replace(panel, concepts=empty[: len(panel)])), expected)

    def test_a_concept_without_a_stock_takes_no_part(self, make_day):
        panel = make_day()
        kept = panel.concepts.sum(dim=0) > 0
        assert 0 < kept.sum() < len(kept)
        backbone = built()
        torch.testing.assert_close(
            backbone(replace(panel, concepts=panel.concepts[:, kept])), backbone(panel)
        )

    def test_a_stock_without_a_concept_attends_to_them_all(self, make_day):
        panel = make_day()
        assert panel.concepts[1].sum() == 0
        features = panel.features.requires_grad_()
        backbone = built()
        with torch.no_grad():
            for parameter in backbone.hidden.parameters():
                parameter.zero_()
        backbone(panel)[1].sum().backward()
        assert features.grad[0].abs().sum() > 0

    def test_everything_after_the_recurrent_part_is_in_float32_under_autocast(self, make_day):
        panel = make_day()
        backbone = built(rnn="LSTM")
        seen = set()
        for module in (backbone.predefined, backbone.hidden, backbone.individual):
            module.register_forward_hook(lambda module, args, out: seen.add(args[0].dtype))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert backbone(panel).dtype == torch.float32
        assert seen == {torch.float32}

    def test_the_size_is_the_authors(self):
        backbone = HIST(num_features=6, lookback_days=4)
        assert (backbone.out_features, backbone.rnn.num_layers) == (128, 2)
        assert isinstance(backbone.rnn, torch.nn.GRU)
        assert not backbone.correct_concepts

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"hidden_size": 0}, "`hidden_size` must be at least 1, found 0"),
            ({"rnn": "RNN"}, "`rnn` must be one of GRU, LSTM, found 'RNN'"),
            ({"correct_concepts": "yes"}, "`correct_concepts` must be one of False, True, found 'yes'"),
        ],
    )
    def test_messages(self, kwargs, message):
        with pytest.raises(UserError, match=message):
            built(**kwargs)


class TestPredefinedConcepts:
    STATE = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0], [5.0, 5.0]])
    CONCEPTS = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])

    def test_means_weighted_by_market_value(self):
        found = predefined_concepts(self.STATE, self.CONCEPTS, torch.tensor([3.0, 1.0, 7.0, 9.0]))
        torch.testing.assert_close(found, torch.tensor([[0.75, 0.25], [4.0, 3.75]]))

    def test_all_alike_without_market_values(self):
        found = predefined_concepts(self.STATE, self.CONCEPTS, None)
        torch.testing.assert_close(found, torch.tensor([[0.5, 0.5], [3.0, 2.5]]))


class TestHiddenConcepts:
    @pytest.mark.parametrize("seed", range(5))
    def test_is_the_naive_one(self, seed):
        residual = torch.randn(20, 4, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(hidden_concepts(residual), torch.stack(naive_hidden(residual)))

    def test_by_hand(self):
        """0 and 1 are nearest to each other; 2 is nearest to 1; 3 points away from all."""
        residual = torch.tensor([[2.0, 0.0], [1.0, 0.0], [1.0, 1.0], [-1.0, -1.0]])
        half = math.sqrt(0.5)
        both = torch.tensor(
            [[3.0 + half / 2, half / 2], [3.0 + half / 2, half / 2]]
        )  # 2 is as near to 0 as to 1
        torch.testing.assert_close(hidden_concepts(residual), both)

    @pytest.mark.parametrize("residual", [torch.ones(1, 3), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])])
    def test_none_where_no_stock_has_a_neighbour(self, residual):
        assert hidden_concepts(residual).shape == (0, residual.shape[1])

    def test_equal_stocks_share_a_concept_whatever_their_order(self):
        residual = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [2.0, 1.0]])
        found = hidden_concepts(residual)
        assert len(found) == 3
        for order in ([3, 0, 1, 2], [1, 3, 2, 0]):
            torch.testing.assert_close(hidden_concepts(residual[order]), found)

    def test_a_vector_of_zeros(self):
        residual = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.1]], requires_grad=True)
        found = hidden_concepts(residual)
        found.sum().backward()
        assert len(found) == 2
        assert torch.isfinite(residual.grad).all()
