import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import leaky_relu

from qlib_ext.checks import UserError
from qlib_ext.model.backbones.gats import GATs, attend
from tests.model.backbones.largest import Largest


def dense(values, receiver, sender, slope):
    """The same average from the whole matrix of scores, in float64."""
    scores = leaky_relu(receiver.unsqueeze(1) + sender.unsqueeze(0), slope)
    return scores.softmax(dim=1) @ values


def naive(weights, state, slope):
    """Embeddings from last hidden states, pair by pair, as the equations stand."""

    def leaky(x):
        return x if x > 0 else slope * x

    transformed = [weights["transform.weight"] @ h + weights["transform.bias"] for h in state]
    embeddings = []
    for i, own in enumerate(state):
        exponentials = [
            math.exp(leaky(float(weights["attention"][0] @ torch.cat([transformed[i], other]))))
            for other in transformed
        ]
        context = sum(p / sum(exponentials) * h for p, h in zip(exponentials, state, strict=True))
        out = weights["output.weight"] @ (context + own) + weights["output.bias"]
        embeddings.append(torch.stack([leaky(x) for x in out]))
    return torch.stack(embeddings)


def arguments(n, size=3, scale=1.0, seed=0):
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(n, size, generator=draw)
    return values, *(torch.randn(2, n, generator=draw) * scale)


def compare(values, receiver, sender, slope=0.01, atol=1e-6, rtol=1e-5):
    """Forward and gradients of `attend` in float32 against the dense form in float64."""
    given_ = [x.clone().requires_grad_() for x in (values, receiver, sender)]
    exact = [x.double().requires_grad_() for x in (values, receiver, sender)]
    found, expected = attend(*given_, slope), dense(*exact, slope)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=atol, rtol=rtol)
    pull = torch.linspace(-1, 1, values.numel()).view_as(values)
    (found * pull).sum().backward()
    (expected * pull).sum().backward()
    for one, other in zip(given_, exact, strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, atol=atol, rtol=rtol)


class TestAttend:
    @pytest.mark.parametrize("n", [1, 2, 3, 50, 400])
    @pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 10.0])
    def test_is_the_dense_average(self, n, scale):
        compare(*arguments(n, scale=scale))

    @pytest.mark.parametrize("scale", [1e3, 1e6, 1e20])
    def test_scores_of_any_size(self, scale):
        compare(*arguments(60, scale=scale))

    def test_scores_of_one_sign(self):
        values, receiver, sender = arguments(30)
        for offset in (-1e4, -50.0, 50.0, 1e4):
            compare(values, receiver + offset, sender)
            compare(values, receiver, sender + offset)

    def test_one_stock_that_all_others_look_at(self):
        values, receiver, sender = arguments(30)
        sender[7] = 500.0
        compare(values, receiver, sender)
        compare(values, receiver - 1000, sender)

    @given(
        st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=12),
        st.sampled_from([0.0, 0.01, 0.2, 1.0]),
    )
    def test_ties_and_scores_of_0(self, scores, slope):
        """At a score of exactly 0 too, where LeakyReLU has no derivative, the gradient is torch's."""
        receiver, sender = torch.tensor(scores, dtype=torch.float32).unbind(1)
        values = torch.randn(len(scores), 2, generator=torch.Generator().manual_seed(0))
        compare(values, receiver, sender, slope)

    def test_gradients_by_differences(self):
        values, receiver, sender = (x.double().requires_grad_() for x in arguments(9))
        assert torch.autograd.gradcheck(lambda *x: attend(*x, 0.01), (values, receiver, sender))

    def test_closer_to_the_truth_than_the_dense_form_in_float32(self):
        given_ = arguments(1500, size=8, scale=3.0)
        truth = dense(*(x.double() for x in given_), 0.01)
        error = (attend(*given_, 0.01) - truth).abs().max()
        assert error < 1e-7
        assert error <= (dense(*given_, 0.01) - truth).abs().max()

    @pytest.mark.parametrize("spoilt", [0, 2])
    def test_a_nan_is_not_hidden(self, spoilt):
        given_ = [x.clone() for x in arguments(5)]
        given_[spoilt][3] = math.nan
        assert attend(*given_, 0.01).isnan().all()
        assert dense(*given_, 0.01).isnan().all()

    def test_a_nan_of_a_receiver_is_its_own(self):
        values, receiver, sender = arguments(5)
        receiver[3] = math.nan
        assert attend(values, receiver, sender, 0.01).isnan().any(dim=1).tolist() == [False] * 3 + [
            True,
            False,
        ]

    def test_weights_are_an_average(self):
        values, receiver, sender = arguments(40, scale=4.0)
        found = attend(values, receiver, sender, 0.01)
        assert (found <= values.amax(dim=0) + 1e-6).all()
        assert (found >= values.amin(dim=0) - 1e-6).all()
        ones = attend(torch.ones(40, 1), receiver, sender, 0.01)
        torch.testing.assert_close(ones, torch.ones(40, 1))

    def test_makes_nothing_of_size_n_by_n(self):
        n, size = 1000, 4
        given_ = [x.requires_grad_() for x in arguments(n, size)]
        with Largest() as seen:
            attend(*given_, 0.01).sum().backward()
        assert n * size < seen.numel <= 2 * (n + 1) * (size + 1)


