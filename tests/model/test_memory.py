"""A device without room: torch's own error, raised from the real forward of a backbone that is given too many stocks."""

from __future__ import annotations

import logging
import platform
import subprocess
import sys

import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.model.backbones.gats import GATs
from qlib_ext.model.backbones.lstm import LSTM
from qlib_ext.model.balancers.equal import EqualWeighting
from qlib_ext.model.checkpoint import CheckpointFolder
from qlib_ext.model.losses.cross_entropy import CrossEntropy
from qlib_ext.model.losses.mse import MSE
from qlib_ext.model.memory import oom_as_user_error
from qlib_ext.model.network import MultiTaskNetwork
from qlib_ext.model.options import TrainerOptions
from qlib_ext.model.task import Task
from qlib_ext.model.trainer import Trainer

TOLD = (
    r"`hidden_size` \(HIDDEN_SIZE\), `precision: bfloat16` \(PRECISION\), a smaller universe or `device: cpu`"
)


def build(kind=LSTM, n_epochs=2):
    torch.manual_seed(0)
    tasks = [Task("score", "RETURN", MSE()), Task("momentum", "MOMENTUM", CrossEntropy(), classes=5)]
    backbone = {"class": f"{kind.__module__}.{kind.__name__}", "kwargs": {"hidden_size": 4}}
    network = MultiTaskNetwork(backbone, tasks, num_features=6, lookback_days=4)
    options = TrainerOptions(n_epochs=n_epochs, learning_rate=1e-2)
    return Trainer(network, tasks, EqualWeighting(), options, seed=0, device=torch.device("cpu"))


@pytest.fixture
def room(monkeypatch):
    """Let the backbone have room for so many stocks and no more: in evaluation, in training, or in both."""

    def limit(stocks, kind=LSTM, training=(False,)):
        forward = kind.forward
        seen = []

        def cramped(self, panel):
            embedding = forward(self, panel)
            if self.training in training:
                seen.append(len(panel))
                if len(panel) > stocks:
                    raise torch.OutOfMemoryError(
                        "CUDA out of memory. Tried to allocate 2.00 GiB.\nSee more there"
                    )
            return embedding

        monkeypatch.setattr(kind, "forward", cramped)
        return seen

    return limit


@pytest.fixture(scope="module")
def train(make_panels):
    return make_panels(days=9, stocks=20)


@pytest.fixture(scope="module")
def valid(make_panels):
    return make_panels(days=6, stocks=20, seed=1)


class TestEvaluation:
    def test_smaller_parts_give_the_same_figures(self, train, valid, room, caplog):
        whole = build()
        whole.fit(train, valid)
        room(6)
        cut = build()
        with caplog.at_level(logging.WARNING, logger="qlib_ext"):
            cut.fit(train, valid)
        for ours, theirs in zip(cut.history, whole.history, strict=True):
            measured = {key: value for key, value in theirs.items() if not key.startswith("seconds/")}
            assert {key: ours[key] for key in measured} == pytest.approx(measured, rel=1e-5)
        told = [text for record in caplog.records if "out of memory" in (text := record.getMessage())]
        assert len(told) == 2  # from about 18 stocks to 9 to 4, and there it stays
        assert "evaluating 4 at a time, which gives the same figures to rounding" in told[-1]

    def test_predictions_too(self, valid, room):
        network = build().network.eval()
        with torch.inference_mode():
            whole = [network(panel) for panel in valid]
            seen = room(7)
            cut = [network(panel) for panel in valid]
        assert max(seen[4:]) <= 7
        for ours, theirs in zip(cut, whole, strict=True):
            for name in theirs:
                torch.testing.assert_close(ours[name], theirs[name])

    def test_a_day_that_must_not_be_cut_says_what_to_set(self, train, valid, room):
        room(6, kind=GATs)
        with pytest.raises(
            UserError, match=rf"GATs needs all stocks of a day at once: take a smaller {TOLD}"
        ):
            build(GATs).fit(train, valid)

    def test_a_single_stock_without_room_says_what_to_set(self, train, valid, room):
        room(0)
        with pytest.raises(
            UserError, match=rf"evaluating a single stock of 2020-01-01: take a smaller {TOLD}"
        ):
            build().fit(train, valid)


class TestTraining:
    def test_it_says_what_to_set_and_keeps_the_checkpoint(self, train, valid, room, tmp_path):
        """A step is not cut: its losses rank all stocks of the day against each other."""
        folder = CheckpointFolder(tmp_path, {})
        build(n_epochs=1).fit(train, valid, folder=folder)
        (path,) = folder.folder.glob("*.safetensors")
        before = path.read_bytes()
        room(6, training=(True,))
        with pytest.raises(
            UserError, match=rf"out of memory while training epoch 1: take a smaller {TOLD}"
        ) as told:
            build().fit(train, valid, folder=folder, resume=True)
        assert "Tried to allocate 2.00 GiB" in str(told.value)
        assert "See more" not in str(told.value)
        assert path.read_bytes() == before

    def test_any_other_error_stays_what_it_is(self):
        with pytest.raises(RuntimeError, match="boom"), oom_as_user_error("training"):
            raise RuntimeError("boom")


FREED_AND_ASKED_FOR = """
import resource, sys
import torch
from qlib_ext.model.memory import reuse_freed_memory
if sys.argv[1] == "kept":
    reuse_freed_memory()
def step():
    (torch.ones(10_000_000) * 2).sum()  # two blocks of 40 MB, beyond the 32 up to which glibc learns to keep them
for _ in range(10):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives freed blocks back at once")
def test_what_a_step_frees_is_there_for_the_next():
    def faults(how):
        command = [sys.executable, "-c", FREED_AND_ASKED_FOR, how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults("kept") < faults("given back") / 4  # pages that the system cleared anew
