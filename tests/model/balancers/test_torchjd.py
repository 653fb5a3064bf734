"""TorchJD's methods through the adapter: as TorchJD gives them, through a training, and resumed."""

import copy
import importlib.util
import json
import math

import pytest
import torch
from torchjd import aggregation, scalarization

from qlib_ext.checks import UserError
from qlib_ext.config.build import build
from qlib_ext.data.panel import DailyPanels
from qlib_ext.model.balancers.base import Balancer
from qlib_ext.model.balancers.equal import EqualWeighting
from qlib_ext.model.balancers.torchjd import TorchJDAggregator, TorchJDScalarizer
from qlib_ext.model.checkpoint import CheckpointFolder
from qlib_ext.model.losses.cross_entropy import CrossEntropy
from qlib_ext.model.losses.mse import MSE
from qlib_ext.model.multi_task import MultiTaskModel
from qlib_ext.model.network import MultiTaskNetwork
from qlib_ext.model.options import TrainerOptions
from qlib_ext.model.task import Task
from qlib_ext.model.trainer import Trainer

TASKS = ("score", "momentum", "rise")
UPGRAD = {"class": "torchjd.aggregation.UPGradWeighting"}
# What the constructors of TorchJD ask for.
KWARGS = {
    "CAGrad": {"c": 0.4},
    "COSMOS": {"lambda_": 1.0, "weights": [1.0, 2.0, 3.0]},
    "Constant": {"weights": [1.0, 2.0, 3.0]},
    "FairGrad": {"alpha": 1.0},
    "GramianWeightedAggregator": {
        "gramian_weighting": {"class": "torchjd.aggregation.CRMOGMWeighting", "kwargs": {"weighting": UPGRAD}}
    },
    "Krum": {"n_byzantine": 0},
    "NashMTL": {"optim_niter": 3, "update_weights_every": 4},
    "PBI": {"theta": 1.0, "weights": [1.0, 2.0, 3.0]},
    "STCH": {"mu": 0.1},
    "TrimmedMean": {"trim_number": 1},
    "WeightedAggregator": {"weighting": {"class": "torchjd.aggregation.ExcessMTLWeighting"}},
}
METHODS = [
    f"{family.__name__}.{name}"
    for family in (aggregation, scalarization)
    for name in family.__all__
    if name not in ("Aggregator", "Scalarizer") and not name.endswith("Weighting")
]
# Methods that hold something between steps.
STATEFUL = [
    "torchjd.aggregation.NashMTL",
    "torchjd.aggregation.GradVac",
    "torchjd.aggregation.PCD",
    "torchjd.scalarization.UW",
    "torchjd.scalarization.IMTLL",
    "torchjd.scalarization.DWA",
    "torchjd.scalarization.FAMO",
]
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def method(path, **kwargs):
    return {"class": path, "kwargs": {**KWARGS.get(path.rpartition(".")[2], {}), **kwargs}}


def made(path, learning_rate=0.1, **kwargs):
    if "scalarization" in path:
        return TorchJDScalarizer(method(path, **kwargs), learning_rate=learning_rate)
    return TorchJDAggregator(method(path, **kwargs))


def started(path, k=3, learning_rate=0.1, **kwargs):
    balancer = made(path, learning_rate, **kwargs)
    balancer.setup(TASKS[:k])
    return balancer


def run(balancer, seed, device="cpu", epochs=3, steps=2):
    """Shared gradients of a little training."""
    torch.manual_seed(seed)
    found = []
    for _ in range(epochs):
        for _ in range(steps):
            losses, jacobian = 0.1 + torch.rand(3), torch.randn(3, 7)
            losses, jacobian = losses.to(device), jacobian.to(device)
            if isinstance(balancer, TorchJDAggregator):
                found.append(balancer.aggregate(jacobian))
            else:
                found.append(balancer.weights(losses) @ jacobian)
            balancer.end_step(lambda losses=losses: losses * (0.7 + 0.2 * losses))
        balancer.end_epoch(dict.fromkeys(TASKS, 1.0), dict.fromkeys(TASKS, 1.0))
    return torch.stack(found).cpu()


@pytest.mark.filterwarnings("ignore::UserWarning:torchjd", "ignore::RuntimeWarning:cvxpy")
class TestEveryMethod:
    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("path", METHODS)
    def test_gives_a_gradient_and_resumes_bit_for_bit(self, path, device):
        straight = started(path)
        run(straight, 0, device)
        tensors, values = straight.state()
        tensors, text = {name: x.to(device, copy=True) for name, x in tensors.items()}, json.dumps(values)
        expected = run(straight, 1, device)
        assert expected.shape == (6, 7)
        assert torch.isfinite(expected).all()

        resumed = started(path)
        resumed.load_state(tensors, json.loads(text))
        assert resumed.report() == started_report(text)
        assert torch.equal(run(resumed, 1, device), expected)
        assert resumed.report() == straight.report()

    @pytest.mark.parametrize("path", STATEFUL)
    def test_what_is_kept_is_needed(self, path):
        """Else the test above would show nothing."""
        straight, fresh = started(path), started(path)
        run(straight, 0)
        assert not torch.equal(run(straight, 1), run(fresh, 1))


