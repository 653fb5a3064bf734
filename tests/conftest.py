"""What holds for every test: no network, no telemetry, no window, the same examples on every run."""

from __future__ import annotations

import os
import socket

import pandas as pd
import pytest
from hypothesis import settings

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MPLBACKEND"] = "Agg"
if "PYTEST_XDIST_WORKER" in os.environ:  # a worker a core: more threads would wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
for variable in (
    "MLFLOW_TRACKING_URI",
    "QLIB_DATA",
    "N_EPOCHS",
    "SEED",
    "DEVICE",
    "RESUME",
    "HIDDEN_SIZE",
    "PRECISION",
    "PANEL_CACHE",
    "UNIVERSE",
    "SEGMENTS",
    "MLFLOW_OUTBOX",
    "MLFLOW_WAIT_SECONDS",
    "QLIB_EXT_PACKAGES",
):
    os.environ.pop(variable, None)  # a developer's own settings must not reach a test

# What the workflows hold by default is more than a little market has, which stops a run before it begins.
os.environ |= {"TOPK": "10", "N_DROP": "2"}

# A library that only the tests ask for brings bottleneck, with which pandas rounds otherwise than without it.
pd.set_option("compute.use_bottleneck", False)

# No deadline: speed belongs in benchmarks. Derandomized: a failure on one machine is a failure on all.
settings.register_profile("qlib-ext", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("qlib-ext")

_LOCAL = {"localhost", "127.0.0.1", "::1"}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that leaves this machine."""
    connect = socket.socket.connect

    def connect_locally(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in _LOCAL:
            raise OSError(f"a test must not use the network, tried to reach {address[0]}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", connect_locally)
