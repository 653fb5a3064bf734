from __future__ import annotations

import pytest

from qlib_ext.checks import UserError
from qlib_ext.model.options import TrainerOptions

MLP = {"class": "qlib_ext.model.heads.mlp.MLPHead"}

AVERAGING = "qlib_ext.model.averaging"
SNAPSHOTS = {"class": f"{AVERAGING}.snapshots.Snapshots", "kwargs": {"cycle": 4}}
SWA = {"class": f"{AVERAGING}.swa.SWA", "kwargs": {"start": 4}}


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
        ({"averaging": MLP}, "`averaging.class` must be a Averaging, found"),
        ({"averaging": {**SNAPSHOTS, "kwargs": {"cycles": 3}}}, "no place for `cycles` .did you mean cycle"),
        (
            {"averaging": SNAPSHOTS, "plateau": {}},
            r"`plateau` must be left out, found it beside Snapshots\(cycle=4\), which sets the learning rate itself",
        ),
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
        "averaging": None,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"averaging": SWA, "n_epochs": 4},
            r"`averaging.start` must be below the epochs of each phase \(4\)",
        ),
        (
            {"averaging": SWA, "patience": 4},
            r"`averaging.start` must be below the patience of each phase \(4\)",
        ),
        (
            {"averaging": SNAPSHOTS, "n_epochs": 3},
            r"`averaging.cycle` must be at most the epochs of each phase \(3\)",
        ),
        (
            {"averaging": SNAPSHOTS, "phases": [{"tasks": "all", "patience": 3}, {"tasks": "all"}]},
            r"`averaging.cycle` must be at most the patience of each phase \(3\)",
        ),
    ],
)
def test_a_phase_has_something_to_average(options, message):
    with pytest.raises(UserError, match=message):
        TrainerOptions.of(options).plan(["score"])


def test_averages_beside_a_plateau_and_in_phases():
    ema = {"class": f"{AVERAGING}.ema.EMA"}
    assert TrainerOptions.of({"averaging": ema, "plateau": {}}).plan(["score"])
    assert TrainerOptions.of({"averaging": SWA, "plateau": {}, "n_epochs": 5}).plan(["score"])
