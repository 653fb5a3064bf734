"""What holds for every balancer."""

import copy
import importlib
import inspect
import json
import math
import pkgutil
from functools import partial

import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.model import balancers
from qlib_ext.model.balancers.base import Aggregator, Balancer, Weighting
from qlib_ext.model.balancers.cagrad import CAGrad
from qlib_ext.model.balancers.cqb import CQB
from qlib_ext.model.balancers.db_mtl import DBMTL
from qlib_ext.model.balancers.equal import EqualWeighting
from qlib_ext.model.balancers.single_task import SingleTask
from qlib_ext.model.balancers.torchjd import TorchJD, TorchJDAggregator, TorchJDScalarizer
from qlib_ext.model.balancers.weighted import Weighted
from qlib_ext.model.checkpoint import CheckpointFolder
from qlib_ext.model.losses.cross_entropy import CrossEntropy
from qlib_ext.model.losses.mse import MSE
from qlib_ext.model.network import MultiTaskNetwork
from qlib_ext.model.options import TrainerOptions
from qlib_ext.model.task import Task
from qlib_ext.model.trainer import Trainer

TASKS = ("score", "momentum", "volume")
BALANCERS = [
    SingleTask(weight_decay=1e-4),
    EqualWeighting(weight_decay=1e-4),
    Weighted({"score": 0.3}, weight_decay=1e-4),
    CQB(window=1),
    CQB(window=2, beta_rule="product", rising_train="ratio"),
    CQB(window=1, balance_beta=False, balance_decay=False),
    DBMTL(),
    DBMTL(beta=0.0, weight_decay=1e-4),
    CAGrad(),
    CAGrad(c=0.9, weight_decay=1e-4),
    TorchJDAggregator({"class": "torchjd.aggregation.UPGrad"}, weight_decay=1e-4),
    TorchJDAggregator({"class": "torchjd.aggregation.PCGrad"}),
    TorchJDAggregator({"class": "torchjd.aggregation.MGDA"}),
    TorchJDAggregator({"class": "torchjd.aggregation.IMTLG"}),
    TorchJDAggregator({"class": "torchjd.aggregation.AlignedMTL"}),
    TorchJDAggregator({"class": "torchjd.aggregation.FairGrad", "kwargs": {"alpha": 1.0}}),
    TorchJDAggregator({"class": "torchjd.aggregation.GradVac"}),
    TorchJDAggregator({"class": "torchjd.aggregation.PCD"}),
    TorchJDScalarizer({"class": "torchjd.scalarization.IMTLL"}, learning_rate=0.1),
    TorchJDScalarizer({"class": "torchjd.scalarization.UW"}, learning_rate=0.1),
    TorchJDScalarizer({"class": "torchjd.scalarization.DWA"}),
    TorchJDScalarizer({"class": "torchjd.scalarization.FAMO"}),
]


def name(balancer):
    return (
        balancer.method["class"] if isinstance(balancer, TorchJD) else type(balancer).__name__
    ).rpartition(".")[2]


# Two visit the tasks in an order that they draw, one has the first task for its main one.
ORDERED = ("PCGrad", "GradVac", "PCD")

each_balancer = pytest.mark.parametrize("law", BALANCERS, ids=name)
each_number = pytest.mark.parametrize("k", [1, 2, 3])


def start(law, tasks):
    balancer = copy.deepcopy(law)
    balancer.setup(tasks)
    return balancer


def combine(balancer, losses, jacobian):
    """The shared gradient, given the gradients `[K, P]` of the transformed losses."""
    if isinstance(balancer, Aggregator):
        gradient = balancer.aggregate(jacobian)
    else:
        gradient = balancer.weights(losses) @ jacobian
    balancer.end_step(lambda: losses * (0.7 + 0.2 * losses))
    return gradient


