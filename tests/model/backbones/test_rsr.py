import math
from dataclasses import replace

import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.model.backbones.rsr import RSR


def naive(weights, state, concepts, strength):
    """Embeddings from last hidden states, pair by pair, with the relation vector of every pair written out."""
    by_concept = weights["concept_weight"].expand(concepts.shape[1])
    w = torch.cat([by_concept, weights["self_weight"].reshape(1)])

    def leaky(x):
        return x if x > 0 else 0.2 * x

    embeddings = []
    for i, own in enumerate(state):
        strengths = {}
        for j, other in enumerate(state):
            relation = torch.cat([concepts[i] * concepts[j], torch.tensor([float(i == j)])])
            if relation.sum() == 0:
                continue
            kind = float(w @ relation + weights["bias"])
            if strength == "explicit":
                strengths[j] = float(own @ other) * leaky(kind)
            else:
                u, v = weights["end_weights"]
                strengths[j] = leaky(float(u @ own + v @ other) + kind)
        total = sum(math.exp(value) for value in strengths.values())
        average = sum(math.exp(value) / total * state[j] for j, value in strengths.items())
        embeddings.append(torch.cat([own, average]))
    return torch.stack(embeddings)


def built(**kwargs):
    torch.manual_seed(0)
    return RSR(num_features=6, lookback_days=4, **{"hidden_size": 5, **kwargs})


@pytest.mark.parametrize("rnn", ["LSTM", "GRU"])
@pytest.mark.parametrize("strength", ["explicit", "implicit"])
@pytest.mark.parametrize("num_concepts", [None, 5])
def test_is_what_the_equations_say(make_day, rnn, strength, num_concepts):
    panel = make_day()
    backbone = built(rnn=rnn, strength=strength, num_concepts=num_concepts)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if not name.startswith("rnn"):
                parameter.copy_(3 * torch.randn(parameter.shape))  # so that strengths differ, the bias too
            else:
                parameter.mul_(3)
        state = backbone.rnn(panel.features)[0][:, -1]
        expected = naive(backbone.state_dict(), state, panel.concepts, strength)
        torch.testing.assert_close(backbone(panel), expected, atol=1e-5, rtol=1e-5)
        assert (expected[:, 5:] - state).abs().max() > 0.01


def test_only_related_stocks_see_each_other(make_day):
    panel = make_day(stocks=6)
    panel = replace(panel, concepts=torch.zeros(len(panel), 2))
    panel.concepts[[0, 1], 0] = 1
    panel.concepts[[1, 2], 1] = 1
    backbone = built()
    before = backbone(panel)
    panel.features[0] += 1
    moved = (backbone(panel) - before).abs().sum(dim=1) > 0
    assert moved.tolist() == [True, True] + [False] * (len(panel) - 2)


def test_a_stock_without_a_relation_is_its_own(make_day):
    panel = make_day()
    assert panel.concepts[1].sum() == 0
    embedding = built()(panel)
    torch.testing.assert_close(embedding[1, :5], embedding[1, 5:])
    assert not torch.allclose(embedding[0, :5], embedding[0, 5:])


def test_a_weight_for_each_concept_only_where_their_number_is_known():
    assert built().concept_weight.shape == (1,)
    assert built(num_concepts=7).concept_weight.shape == (7,)
    assert not hasattr(built(), "end_weights")


def test_the_sizes():
    backbone = RSR(num_features=6, lookback_days=60)
    assert backbone.out_features == 256
    assert isinstance(backbone.rnn, torch.nn.LSTM)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"strength": "sum"}, "`strength` must be one of explicit, implicit, found 'sum'"),
        ({"num_concepts": 0}, "`num_concepts` must be at least 1, found 0"),
        ({"rnn": "RNN"}, "`rnn` must be one of GRU, LSTM, found 'RNN'"),
        ({"hidden_size": 0}, "`hidden_size` must be at least 1, found 0"),
    ],
)
def test_messages(kwargs, message):
    with pytest.raises(UserError, match=message):
        built(**kwargs)


def test_needs_concepts(make_day):
    with pytest.raises(
        UserError, match=r"RSR relates stocks by the concepts .* give it `concepts` .*, or take GATs"
    ):
        built()(make_day(concepts=None))


def test_and_as_many_as_it_was_made_for(make_day):
    with pytest.raises(
        UserError, match=r"`num_concepts` must be the number of the dataset's concepts \(5\), found 4"
    ):
        built(num_concepts=4)(make_day())
