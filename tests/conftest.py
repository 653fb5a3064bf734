"""What holds for every test: no network, no telemetry, no window, the same examples on every run."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import settings

from tests.interpreter import Interpreter

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
    "LEARNING_RATE",
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


def make_database(file: Path) -> None:
    """Let MLflow make its empty database, which takes it seconds, unless another worker of this session has done it."""
    if file.exists():
        return
    from mlflow.store.db import utils

    part = file.with_name(f"{file.name}.{os.getpid()}")
    engine = utils.create_sqlalchemy_engine_with_retry(f"sqlite:///{part}")
    getattr(utils._initialize_tables, "__wrapped__", utils._initialize_tables)(engine)
    engine.dispose()
    part.replace(file)


@pytest.fixture(scope="session")
def database_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all workers of a session find MLflow's empty database."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "empty-mlflow.db"


@pytest.fixture(scope="session")
def empty_database(database_file: Path) -> Path:
    """An empty database of MLflow's, to be copied to where a process will look for its own."""
    make_database(database_file)
    return database_file


@pytest.fixture(scope="session", autouse=True)
def quick_databases(database_file: Path) -> Iterator[None]:
    """In this process MLflow copies that database where it would make another; `__wrapped__` is what makes it."""
    if "mlflow" not in sys.modules:  # then no test that was collected uses it
        yield
        return
    from mlflow.store.db import utils

    makes = utils._initialize_tables

    @functools.wraps(makes)
    def copies(engine: Any) -> None:
        if engine.dialect.name != "sqlite" or not utils._is_empty_database(engine):
            makes(engine)
            return
        make_database(database_file)
        connection = engine.raw_connection()
        with contextlib.closing(sqlite3.connect(database_file)) as made:
            made.backup(connection.driver_connection)
        connection.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "_initialize_tables", copies)
        yield


@pytest.fixture(scope="session")
def interpreter() -> Iterator[Interpreter]:
    """A Python that has imported what takes long, to run programs in forks of it."""
    started = Interpreter()
    yield started
    started.close()
