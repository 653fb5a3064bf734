"""CQB against the definition in plain numpy, against numbers worked out by hand, and against its laws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from qlib_ext.checks import UserError
from qlib_ext.model.balancers.cqb import CQB

TASKS = ("score", "momentum", "volume")


def sigmoid(x):
    return float(expit(x))


class Definition:
    """Converge-based Quad-Balancing, written down as the paper defines it, one list a quantity."""

    def __init__(
        self, k, beta=0.5, decay=1e-3, window=6, rule="power", rising="keep", beta_on=True, decay_on=True
    ):
        self.k, self.beta0, self.decay0, self.b = k, beta, decay, window
        self.rule, self.rising, self.beta_on, self.decay_on = rule, rising, beta_on, decay_on
        self.g_hat = [None] * k
        self.losses = {"train": [[] for _ in range(k)], "valid": [[] for _ in range(k)]}
        self.V = [1.0] * k

    @property
    def beta(self):
        if not self.beta_on:
            return [self.beta0] * self.k
        if self.rule == "power":
            return [self.beta0 ** sigmoid(v) for v in self.V]
        return [self.beta0 * sigmoid(v) for v in self.V]

    @property
    def weight_decay(self):
        return self.decay0 * sigmoid(-np.mean(self.V)) if self.decay_on else self.decay0

    def step(self, gradients):
        beta = self.beta
        for t, g in enumerate(gradients):
            first = self.g_hat[t] is None
            self.g_hat[t] = np.array(g) if first else beta[t] * self.g_hat[t] + (1 - beta[t]) * np.array(g)
        length = [np.sqrt(np.sum(g**2)) for g in self.g_hat]
        return max(length) * sum(g / n for g, n in zip(self.g_hat, length, strict=True))

    def epoch(self, train, valid):
        for segment, losses in (("train", train), ("valid", valid)):
            for t, loss in enumerate(losses):
                self.losses[segment][t].append(loss)
        n = len(self.losses["train"][0])  # the epoch that is about to begin
        if n < 2 * self.b:
            return
        for t in range(self.k):
            change = {}
            for segment, by_task in self.losses.items():
                L = by_task[t]
                change[segment] = L[n - 1] - np.mean([L[i] for i in range(n - 2 * self.b, n - self.b)])
            if change["train"] < 0 or (self.rising == "ratio" and change["train"] != 0):
                self.V[t] = change["valid"] / change["train"]


def started(k=2, **kwargs):
    balancer = CQB(**kwargs)
    balancer.setup(TASKS[:k])
    return balancer


def named(values):
    return dict(zip(TASKS, values, strict=False))


class TestDefinition:
    @given(
        seed=st.integers(0, 2**16),
        k=st.integers(1, 3),
        beta=st.floats(0.05, 0.95),
        window=st.integers(1, 3),
        rule=st.sampled_from(["power", "product"]),
        rising=st.sampled_from(["keep", "ratio"]),
        beta_on=st.booleans(),
        decay_on=st.booleans(),
    )
    def test_steps_and_epochs(self, seed, k, beta, window, rule, rising, beta_on, decay_on):
        draw = np.random.default_rng(seed)
        expected = Definition(k, beta, 2e-3, window, rule, rising, beta_on, decay_on)
        found = started(
            k,
            beta=beta,
            decay=2e-3,
            window=window,
            beta_rule=rule,
            rising_train=rising,
            balance_beta=beta_on,
            balance_decay=decay_on,
        )
        for _ in range(7):
            for _ in range(3):
                gradients = draw.normal(0, 10.0 ** draw.uniform(-3, 3, (k, 1)), (k, 5))
                step = found.aggregate(torch.from_numpy(gradients))
                np.testing.assert_allclose(step.numpy(), expected.step(gradients), rtol=1e-6, atol=1e-9)
            losses = draw.uniform(0.5, 1.5, (2, k))
            expected.epoch(*losses)
            found.end_epoch(named(losses[0]), named(losses[1]))
            report = found.report()
            for t, task in enumerate(TASKS[:k]):
                assert report[f"V/{task}"] == pytest.approx(expected.V[t], rel=1e-6)
                assert report[f"beta/{task}"] == pytest.approx(expected.beta[t], rel=1e-6)
            assert report["weight_decay"] == found.weight_decay
            assert found.weight_decay == pytest.approx(expected.weight_decay, rel=1e-6)

    def test_golden(self):
        balancer = started(window=1)
        for epoch in range(3):
            for batch in range(2):
                gradients = torch.arange(8.0).reshape(2, 4) + 16 * epoch + 8 * batch
                step = balancer.aggregate(torch.sin(gradients**2))
            balancer.end_epoch(
                {"score": 1.0 - 0.1 * epoch, "momentum": 1.3 - 0.05 * epoch},
                {"score": 1.0 - 0.02 * epoch, "momentum": 1.3 + 0.01 * epoch},
            )
        torch.testing.assert_close(step, torch.tensor(GOLDEN_STEP), atol=1e-6, rtol=1e-6)
        assert balancer.report() == pytest.approx(GOLDEN_REPORT, rel=1e-6)


GOLDEN_STEP = [-0.523841, 0.228866, -1.357047, -0.063352]
GOLDEN_REPORT = {
    "V/score": 0.2,
    "V/momentum": -0.2,
    "beta/score": 0.683098724,
    "beta/momentum": 0.731958621,
    "weight_decay": 5e-4,
}


class TestStepByHand:
    def test_both_tasks_are_brought_to_the_larger_norm(self):
        step = started().aggregate(torch.tensor([[3.0, 4.0], [0.0, 10.0]]))
        # norms 5 and 10: 10 * ((0.6, 0.8) + (0, 1))
        torch.testing.assert_close(step, torch.tensor([6.0, 18.0]))

    def test_the_average_starts_at_the_first_gradient_and_forgets_by_beta(self):
        balancer = started(balance_beta=False, beta=0.25)
        balancer.aggregate(torch.tensor([[8.0, 0.0], [0.0, 4.0]]))
        step = balancer.aggregate(torch.tensor([[0.0, 8.0], [0.0, -4.0]]))
        # score: 0.25 * (8, 0) + 0.75 * (0, 8) = (2, 6), norm sqrt(40); momentum: (0, 1 - 3) = (0, -2), norm 2
        expected = torch.tensor([2.0, 6.0 - math.sqrt(40)])
        torch.testing.assert_close(step, expected)

    def test_each_task_has_its_own_beta(self):
        balancer = started(window=1)
        balancer.end_epoch(named([1.0, 1.0]), named([1.0, 1.0]))
        balancer.end_epoch(named([0.9, 0.9]), named([0.7, 1.2]))  # V = 3 and -2
        beta = [0.5 ** sigmoid(3.0), 0.5 ** sigmoid(-2.0)]
        balancer.aggregate(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        balancer.aggregate(torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
        average = balancer.state()[0]["average"]
        torch.testing.assert_close(average, torch.tensor([[b, 1 - b] for b in beta]))

    def test_a_new_beta_rules_from_the_next_epoch(self):
        balancer = started(1, window=1)
        balancer.aggregate(torch.tensor([[1.0, 0.0]]))
        balancer.aggregate(torch.tensor([[0.0, 1.0]]))
        old = 0.5 ** sigmoid(1.0)
        balancer.end_epoch({"score": 1.0}, {"score": 1.0})
        balancer.end_epoch({"score": 0.5}, {"score": 2.0})  # V = -2
        new = 0.5 ** sigmoid(-2.0)
        found = balancer.aggregate(torch.tensor([[0.0, 0.0]]))
        torch.testing.assert_close(found, new * torch.tensor([old, 1 - old]))


class TestEpochsByHand:
    def test_v_is_1_until_2b_epochs_are_there(self):
        balancer = started(1)
        for epoch in range(11):
            balancer.end_epoch({"score": 1 - 0.01 * epoch}, {"score": 1 + 0.01 * epoch})
            assert balancer.report() == {
                "V/score": 1.0,
                "beta/score": pytest.approx(0.5**0.7310585786300049),
                "weight_decay": pytest.approx(1e-3 * 0.2689414213699951),
            }
        balancer.end_epoch({"score": 0.8}, {"score": 1.2})
        # train 0.8 - mean(1, .99, ..., .95) = -0.175; valid 1.2 - mean(1, ..., 1.05) = 0.175
        assert balancer.report() == {
            "V/score": pytest.approx(-1.0),
            "beta/score": pytest.approx(0.5**0.2689414213699951),
            "weight_decay": pytest.approx(1e-3 * 0.7310585786300049),
        }

    def test_the_window_moves_on(self):
        balancer = started(1, window=2)
        for train, valid in zip([9, 8, 7, 6, 5], [9, 8, 9, 6, 7], strict=True):
            balancer.end_epoch({"score": train}, {"score": valid})
        # 5 - mean(8, 7) = -2.5; 7 - mean(8, 9) = -1.5
        assert balancer.report()["V/score"] == pytest.approx(0.6)

    def test_overfitting_forgets_less_and_decays_more(self):
        reports = []
        for valid in (0.8, 0.9, 1.0, 1.1):  # from healthy to overfitting
            balancer = started(1, window=1)
            balancer.end_epoch({"score": 1.0}, {"score": 1.0})
            balancer.end_epoch({"score": 0.9}, {"score": valid})
            reports.append(balancer.report())
        assert np.all(np.diff([report["V/score"] for report in reports]) < 0)
        assert np.all(np.diff([report["beta/score"] for report in reports]) > 0)
        assert np.all(np.diff([report["weight_decay"] for report in reports]) > 0)

    @pytest.mark.parametrize(
        ("train", "rule", "expected"),
        [
            (1.2, "keep", 1.0),  # both rise: the ratio would read as healthy
            (1.2, "ratio", 2.0),
            (1.0, "keep", 1.0),  # no change: no ratio
            (1.0, "ratio", 1.0),
            (0.8, "keep", -2.0),
            (0.8, "ratio", -2.0),
        ],
    )
    def test_a_train_loss_that_rises(self, train, rule, expected):
        balancer = started(1, window=1, rising_train=rule)
        balancer.end_epoch({"score": 1.0}, {"score": 1.0})
        balancer.end_epoch({"score": train}, {"score": 1.4})
        assert balancer.report()["V/score"] == pytest.approx(expected)

    def test_keeps_the_v_before_and_not_1(self):
        balancer = started(1, window=1)
        for train, valid in [(1.0, 1.0), (0.5, 0.75), (0.6, 0.7)]:
            balancer.end_epoch({"score": train}, {"score": valid})
        assert balancer.report()["V/score"] == pytest.approx(0.5)

    def test_the_decay_takes_the_mean_of_v_over_tasks(self):
        balancer = started(3, window=1, decay=1e-2)
        balancer.end_epoch(named([1.0] * 3), named([1.0] * 3))
        balancer.end_epoch(named([0.9] * 3), named([0.8, 0.9, 1.3]))  # V = 2, 1, -3
        assert balancer.weight_decay == pytest.approx(0.5e-2)

    def test_a_v_out_of_all_bounds_stays_finite(self):
        balancer = started(1, window=1)
        balancer.end_epoch({"score": 1.0}, {"score": 1.0})
        for valid, beta, decay in [(2.0, 1.0, 1e-3), (0.5, 0.5, 0.0)]:
            balancer.end_epoch(
                {"score": balancer.state()[1]["history"]["train"]["score"][-1] - 1e-12}, {"score": valid}
            )
            assert abs(balancer.report()["V/score"]) > 1e9
            assert balancer.report()["beta/score"] == pytest.approx(beta)
            assert balancer.weight_decay == pytest.approx(decay)


class TestOptions:
    def run(self, **kwargs):
        balancer = started(window=1, **kwargs)
        balancer.end_epoch(named([1.0, 1.0]), named([1.0, 1.0]))
        balancer.end_epoch(named([0.9, 0.8]), named([1.1, 0.7]))  # V = -1 and 1.5
        return balancer.report()

    def test_product_is_algorithm_1_as_printed(self):
        report = self.run(beta_rule="product")
        assert report["beta/score"] == pytest.approx(0.5 * sigmoid(-1.0))
        assert report["beta/momentum"] == pytest.approx(0.5 * sigmoid(1.5))

    def test_without_balancing_of_beta(self):
        report = self.run(balance_beta=False)
        assert report["beta/score"] == report["beta/momentum"] == 0.5
        assert report["weight_decay"] == self.run()["weight_decay"]

    def test_without_balancing_of_the_decay(self):
        report = self.run(balance_decay=False)
        assert report["weight_decay"] == 1e-3
        assert report["beta/score"] == self.run()["beta/score"]
        assert started(balance_decay=False).weight_decay == 1e-3

    def test_the_decay_is_balanced_from_the_first_epoch(self):
        assert started().weight_decay == pytest.approx(1e-3 * sigmoid(-1.0))


class TestLaws:
    @pytest.mark.parametrize("factor", [1e-4, 0.1, 10.0, 1e4])
    def test_scaling_a_task_moves_the_length_and_not_the_direction(self, factor):
        generator = torch.Generator().manual_seed(0)
        plain, scaled = started(3), started(3)
        for _ in range(4):
            jacobian = torch.randn(3, 6, generator=generator, dtype=torch.float64)
            one = plain.aggregate(jacobian)
            other = scaled.aggregate(jacobian * torch.tensor([[factor], [1.0], [1.0]], dtype=torch.float64))
        torch.testing.assert_close(other / other.norm(), one / one.norm())
        largest = [x.state()[0]["average"].norm(dim=1).max() for x in (plain, scaled)]
        torch.testing.assert_close(other / largest[1], one / largest[0])

    def test_every_task_has_the_same_share_of_the_step(self):
        jacobian = torch.diag(torch.tensor([1e-3, 1.0, 50.0]))
        torch.testing.assert_close(started(3).aggregate(jacobian), torch.full((3,), 50.0))

    def test_the_logarithm_takes_the_scale_out_of_a_loss(self):
        x = torch.tensor([0.3, 2.0], dtype=torch.float64, requires_grad=True)
        slopes = [
            torch.autograd.grad(started().transform(scale * x.square()).sum(), x)[0] for scale in (1, 1e3)
        ]
        torch.testing.assert_close(slopes[0], slopes[1])
        torch.testing.assert_close(slopes[0], 2 / x.detach(), rtol=1e-6, atol=0)

    def test_a_loss_of_0_has_a_finite_logarithm(self):
        losses = torch.zeros(2, requires_grad=True)
        transformed = started().transform(losses)
        torch.testing.assert_close(transformed, torch.full((2,), math.log(1e-8)))

    def test_one_task_alone_moves_by_its_average(self):
        balancer = started(1)
        jacobian = torch.randn(1, 5)
        assert torch.equal(balancer.aggregate(jacobian), jacobian[0])

    def test_a_task_without_a_gradient_adds_nothing(self):
        jacobian = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
        torch.testing.assert_close(started().aggregate(jacobian), torch.tensor([3.0, 4.0]))

    def test_and_comes_back_with_its_first_one(self):
        balancer = started(balance_beta=False)
        balancer.aggregate(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        step = balancer.aggregate(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
        torch.testing.assert_close(step, torch.tensor([3.0, 4.0 + 5.0]))

    def test_no_gradient_at_all_is_no_step(self):
        assert started().aggregate(torch.zeros(2, 3)).tolist() == [0.0, 0.0, 0.0]


class TestArguments:
    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"beta": 0}, r"`beta` must lie in \(0, 1\), found 0"),
            ({"beta": 1.0}, r"`beta` must lie in \(0, 1\), found 1.0"),
            ({"decay": -1e-3}, "`decay` must be at least 0, found -0.001"),
            ({"window": 0}, "`window` must be at least 1, found 0"),
            ({"window": 1.5}, "`window` must be an integer, found 1.5"),
            (
                {"beta_rule": "powers"},
                r"`beta_rule` must be one of power, product, found 'powers' .did you mean",
            ),
            ({"rising_train": "drop"}, "`rising_train` must be one of keep, ratio, found 'drop'"),
            ({"balance_beta": 1}, "`balance_beta` must be a bool, found int: 1"),
            ({"balance_decay": "no"}, "`balance_decay` must be a bool, found str: 'no'"),
        ],
    )
    def test_messages(self, kwargs, message):
        with pytest.raises(UserError, match=message):
            CQB(**kwargs)

    def test_defaults_are_the_papers(self):
        balancer = CQB()
        assert (balancer.beta, balancer.decay, balancer.window) == (0.5, 1e-3, 6)
        assert (balancer.beta_rule, balancer.rising_train) == ("power", "keep")
