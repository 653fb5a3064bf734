from __future__ import annotations

import pytest

from qlib_ext.checks import UserError
from qlib_ext.model.options import TrainerOptions

MLP = {"class": "qlib_ext.model.heads.mlp.MLPHead"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_epochs": 0}, "`n_epochs` must be at least 1, found 0"),
        ({"n_epochs": 2.0}, "`n_epochs` must be an integer, found 2.0"),
        ({"patience": 0}, "`patience` must be at least 1, found 0"),
        ({"learning_rate": 0}, "`learning_rate` must be above 0, found 0"),
        ({"precision": "float16"}, "`precision` must be one of bfloat16, float32, found 'float16'"),
        ({"selection": "ic"}, "`selection` must be one of authors, loss, rank_ic, found 'ic'"),
        ({"phases": {"tasks": "all"}}, "`phases` must be a list of at least 1 phase, found"),
        ({"plateau": {"factor": 2}}, r"`plateau.factor` must lie in \(0, 1\), found 2"),
        ({"augmentations": {"class": "a.B"}}, "`augmentations` must be a list, found"),
        ({"augmentations": [MLP]}, r"`augmentations\[0\].class` must be a Augmentation, found"),
    ],
)
def test_messages(options, message):
    with pytest.raises(UserError, match=message):
        TrainerOptions.of(options)


def test_repr_rebuilds_it():
    """A checkpoint goes by it."""
    crop = {"class": "qlib_ext.model.augmentations.crop.Crop", "kwargs": {"shortest": 0.3}}
    found = repr(TrainerOptions.of({"plateau": {"patience": 2}, "augmentations": [crop]}))
    assert "plateau=Plateau(factor=0.5, patience=2, min_learning_rate=0.0)" in found
    assert "augmentations=(Crop(shortest=0.3),)" in found


def test_an_unknown_key():
    with pytest.raises(
        UserError, match=r"`key of trainer` must be one of .*, found 'epochs' .did you mean n_epochs"
    ):
        TrainerOptions.of({"epochs": 3})


def test_defaults_are_the_papers():
    assert vars(TrainerOptions.of({})) == {
        "n_epochs": 100,
        "patience": 30,
        "learning_rate": 2e-4,
        "precision": "float32",
        "selection": "rank_ic",
        "phases": None,
        "plateau": None,
        "augmentations": (),
    }
