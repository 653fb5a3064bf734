"""What holds for every augmentation."""

import importlib
import inspect
import pkgutil

import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.model import augmentations
from qlib_ext.model.augmentations.base import Augmentation
from qlib_ext.model.augmentations.crop import Crop
from qlib_ext.model.augmentations.jitter import Jitter
from qlib_ext.model.augmentations.scale import Scale
from qlib_ext.model.augmentations.shift import Shift

KINDS = {
    "Crop": (Crop, {"shortest": 0.3}),
    "Jitter": (Jitter, {"sigma": 0.1}),
    "Scale": (Scale, {"sigma": 0.2}),
    "Shift": (Shift, {"max_days": 4}),
}
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
each_kind = pytest.mark.parametrize("kind", KINDS)


def built(kind, **changes):
    augmentation, kwargs = KINDS[kind]
    return augmentation(**{**kwargs, **changes})


def windows(stocks=50, days=12, fields=5, seed=0, device="cpu"):
    return torch.randn(stocks, days, fields, generator=torch.Generator().manual_seed(seed)).to(device)


def drawn(augmentation, features, seed=0):
    return augmentation(features, torch.Generator(features.device).manual_seed(seed))


def test_every_augmentation_is_held_to_the_laws():
    modules = [
        importlib.import_module(f"{augmentations.__name__}.{module.name}")
        for module in pkgutil.iter_modules(augmentations.__path__)
    ]
    found = {
        value
        for module in modules
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Augmentation) and value is not Augmentation
    }
    assert found == {kind for kind, _ in KINDS.values()}


@each_kind
class TestLaws:
    def test_shows_the_call_that_makes_it_again(self, kind, rebuild):
        augmentation = built(kind, probability=0.7)
        assert torch.equal(drawn(rebuild(augmentation), windows()), drawn(augmentation, windows()))

    @pytest.mark.parametrize("shape", [(1, 5, 1), (7, 30, 20), (2, 60, 6)])
    def test_keeps_the_shape_and_stays_finite(self, kind, shape):
        features = windows(*shape)
        found = drawn(built(kind, probability=1.0), features)
        assert found.shape == features.shape
        assert found.dtype == torch.float32
        assert torch.isfinite(found).all()

    def test_leaves_its_argument_alone(self, kind):
        features = windows()
        before = features.clone()
        drawn(built(kind), features).add_(1.0)
        assert torch.equal(features, before)

    def test_the_generator_alone_decides(self, kind):
        features, augmentation = windows(), built(kind)
        first = drawn(augmentation, features)
        torch.manual_seed(99)
        assert torch.equal(drawn(augmentation, features), first)
        assert not torch.equal(drawn(augmentation, features, seed=1), first)

    def test_and_no_other_number_is_drawn(self, kind):
        torch.manual_seed(0)
        expected = torch.rand(3)
        torch.manual_seed(0)
        drawn(built(kind), windows())
        assert torch.equal(torch.rand(3), expected)

    @pytest.mark.parametrize("probability", [0.1, 0.5])
    def test_changes_a_stock_with_the_probability(self, kind, probability):
        features = windows(stocks=4000)
        found = drawn(built(kind, probability=probability), features)
        # one crop length in nine is the whole window, which is no change
        share = (found != features).flatten(1).any(dim=1).float().mean().item()
        low = probability * (8 / 9 if kind == "Crop" else 1)
        assert share == pytest.approx(low, abs=4 * (low * (1 - low) / 4000) ** 0.5)

    def test_changes_every_stock_with_probability_1(self, kind):
        features = windows(stocks=500)
        found = drawn(built(kind, probability=1.0), features)
        changed = (found != features).flatten(1).any(dim=1)
        assert changed.all() if kind != "Crop" else changed.float().mean() > 0.8

    @pytest.mark.parametrize("day", [0, 3, 8, 11])
    def test_a_day_holds_nothing_of_later_ones(self, kind, day):
        """What stands up to a day is not changed by whatever comes after it."""
        features, augmentation = windows(), built(kind, probability=1.0)
        other = features.clone()
        other[:, day + 1 :] = windows(seed=5)[:, day + 1 :] * 100
        found, expected = drawn(augmentation, other), drawn(augmentation, features)
        assert torch.equal(found[:, : day + 1], expected[:, : day + 1])

    def test_a_stock_holds_nothing_of_others(self, kind):
        features, augmentation = windows(), built(kind, probability=1.0)
        other = features.clone()
        other[1:] += 10
        assert torch.equal(drawn(augmentation, other)[0], drawn(augmentation, features)[0])

    @pytest.mark.parametrize("device", DEVICES)
    def test_draws_on_the_device_of_the_windows(self, kind, device):
        features = windows(device=device)
        assert drawn(built(kind), features).device == features.device

    def test_the_probability_is_checked(self, kind):
        for wrong in (0, 1.2, -0.5):
            with pytest.raises(UserError, match=rf"`probability` must lie in \(0, 1\], found {wrong}"):
                built(kind, probability=wrong)
