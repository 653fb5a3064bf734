"""A run to record: a little market with a weak signal in it, Qlib on it, MLflow on a database of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import qlib
from qlib.data.dataset.handler import DataHandlerLP
from qlib.workflow import R

from qlib_ext.market.store import write_store
from qlib_ext.records.base import Record

STOCKS = [f"SH6{number:05d}" for number in range(40)]
INDEX = "SH000300"
DAYS = 120
FIRST, LAST = 60, DAYS - 1  # the test segment reaches the store's last day


class Dataset:
    """What the records see of a dataset."""

    benchmark = INDEX

    def __init__(self, calendar: pd.DatetimeIndex, close: np.ndarray):
        self.calendar = calendar
        self.rows = pd.MultiIndex.from_product([calendar[FIRST:], STOCKS], names=["datetime", "instrument"])
        draw = np.random.default_rng(3)
        move = np.full_like(close, np.nan)
        move[:-1] = close[1:] / close[:-1] - 1  # known at t: from t to t + 1
        tradable = np.full_like(close, np.nan)
        tradable[:-2] = move[1:-1]
        momentum = draw.integers(0, 5, close.shape).astype(float)
        momentum[-2:] = np.nan
        persistence = np.where(draw.random(close.shape) < 0.6, momentum, draw.integers(0, 5, close.shape))
        persistence[np.isnan(momentum)] = np.nan
        columns = {
            "RETURN": tradable,
            "NEXT_RETURN": move,
            "MOMENTUM": momentum,
            "MOMENTUM_PERSISTENCE": persistence,
        }
        self.labels = pd.DataFrame(
            {name: values[FIRST:].ravel() for name, values in columns.items()}, index=self.rows
        )

    def prepare(self, segment: str, col_set: str, data_key: str) -> pd.DataFrame:
        assert (segment, col_set, data_key) == ("test", "label", DataHandlerLP.DK_R)
        return self.labels

    def describe(self) -> dict[str, Any]:
        first, last = (f"{self.calendar[day]:%Y-%m-%d}" for day in (FIRST, LAST))
        segment = {
            "start": first,
            "end": last,
            "days": LAST - FIRST + 1,
            "rows": len(self.rows),
            "purged_days": 0,
        }
        return {
            "universe": "csi300",
            "benchmark": INDEX,
            "fingerprint": "0123456789abcdef",
            "store_start": f"{self.calendar[0]:%Y-%m-%d}",
            "store_end": last,
            "instruments": np.int64(len(STOCKS)),
            "instruments_without_bars": 0,
            "fields": ["open", "close"],
            "missing_fields": ["vwap"],
            "lookback_days": 60,
            "labels": {"RETURN": "Ref($close,-2)/Ref($close,-1)-1", "NEXT_RETURN": "Ref($close,-1)/$close-1"},
            "segments": {"test": segment},
            "notes": ["the store has no `vwap`"],
        }

    def coverage(self, segment: str) -> pd.DataFrame:
        days = pd.DatetimeIndex(self.calendar[FIRST:], name="datetime")
        return pd.DataFrame({"members": len(STOCKS), "scored": len(STOCKS) - 1}, index=days)


class Model:
    """A model whose scores know a little of the future."""

    def predict(self, dataset: Dataset) -> pd.DataFrame:
        draw = np.random.default_rng(5)
        known = dataset.labels["RETURN"].fillna(0.0).to_numpy()
        score = known + draw.normal(0, 0.08, len(known))
        classes = draw.dirichlet(np.ones(5), len(known))
        true = dataset.labels["MOMENTUM"].to_numpy()
        rows = np.flatnonzero(~np.isnan(true))
        classes[rows, true[rows].astype(int)] += 0.3
        classes /= classes.sum(axis=1, keepdims=True)
        columns = {"score": score} | {f"momentum_{k}": classes[:, k] for k in range(5)}
        shuffled = draw.permutation(len(known))  # a model owes nobody an order
        return pd.DataFrame(columns, index=dataset.rows).iloc[shuffled]


QUIET = slice(75, 95)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    """A folder with a store, and the dataset."""
    home = tmp_path_factory.mktemp("workplace")
    draw = np.random.default_rng(11)
    calendar = pd.bdate_range("2020-01-01", periods=DAYS)
    change = np.clip(draw.normal(0.0003, 0.03, (DAYS, len(STOCKS) + 1)), -0.1, 0.1)
    change[:, -1] = change[:, :-1].mean(axis=1)
    close = 10 * np.cumprod(1 + change, axis=0)
    volume = np.full_like(close, 1e8)
    volume[QUIET, :4] = 0  # suspended, though the store carries a close
    bars = {
        "close": close,
        "change": change,
        "factor": np.ones_like(close),
        "volume": volume,
    }
    spells = pd.DataFrame({"instrument": STOCKS, "start": calendar[0], "end": calendar[-1]})
    write_store(home / "store", calendar, [*STOCKS, INDEX], bars, {"csi300": spells})
    return home, Dataset(calendar, close[:, :-1])


@pytest.fixture(scope="module")
def workplace(place: tuple[Path, Dataset]) -> Iterator[Dataset]:
    """Qlib and MLflow at work in that folder: anew for each file, since those of other tests set them up as well."""
    home, dataset = place
    before = Path.cwd()
    os.chdir(home)  # MLflow puts artifacts beside its database, in the working directory
    manager = {
        "class": "qlib_ext.workflow.experiment.ExperimentManager",
        "kwargs": {"uri": f"sqlite:///{home}/mlflow.db", "default_exp_name": "default"},
    }
    qlib.init(provider_uri=str(home / "store"), region="cn", kernels=1, exp_manager=manager)
    yield dataset
    os.chdir(before)


@pytest.fixture
def run(workplace: Dataset) -> Iterator[Any]:
    """The recorder of a run of its own."""
    with R.start(experiment_name="records"):
        recorder = R.get_recorder()
        recorder.save_objects(
            task={
                "model": {"class": "a.Model"},
                "dataset": {"kwargs": {"since": pd.Timestamp("2020-01-01").date()}},
            }
        )
        yield recorder


@pytest.fixture
def files(run: Any) -> Callable[[], set[str]]:
    """The artifacts of the run, without Qlib's own."""

    def found(folder: str | None = None) -> set[str]:
        paths: set[str] = set()
        for item in run.client.list_artifacts(run.id, folder):
            paths |= found(item.path) if item.is_dir else {item.path}
        return paths - {"task", "code_diff.txt", "code_status.txt", "code_cached.txt"}

    return found


@pytest.fixture
def read(run: Any) -> Callable[[str], pd.DataFrame]:
    """Read a table of the run."""
    return lambda path: (
        Record.load_table(_Reader(run), path) if path.endswith(".parquet") else _csv(run, path)
    )


class _Reader(Record):
    def _generate(self) -> None:
        raise AssertionError


def _csv(run: Any, path: str) -> pd.DataFrame:
    return pd.read_csv(run.download_artifact(path), index_col=0)


@pytest.fixture(scope="session")
def model() -> Model:
    return Model()
