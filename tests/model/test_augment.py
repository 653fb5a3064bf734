from __future__ import annotations

import pytest
import torch

from qlib_ext.model.augment import augmented
from qlib_ext.model.augmentations.crop import Crop
from qlib_ext.model.augmentations.jitter import Jitter
from qlib_ext.model.augmentations.scale import Scale
from qlib_ext.model.augmentations.shift import Shift

ALL = (Crop(), Jitter(sigma=0.2), Shift(max_days=1), Scale())


@pytest.fixture
def panel(make_panels):
    return make_panels()[2]


def features(panel, augmentations=ALL, seed=0, epoch=0, position=2):
    return augmented(panel, augmentations, seed=seed, epoch=epoch, position=position).features


def test_the_seed_the_epoch_and_the_day_decide(panel):
    first = features(panel)
    torch.rand(5)
    assert torch.equal(features(panel), first)
    for changes in ({"seed": 1}, {"epoch": 1}, {"position": 3}):
        assert not torch.equal(features(panel, **changes), first)


def test_draws_leave_those_of_the_training_alone(panel):
    """Weights and dropout are drawn as they were without."""
    state = torch.get_rng_state()
    features(panel)
    assert torch.equal(torch.get_rng_state(), state)


def test_none_is_the_day_itself(panel):
    assert augmented(panel, (), seed=0, epoch=0, position=0) is panel


def test_are_applied_in_their_order(panel):
    panel.features[:] = 1.0
    noise, crop = Jitter(sigma=0.1, probability=1.0), Crop(shortest=0.25, probability=1.0)
    assert (features(panel, [noise, crop]) == 0).any()
    assert (features(panel, [crop, noise]) != 0).all()