def built(**kwargs):
    torch.manual_seed(0)
    return GATs(num_features=6, lookback_days=4, **{"hidden_size": 5, **kwargs})


class TestGATs:
    @pytest.mark.parametrize("rnn", ["GRU", "LSTM"])
    @pytest.mark.parametrize("slope", [0.01, 0.2])
    def test_is_what_the_equations_say(self, make_day, rnn, slope):
        panel = make_day(stocks=15)
        backbone = built(rnn=rnn, negative_slope=slope)
        with torch.no_grad():
            backbone.attention.mul_(20)  # so that attention is far from uniform
            state = backbone.rnn(panel.features)[0][:, -1]
            expected = naive(backbone.state_dict(), state, slope)
            torch.testing.assert_close(backbone(panel), expected, atol=1e-6, rtol=1e-5)

    def test_stocks_see_each_other(self, make_day):
        panel = make_day()
        backbone = built()
        before = backbone(panel)
        panel.features[0] += 1
        assert ((backbone(panel) - before).abs().sum(dim=1) > 0).all()

    def test_attends_to_a_stock_that_is_alone_on_its_day(self, make_day):
        panel = make_day()
        for name in ("features", "instruments"):
            object.__setattr__(panel, name, getattr(panel, name)[:1])
        backbone = built()
        state = backbone.rnn(panel.features)[0][:, -1]
        torch.testing.assert_close(backbone(panel), leaky_relu(backbone.output(2 * state), 0.01))

    def test_the_attention_layer_is_in_float32_under_autocast(self, make_day):
        panel = make_day()
        backbone = built(rnn="LSTM")
        seen = []
        backbone.transform.register_forward_hook(
            lambda module, args, out: seen.append((args[0].dtype, out.dtype))
        )
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert backbone(panel).dtype == torch.float32
        assert seen == [(torch.float32, torch.float32)]

    def test_the_size_is_the_authors(self):
        backbone = GATs(num_features=6, lookback_days=4)
        assert (backbone.out_features, backbone.rnn.num_layers) == (128, 2)
        assert isinstance(backbone.rnn, torch.nn.GRU)

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"hidden_size": 0}, "`hidden_size` must be at least 1, found 0"),
            ({"rnn": "RNN"}, "`rnn` must be one of GRU, LSTM, found 'RNN'"),
            ({"negative_slope": -0.1}, r"`negative_slope` must lie in \[0, 1\], found -0.1"),
            ({"num_layers": 1.5}, "`num_layers` must be an integer, found 1.5"),
        ],
    )
    def test_messages(self, kwargs, message):
        with pytest.raises(UserError, match=message):
            built(**kwargs)
