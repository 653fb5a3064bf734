import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.model.heads.linear import LinearHead
from qlib_ext.model.heads.mlp import MLPHead

HEADS = [LinearHead, MLPHead]


@pytest.mark.parametrize("head", HEADS)
class TestHead:
    @pytest.mark.parametrize(("out", "shape"), [(1, (7,)), (2, (7, 2)), (5, (7, 5))])
    def test_shapes(self, head, out, shape):
        assert head(3, out)(torch.zeros(7, 3)).shape == shape

    def test_shows_the_call_that_makes_it_again(self, head, rebuild):
        module, day = head(3, 5), torch.randn(4, 3)
        again = rebuild(module)
        again.load_state_dict(module.state_dict())
        assert torch.equal(again(day), module(day))

    def test_one_stock_keeps_its_dimension(self, head):
        assert head(3, 1)(torch.zeros(1, 3)).shape == (1,)

    def test_each_stock_stands_alone(self, head):
        torch.manual_seed(0)
        module, day, order = head(3, 5), torch.randn(9, 3), torch.randperm(9)
        torch.testing.assert_close(module(day)[order], module(day[order]))

    def test_every_parameter_learns(self, head):
        torch.manual_seed(0)
        module = head(3, 5)
        module(torch.randn(50, 3)).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())

    @pytest.mark.parametrize("sizes", [(0, 1), (3, 0), (3, 2.0)])
    def test_sizes_are_checked(self, head, sizes):
        with pytest.raises(UserError, match="_features` must be"):
            head(*sizes)


class TestLinearHead:
    def test_golden(self):
        head = LinearHead(2, 1)
        with torch.no_grad():
            head.linear.weight.copy_(torch.tensor([[2.0, -1.0]]))
            head.linear.bias.fill_(0.5)
        assert head(torch.tensor([[1.0, 3.0], [2.0, 0.0]])).tolist() == [-0.5, 4.5]


class TestMLPHead:
    def test_golden(self):
        head = MLPHead(1, 1, hidden_size=2)
        with torch.no_grad():
            first, last = head.layers[0], head.layers[3]
            first.weight.copy_(torch.tensor([[1.0], [-1.0]]))
            first.bias.zero_()
            last.weight.copy_(torch.tensor([[3.0, 5.0]]))
            last.bias.fill_(1.0)
        assert head(torch.tensor([[2.0], [-2.0]])).tolist() == [7.0, 11.0]  # 3 relu(x) + 5 relu(-x) + 1

    def test_dropout_acts_in_training_only(self):
        torch.manual_seed(0)
        head, day = MLPHead(3, 2, hidden_size=32, dropout=0.5), torch.randn(4, 3)
        assert not torch.equal(head(day), head(day))
        head.eval()
        assert torch.equal(head(day), head(day))

    @pytest.mark.parametrize("dropout", [-0.1, 1.0])
    def test_dropout_is_checked(self, dropout):
        with pytest.raises(UserError, match=r"`dropout` must lie in \[0, 1\), found"):
            MLPHead(3, 2, dropout=dropout)

    def test_hidden_size_is_checked(self):
        with pytest.raises(UserError, match="`hidden_size` must be at least 1, found 0"):
            MLPHead(3, 2, hidden_size=0)