def train(balancer, tasks, epochs=5, steps=3, seed=0, order=None):
    """All shared gradients and reports of a little training, `order` permuting the tasks."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    order = list(range(len(tasks))) if order is None else order
    gradients, reports = [], []
    for _ in range(epochs):
        for _ in range(steps):
            losses = 0.1 + torch.rand(len(tasks), generator=generator)
            jacobian = torch.randn(len(tasks), 7, generator=generator)
            gradients.append(combine(balancer, losses[order], jacobian[order]))
        train_losses, valid_losses = torch.rand(2, len(tasks), generator=generator).tolist()
        names = [tasks[position] for position in range(len(tasks))]
        balancer.end_epoch(
            dict(zip(names, train_losses, strict=True)), dict(zip(names, valid_losses, strict=True))
        )
        reports.append(balancer.report())
    return torch.stack(gradients), reports


def test_every_balancer_is_held_to_the_laws():
    modules = [
        importlib.import_module(f"{balancers.__name__}.{module.name}")
        for module in pkgutil.iter_modules(balancers.__path__)
    ]
    found = {
        value
        for module in modules
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Balancer) and not inspect.isabstract(value)
        if value.__module__ != Balancer.__module__  # on which the others are founded
    }
    assert found == {type(balancer) for balancer in BALANCERS}


@each_balancer
class TestLaws:
    def test_shows_the_call_that_makes_it_again(self, law, rebuild):
        found, reports = train(start(rebuild(law), TASKS), TASKS)
        expected, expected_reports = train(start(law, TASKS), TASKS)
        assert torch.equal(found, expected)
        assert reports == expected_reports

    @each_number
    def test_gives_one_finite_gradient(self, law, k):
        gradients, _ = train(start(law, TASKS[:k]), TASKS[:k])
        assert gradients.shape == (15, 7)
        assert gradients.dtype == torch.float32
        assert torch.isfinite(gradients).all()

    @pytest.mark.parametrize("order", [[1, 0, 2], [2, 0, 1]])
    def test_the_order_of_the_tasks_does_not_matter(self, law, order):
        if name(law) in ORDERED:
            return
        expected, reports = train(start(law, TASKS), TASKS)
        permuted = start(law, [TASKS[position] for position in order])
        found, found_reports = train(permuted, TASKS, order=order)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)  # some solve by iterations
        for one, other in zip(found_reports, reports, strict=True):
            assert one == pytest.approx(other, rel=1e-5)

    def test_the_same_again_after_a_new_start(self, law):
        balancer = start(law, TASKS)
        first, reports = train(balancer, TASKS)
        balancer.setup(TASKS)
        again, reports_again = train(balancer, TASKS)
        assert torch.equal(first, again)
        assert reports == reports_again

    def test_leaves_its_arguments_alone(self, law):
        balancer = start(law, TASKS)
        for _ in range(3):
            losses, jacobian = 0.1 + torch.rand(3), torch.randn(3, 7)
            before = losses.clone(), jacobian.clone()
            combine(balancer, losses, jacobian).add_(1.0)
            balancer.transform(losses)
            assert torch.equal(losses, before[0])
            assert torch.equal(jacobian, before[1])

    def test_what_it_transforms_stays_in_the_graph_and_in_order(self, law):
        losses = torch.tensor([0.2, 1.0, 3.0], requires_grad=True)
        transformed = start(law, TASKS).transform(losses)
        (slope,) = torch.autograd.grad(transformed.sum(), losses)
        assert (transformed.diff() > 0).all()
        assert (slope > 0).all()

    def test_answers_in_one_of_two_ways(self, law):
        assert isinstance(law, Weighting) is not isinstance(law, Aggregator)
        balancer = start(law, TASKS)
        if isinstance(law, Aggregator):
            assert balancer.aggregate(torch.randn(3, 7)).shape == (7,)
            return
        weights = balancer.weights(torch.rand(3))
        assert weights.shape == (3,)
        assert not weights.requires_grad
        assert (weights >= 0).all()

    @each_number
    def test_reports_finite_numbers_of_known_tasks(self, law, k):
        _, reports = train(start(law, TASKS[:k]), TASKS[:k])
        for report in reports:
            assert report["weight_decay"] >= 0
            for name, value in report.items():
                assert isinstance(value, float)
                assert math.isfinite(value)
                assert "/" not in name or name.partition("/")[2] in TASKS[:k]

    def test_resumes_bit_for_bit_from_json_and_tensors(self, law):
        straight = start(law, TASKS)
        train(straight, TASKS, epochs=4)
        tensors, values = straight.state()
        text = json.dumps(values)
        kept = {name: tensor.clone() for name, tensor in tensors.items()}
        expected, reports = train(straight, TASKS, seed=1)
        assert all(torch.equal(tensors[name], kept[name]) for name in kept), "a state is a copy"
        assert json.dumps(values) == text, "a state is a copy"

        resumed = start(law, TASKS)
        resumed.load_state(kept, json.loads(text))
        found, found_reports = train(resumed, TASKS, seed=1)
        assert torch.equal(found, expected)
        assert found_reports == reports
        assert all(torch.equal(x, straight.state()[0][name]) for name, x in resumed.state()[0].items())
        assert resumed.state()[1] == straight.state()[1]

    def test_and_from_a_state_before_the_first_step(self, law):
        tensors, values = start(law, TASKS).state()
        resumed = start(law, TASKS)
        resumed.load_state(tensors, json.loads(json.dumps(values)))
        assert torch.equal(train(resumed, TASKS)[0], train(start(law, TASKS), TASKS)[0])

    def test_a_phase_of_some_tasks_is_a_new_start_with_these(self, law):
        balancer, fresh = start(law, TASKS), start(law, TASKS)
        train(balancer, TASKS)
        for again in (balancer, fresh):
            again.begin_phase(TASKS[:2])
        assert balancer.tasks == TASKS[:2]
        assert set(balancer.loss_weights()) == set(TASKS[:2])
        found, reports = train(balancer, TASKS[:2])
        expected, expected_reports = train(fresh, TASKS[:2])
        assert torch.equal(found, expected)
        assert reports == expected_reports


@each_balancer
@pytest.mark.parametrize("device", ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def test_a_training_that_is_taken_up_ends_as_one_that_was_not(law, device, make_panels, tmp_path):
    """On a recurrent backbone with dropout, after two epochs of three, bit for bit."""

    def trainer(n_epochs):
        torch.manual_seed(0)
        tasks = [Task("score", "RETURN", MSE()), Task("momentum", "MOMENTUM", CrossEntropy(), classes=5)]
        lstm = {
            "class": "qlib_ext.model.backbones.lstm.LSTM",
            "kwargs": {"hidden_size": 3, "dropout": 0.5},
        }
        network = MultiTaskNetwork(lstm, tasks, num_features=6, lookback_days=4)
        options = TrainerOptions(n_epochs=n_epochs, learning_rate=1e-2)
        return Trainer(network, tasks, copy.deepcopy(law), options, seed=0, device=torch.device(device))

    segments = make_panels(days=4, device=device), make_panels(days=2, seed=1, device=device)
    straight, resumed = trainer(3), trainer(3)
    expected = straight.fit(*segments)
    folder = CheckpointFolder(tmp_path, {})
    trainer(2).fit(*segments, folder=folder)
    torch.rand(17)  # whatever came in between
    found = resumed.fit(*segments, folder=folder, resume=True)
    for one, other in zip(found, expected, strict=True):
        for key in one.keys() | other.keys():
            assert key.startswith("seconds/") or one[key] == other[key], key
    for key, tensor in straight.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[key], tensor), key


@pytest.mark.parametrize("balancer", [SingleTask(), EqualWeighting(), Weighted(), CAGrad()])
def test_a_balancer_without_a_state_refuses_one(balancer):
    with pytest.raises(UserError, match=f"{type(balancer).__name__} has no state to load, found .'average'."):
        balancer.load_state({"average": torch.zeros(1)}, {})


@pytest.mark.parametrize(
    "kind",
    [
        SingleTask,
        EqualWeighting,
        Weighted,
        DBMTL,
        CAGrad,
        partial(TorchJDAggregator, {"class": "torchjd.aggregation.UPGrad"}),
        partial(TorchJDScalarizer, {"class": "torchjd.scalarization.DWA"}),
    ],
)
def test_the_baselines_take_a_constant_weight_decay(kind):
    balancer = start(kind(weight_decay=1e-3), TASKS)
    _, reports = train(balancer, TASKS)
    assert [report["weight_decay"] for report in reports] == [1e-3] * 5
    assert kind().weight_decay == 0.0
    with pytest.raises(UserError, match="`weight_decay` must be at least 0, found -1"):
        kind(weight_decay=-1)


def test_a_balancer_of_neither_kind_is_refused():
    with pytest.raises(UserError, match="a balancer must be a Weighting or an Aggregator, found Balancer"):
        Trainer(None, [], Balancer(), TrainerOptions(), seed=0, device=torch.device("cpu"))