def started_report(text):
    weights = {f"weight/{task}": weight for task, weight in json.loads(text).get("weights", {}).items()}
    return {**weights, "weight_decay": 0.0}


class TestAggregators:
    @pytest.mark.parametrize(
        "path", [path for path in METHODS if "aggregation" in path and not path.endswith("Aggregator")]
    )
    @pytest.mark.filterwarnings("ignore::UserWarning:torchjd")
    def test_is_torchjds_own(self, path):
        name = path.rpartition(".")[2]
        kwargs = {k: torch.tensor(v) if isinstance(v, list) else v for k, v in KWARGS.get(name, {}).items()}
        if name == "NashMTL":
            kwargs["n_tasks"] = 3
        jacobian = torch.randn(3, 9, generator=torch.Generator().manual_seed(0))
        balancer = started(path)
        torch.manual_seed(0)
        expected = getattr(aggregation, name)(**kwargs)(jacobian)
        torch.manual_seed(0)
        assert torch.equal(balancer.aggregate(jacobian), expected)

    @pytest.mark.parametrize("seed", range(3))
    def test_upgrad_conflicts_with_no_task(self, seed):
        jacobian = torch.randn(3, 9, generator=torch.Generator().manual_seed(seed))
        jacobian[1] = -jacobian[0] + 0.5 * jacobian[1]
        assert (jacobian @ started("torchjd.aggregation.UPGrad").aggregate(jacobian) > -1e-4).all()

    def test_imtl_g_has_the_same_projection_on_every_task(self):
        jacobian = torch.randn(3, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        step = started("torchjd.aggregation.IMTLG").aggregate(jacobian)
        projections = jacobian @ step / jacobian.norm(dim=1)
        torch.testing.assert_close(projections, projections[:1].expand(3))

    def test_a_list_is_a_number_a_task(self):
        jacobian = torch.eye(3)
        step = started("torchjd.aggregation.UPGrad", pref_vector=[1, 0, 2]).aggregate(jacobian)
        torch.testing.assert_close(step, torch.tensor([1.0, 0.0, 2.0]))

    def test_a_gradient_that_is_not_finite_is_named(self):
        with pytest.raises(
            FloatingPointError, match=r"torchjd.aggregation.Sum gives a gradient that is not finite"
        ):
            started("torchjd.aggregation.Sum").aggregate(torch.full((3, 2), math.inf))


class TestScalarizers:
    @pytest.mark.parametrize("path", [path for path in METHODS if "scalarization" in path])
    def test_the_weights_are_its_slopes(self, path):
        balancer = started(path)
        kwargs = {
            k: torch.tensor(v) if isinstance(v, list) else v for k, v in balancer.method["kwargs"].items()
        }
        name = path.rpartition(".")[2]
        if name in ("UW", "FAMO", "IMTLL"):
            kwargs["shape"] = 3
        losses = torch.tensor([0.3, 1.2, 0.7], requires_grad=True)
        torch.manual_seed(0)
        (expected,) = torch.autograd.grad(getattr(scalarization, name)(**kwargs)(losses), losses)
        torch.manual_seed(0)
        assert torch.equal(balancer.weights(losses), expected)

    def test_sum_is_equal_weighting(self):
        losses = torch.rand(3)
        equal = EqualWeighting()
        equal.setup(["a", "b", "c"])
        assert torch.equal(started("torchjd.scalarization.Sum").weights(losses), equal.weights(losses))

    def test_uw_learns_its_uncertainties_by_adam(self):
        balancer = started("torchjd.scalarization.UW", learning_rate=0.05)
        log_var = torch.zeros(3, requires_grad=True)
        adam = torch.optim.Adam([log_var], lr=0.05)
        for step in range(5):
            losses = torch.tensor([0.3, 1.2, 0.7]) + 0.1 * step
            torch.testing.assert_close(balancer.weights(losses), (0.5 * (-log_var).exp()).detach())
            adam.zero_grad()
            (0.5 * (-log_var).exp() * losses + 0.5 * log_var).sum().backward()
            adam.step()

    def test_dwa_weighs_by_the_descent_over_epochs(self):
        balancer = started("torchjd.scalarization.DWA")
        for losses in ([1.0, 2.0, 3.0], [0.5, 2.0, 2.4]):
            assert balancer.weights(torch.tensor(losses)).tolist() == [1, 1, 1]
            balancer.end_epoch({}, {})
        rates = torch.tensor([0.5, 1.0, 0.8])
        expected = 3 * torch.softmax(rates / 2, dim=0)
        torch.testing.assert_close(balancer.weights(torch.ones(3)), expected)

    def test_famo_moves_weight_to_the_task_that_falls_behind(self):
        balancer = started("torchjd.scalarization.FAMO")
        losses = torch.tensor([1.0, 1.0, 1.0])
        before = balancer.weights(losses)
        torch.testing.assert_close(before, torch.full((3,), 1 / 3))
        balancer.end_step(lambda: torch.tensor([0.5, 0.9, 1.1]))
        after = balancer.weights(losses)
        assert after[0] < after[1]
        assert after[2] > before[2]

    def test_reports_the_mean_weights_of_the_epoch_before(self):
        balancer = started("torchjd.scalarization.Constant")
        assert balancer.report() == {"weight_decay": 0.0}
        run(balancer, 0, epochs=1)
        assert balancer.report() == {
            "weight/score": 1.0,
            "weight/momentum": 2.0,
            "weight/rise": 3.0,
            "weight_decay": 0.0,
        }

    def test_a_weight_that_is_not_finite_is_named(self):
        with pytest.raises(
            FloatingPointError, match=r"GeometricMean gives a weight that is not finite: .* a loss of 0"
        ):
            started("torchjd.scalarization.GeometricMean").weights(torch.tensor([0.0, 1.0, 1.0]))


def trainer(path, n_epochs=3, device="cpu"):
    torch.manual_seed(0)
    tasks = [Task("score", "RETURN", MSE()), Task("momentum", "MOMENTUM", CrossEntropy(), classes=5)]
    backbone = {
        "class": "qlib_ext.model.backbones.lstm.LSTM",
        "kwargs": {"hidden_size": 3, "dropout": 0.5},
    }
    network = MultiTaskNetwork(backbone, tasks, num_features=6, lookback_days=4)
    balancer = made(path, learning_rate=0.01)
    options = TrainerOptions(n_epochs=n_epochs, learning_rate=1e-2)
    return Trainer(network, tasks, balancer, options, seed=0, device=torch.device(device))


@pytest.mark.filterwarnings("ignore::UserWarning:torchjd", "ignore::RuntimeWarning:cvxpy")
@pytest.mark.parametrize("device", DEVICES)
class TestInTraining:
    @pytest.fixture
    def segments(self, make_panels, device) -> tuple[DailyPanels, DailyPanels]:
        return make_panels(days=4, device=device), make_panels(days=2, seed=1, device=device)

    def test_nash_mtl_resumes_bit_for_bit(self, segments, tmp_path, device):
        """As the laws ask of the others; its solver is too slow to be among them."""
        path = "torchjd.aggregation.NashMTL"
        straight, resumed = trainer(path, device=device), trainer(path, device=device)
        straight.fit(*segments)
        folder = CheckpointFolder(tmp_path, {})
        trainer(path, n_epochs=2, device=device).fit(*segments, folder=folder)
        torch.rand(17)  # whatever came in between
        resumed.fit(*segments, folder=folder, resume=True)
        for name, tensor in straight.network.state_dict().items():
            assert torch.equal(resumed.network.state_dict()[name], tensor), name

    def test_a_scalarizer_moves_the_network_as_its_own_derivative_does(self, segments, device):
        by_weights = trainer("torchjd.scalarization.GeometricMean", device=device)
        naive = copy.deepcopy(by_weights.network)
        by_weights.network.eval()  # no dropout
        naive.eval()
        panel = segments[0][3]
        by_weights._step(segments[0], 3)
        predictions = naive(panel)
        losses = [task.daily_loss(predictions[task.name], panel) for task in by_weights.tasks]
        torch.sqrt(losses[0] * losses[1]).backward()
        for name, parameter in by_weights.network.named_parameters():
            torch.testing.assert_close(parameter.grad, naive.get_parameter(name).grad)

    def test_famo_sees_the_same_day_after_the_step(self, segments, device):
        training = trainer("torchjd.scalarization.FAMO", device=device)
        training.network.eval()
        seen = []
        training.balancer.end_step = lambda losses_after: seen.append(losses_after())
        training._step(segments[0], 3)
        panel = segments[0][3]
        predictions = training.network(panel)
        for found, task in zip(seen[0], training.tasks, strict=True):
            torch.testing.assert_close(found, task.daily_loss(predictions[task.name], panel))
        assert not seen[0].requires_grad


class TestMessages:
    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ("torchjd.aggregation.UPGrad", "`method` must be a mapping with `class`"),
            ({}, "`method` must be a mapping with `class`"),
            ({"class": "torchjd.aggregation.UPGard"}, "names no class: `UPGard` .* .did you mean UPGrad"),
            (
                {"class": "torch.nn.Linear"},
                "`method.class` of TorchJDAggregator must be a torchjd.aggregation.Aggregator",
            ),
            (
                {"class": "torchjd.scalarization.UW"},
                "found torchjd.scalarization.UW: .* TorchJDScalarizer a Scalarizer",
            ),
            (UPGRAD, "found torchjd.aggregation.UPGradWeighting: .*; a Weighting goes into"),
        ],
    )
    def test_of_the_constructor(self, config, message):
        with pytest.raises(UserError, match=message):
            TorchJDAggregator(config)

    def test_of_the_name_that_stood_for_both(self):
        config = {"class": "qlib_ext.model.balancers.torchjd.TorchJD", "kwargs": {"method": UPGRAD}}
        with pytest.raises(UserError, match="on which TorchJDAggregator and TorchJDScalarizer are founded"):
            build(config, Balancer, name="balancer")

    def test_of_a_scalarizer(self):
        with pytest.raises(
            UserError, match=r"`method\.class` of TorchJDScalarizer must be a torchjd\.scalarization"
        ):
            TorchJDScalarizer({"class": "torchjd.aggregation.UPGrad"})

    @pytest.mark.parametrize(
        ("path", "kwargs", "message"),
        [
            ("torchjd.aggregation.MGDA", {"eps": 1}, "`method.kwargs` has no place for `eps`"),
            ("torchjd.aggregation.CAGrad", {"c": -1.0}, "does not work with 2 tasks: c must be non-negative"),
            ("torchjd.aggregation.Krum", {}, "Krum does not work with 2 tasks: .* at least 3 rows"),
            ("torchjd.aggregation.UPGrad", {"pref_vector": [1.0, 2.0, 3.0]}, "does not work with 2 tasks"),
            (
                "torchjd.aggregation.UPGrad",
                {"pref_vector": ["a", "b"]},
                r"a list in `method.kwargs` must hold numbers, one a task, found \['a', 'b'\]",
            ),
            (
                "torchjd.aggregation.WeightedAggregator",
                {"weighting": {"class": "torchjd.aggregation.MoDoWeighting", "kwargs": {"gamma": 0.1}}},
                "`method` must do with one batch a step, found MoDoWeighting",
            ),
        ],
    )
    def test_of_the_setup(self, path, kwargs, message):
        with pytest.raises(UserError, match=message):
            started(path, k=2, **kwargs)

    def test_of_the_other_arguments(self):
        with pytest.raises(UserError, match="`learning_rate` must be above 0, found 0"):
            TorchJDScalarizer({"class": "torchjd.scalarization.UW"}, learning_rate=0)

    def test_come_before_any_data_are_read(self):
        config = {
            "class": "qlib_ext.model.balancers.torchjd.TorchJDAggregator",
            "kwargs": {"method": method("torchjd.aggregation.Krum")},
        }
        loss = {"class": "qlib_ext.model.losses.mse.MSE"}
        with pytest.raises(UserError, match="Krum does not work with 1 tasks"):
            MultiTaskModel(
                backbone={"class": "qlib_ext.model.backbones.lstm.LSTM", "kwargs": {"hidden_size": 2}},
                tasks={"score": {"label": "RETURN", "loss": loss}},
                balancer=config,
            )

    def test_without_torchjd(self, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(
            UserError, match=r"needs the package torchjd, found none: pip install 'qlib-ext\[torchjd\]'"
        ):
            TorchJDAggregator({"class": "torchjd.aggregation.UPGrad"})

    def test_without_a_package_that_a_method_needs(self, monkeypatch):
        monkeypatch.setattr("torchjd._mixins.find_spec", lambda name: None)
        with pytest.raises(
            UserError, match=r"requires \['numpy', 'cvxpy', 'clarabel'\].*'qlib-ext\[torchjd\]'"
        ):
            started("torchjd.aggregation.CAGrad")

    def test_a_method_that_could_not_be_resumed(self, monkeypatch):
        class Hoarder(aggregation.Sum):
            def forward(self, matrix, /):
                self.seen = {1: matrix + self.seen[1]} if hasattr(self, "seen") else {1: matrix}
                return super().forward(self.seen[1])

        monkeypatch.setattr(aggregation, "Hoarder", Hoarder, raising=False)
        monkeypatch.setenv("QLIB_EXT_PACKAGES", __name__.split(".")[0])  # where it really is
        with pytest.raises(UserError, match="Hoarder holds between steps what a resumed run could not"):
            started("torchjd.aggregation.Hoarder")

    def test_the_rehearsal_draws_no_random_number(self):
        torch.manual_seed(0)
        before = torch.get_rng_state()
        started("torchjd.aggregation.PCGrad")
        assert torch.equal(torch.get_rng_state(), before)
