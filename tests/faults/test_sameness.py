"""One seed, one result on CPU, to the last bit: again and again, and whatever the threads, the workers and the cache."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import qlib
import torch
from qlib.utils import init_instance_by_config

from tests.faults.conftest import ROOT

Result = dict[str, Any]


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


class TestWorkflow:
    @pytest.fixture(scope="class")
    def train(self, configured: Any) -> Callable[..., Result]:
        """A training of the workflow from the store to the scores, with nothing left from another."""

        def run(kernels: int = 1, cache: str = "off") -> Result:
            config = configured(PANEL_CACHE=cache)
            qlib.init(provider_uri=config["qlib_init"]["provider_uri"], region="cn", kernels=kernels)
            dataset = init_instance_by_config(config["task"]["dataset"])
            config["task"]["model"]["kwargs"]["checkpoint_dir"] = None
            model = init_instance_by_config(config["task"]["model"])
            model.fit(dataset)
            history = pd.DataFrame(model.history)
            return {
                "weights": {name: x.numpy() for name, x in model._network.state_dict().items()},
                "history": history.drop(columns=[name for name in history if name.startswith("seconds/")]),
                "scores": model.predict(dataset),
            }

        return run

    @pytest.fixture(scope="class")
    def first(self, train: Callable[..., Result]) -> Result:
        return train()

    @staticmethod
    def assert_same(one: Result, other: Result) -> None:
        assert one["weights"].keys() == other["weights"].keys()
        for name, value in one["weights"].items():
            assert value.tobytes() == other["weights"][name].tobytes(), name
        for table in ("history", "scores"):
            pd.testing.assert_frame_equal(one[table], other[table], check_exact=True)

    def test_three_runs(self, train: Callable[..., Result], first: Result) -> None:
        for _ in range(2):
            torch.manual_seed(123)
            np.random.seed(123)  # noqa: NPY002 - whatever ran before
            self.assert_same(train(), first)

    def test_workers(self, train: Callable[..., Result], first: Result) -> None:
        self.assert_same(train(kernels=3), first)

    def test_a_cache_that_is_filled_and_one_that_is_read(
        self, train: Callable[..., Result], first: Result, tmp_path: Path
    ) -> None:
        for _ in range(2):
            self.assert_same(train(cache=str(tmp_path / "cache")), first)
        assert list((tmp_path / "cache" / "panels").iterdir())

    def test_threads(
        self, train: Callable[..., Result], first: Result, threads: Callable[[int], None]
    ) -> None:
        threads(3)
        self.assert_same(train(), first)


# Three trainings by other numbers of threads, on days that are large enough for torch to share them out.
BY_THREADS = """
import sys
import torch
from qlib_ext.model.balancers.cqb import CQB
from qlib_ext.model.losses.approx_ndcg import ApproxNDCG
from qlib_ext.model.losses.mse import MSE
from qlib_ext.model.network import MultiTaskNetwork
from qlib_ext.model.task import Task
from qlib_ext.model.options import TrainerOptions
from qlib_ext.model.trainer import Trainer
from tests.model.conftest import panels

train, valid = panels(days=4, stocks=300), panels(days=2, stocks=300, seed=1)
ends = []
for threads in (1, 2, 4):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    tasks = [Task("score", "RETURN", MSE()), Task("momentum", "MOMENTUM", ApproxNDCG(), classes=5)]
    backbone = {"class": "qlib_ext.model.backbones.lstm.LSTM", "kwargs": {"hidden_size": 64, "num_layers": 2}}
    network = MultiTaskNetwork(backbone, tasks, num_features=6, lookback_days=4)
    options = TrainerOptions(n_epochs=1, learning_rate=1e-2)
    Trainer(network, tasks, CQB(window=1), options, seed=0, device=torch.device("cpu")).fit(train, valid)
    ends.append(b"".join(value.numpy().tobytes() for value in network.state_dict().values()))
sys.exit(len(set(ends)) - 1)
"""


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this torch is built without MKL")
def test_threads_on_large_days_as_the_page_says() -> None:
    """MKL cuts its sums by the threads that it has, unless it is told not to."""
    environment = {**os.environ, "MKL_CBWR": "AUTO,STRICT", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", BY_THREADS], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
