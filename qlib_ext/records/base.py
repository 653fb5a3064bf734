"""The common ground of the records: artifacts and metrics in and out of an MLflow run."""

from __future__ import annotations

import inspect
import json
import math
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import mlflow.entities
import pandas as pd
from qlib.backtest.report import CSI300_BENCH
from qlib.config import C
from qlib.workflow.record_temp import PortAnaRecord, RecordTemp

from qlib_ext.checks import UserError, brief, nearest
from qlib_ext.config.build import build, in_one_form, locate
from qlib_ext.data.spec import DatasetSpec
from qlib_ext.market.store import QlibStore
from qlib_ext.masking import masked
from qlib_ext.paths import inside
from qlib_ext.records.makers import makers
from qlib_ext.tracking.artifacts import missing_message, read_table

OF_QLIB = "qlib.workflow.record_temp"


class Record(RecordTemp, ABC):
    """One step after training: it reads artifacts of the run and writes others.

    Qlib builds a record as `Class(recorder=..., model=..., dataset=..., **kwargs)`, without the model and the
    dataset where the class takes none, and calls `generate()`. Files are Parquet, CSV, JSON, PNG or text; a
    pickle is never written.

    Parameters
    ----------
    recorder
        Qlib's recorder of the active run, on MLflow.

    Attributes
    ----------
    needs, makes : tuple of str
        Artifact paths that it reads and that it writes.
    may_make : tuple of str
        Artifact paths that it writes where the run has what they are made from.
    asks : tuple of str
        Methods of the dataset that it calls, beside those of Qlib's datasets.
    of_model : bool
        Whether it looks into the model itself, so that a run of scores that were given has nothing for it.
    in_order : bool
        Whether it is for a training that comes before all that is scored, and not for the splits of a cross-validation.

    Departures
    ----------
    Where an input is missing, Qlib's records warn and skip; these raise a `UserError` that names the artifact
    and what writes it.
    """

    needs: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    may_make: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    of_model: bool = False
    in_order: bool = False

    def __init__(self, recorder: Any):
        super().__init__(recorder=recorder)

    def list(self) -> list[str]:
        """The artifact paths that the record writes."""
        return [*self.makes]

    def check_before(self, spec: DatasetSpec) -> None:
        """Hold the arguments against the dataset's spec before the training; raise a UserError where they do not fit.

        A record overrides this to say at once what it would otherwise find hours later.
        """

    def check_places(self) -> None:
        """Raise a UserError where a folder cannot be written that the record writes beside the run's artifacts."""

    def generate(self, **kwargs: Any) -> None:
        """Check the inputs, then write the artifacts and log the metrics.

        Raises
        ------
        UserError
            If an input is missing.
        """
        missing = [path for path in self.needs if not self.has(path)]
        if missing:
            raise UserError(missing_message(type(self).__name__, missing, makers()))
        self._generate()

    @abstractmethod
    def _generate(self) -> None:
        """Write the artifacts and log the metrics; the inputs are there."""

    # -- in ------------------------------------------------------------------------------------------------

    def has(self, path: str) -> bool:
        """Whether the run has the artifact."""
        folder = str(PurePosixPath(path).parent)
        return path in self.recorder.list_artifacts(None if folder == "." else folder)

    def load_table(self, path: str) -> pd.DataFrame:
        """Read a Parquet artifact; a UserError says where it is damaged."""
        with tempfile.TemporaryDirectory() as folder:
            return read_table(Path(self.recorder.download_artifact(path, folder)), path, makers())

    def load_json(self, path: str) -> Any:
        """Read a JSON artifact."""
        with tempfile.TemporaryDirectory() as folder:
            return json.loads(Path(self.recorder.download_artifact(path, folder)).read_text(encoding="utf-8"))

    # -- out -----------------------------------------------------------------------------------------------

    def save_table(self, path: str, table: pd.DataFrame) -> None:
        """Write a table as Parquet."""
        self._log(path, table.to_parquet)

    def save_csv(self, path: str, table: pd.DataFrame) -> None:
        """Write a table as CSV, with its index as first column."""
        self._log(path, table.to_csv)

    def save_json(self, path: str, content: Any) -> None:
        """Write JSON; a number that is not finite becomes null, as JSON has none."""
        self.save_text(path, json.dumps(_without_nan(content), indent=2, allow_nan=False, default=str) + "\n")

    def save_text(self, path: str, content: str) -> None:
        """Write text as UTF-8."""
        self._log(path, lambda file: file.write_text(content, encoding="utf-8"))

    def save_bytes(self, path: str, content: bytes) -> None:
        """Write a picture or another file as it is."""
        self._log(path, lambda file: file.write_bytes(content))

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Log all metrics in one call; a later report then never sees half of them."""
        now = int(time.time() * 1000)
        batch = [mlflow.entities.Metric(name, float(value), now, 0) for name, value in metrics.items()]
        self.recorder.client.log_batch(self.recorder.id, metrics=batch)

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run in one call."""
        batch = [mlflow.entities.RunTag(name, masked(value)) for name, value in tags.items()]
        self.recorder.client.log_batch(self.recorder.id, tags=batch)

    def _log(self, path: str, write: Callable[[Path], Any]) -> None:
        where = PurePosixPath(path)
        with tempfile.TemporaryDirectory() as folder:
            inside(Path(folder), path, what="an artifact")
            file = Path(folder) / where.name
            write(file)
            self.recorder.log_artifact(str(file), None if str(where.parent) == "." else str(where.parent))


def check_records(
    task: Mapping[str, Any], recorder: Any, spec: DatasetSpec | None = None, *, writes: bool = True
) -> None:
    """Build the package's own records of a task once, so that their mistakes show before hours of training.

    Parameters
    ----------
    task
        The task of a workflow, as Qlib reads it.
    recorder
        Qlib's recorder of the run.
    spec
        Of the dataset, where it has one.
    writes
        Whether they are to be run, so that their folders must be ones that can be written.

    Raises
    ------
    UserError
        If a record is none or does not take its arguments, does not fit the dataset and the model, or reads an artifact
        that a record of the package writes and no record before it. What a user's own records write is known when it
        is read.
    """
    records = task.get("record") or []
    if not isinstance(records, (Mapping, list, tuple)):
        raise UserError(f"`task.record` must be a list of records, found {brief(records)}")
    written, made = {_dotted(task.get("model", {}))}, _made_by_model(task)
    for k, config in enumerate([records] if isinstance(records, Mapping) else records):
        name = f"task.record[{k}]"
        described = in_one_form(config, name)
        path, kwargs = described["class"], described["kwargs"]
        if "." not in path:
            path = f"{OF_QLIB}.{path}"  # where Qlib looks a bare name up
        # Qlib's own, or a user's: what it does is not for this package to judge.
        if not path.startswith("qlib_ext."):
            found = locate(path, name=name)
            if not issubclass(found, RecordTemp):
                raise UserError(f"`{name}.class` must be a record, found {path}")
            if issubclass(found, PortAnaRecord):
                _check_index_of_qlib(kwargs, name)
            continue
        kind = locate(path, name=name)
        if not issubclass(kind, Record):
            raise UserError(f"`{name}.class` must be a Record, found {path}")
        _check_dataset(kind, task.get("dataset"), name)
        takes = inspect.signature(kind).parameters
        given = {key: None for key in ("model", "dataset") if key in takes and key not in kwargs}
        record = build({"class": path, "kwargs": kwargs}, Record, name=name, recorder=recorder, **given)
        missing = [artifact for artifact in record.needs if makers().get(artifact) not in written | {None}]
        missing = [artifact for artifact in missing if artifact not in made]
        if missing:
            raise UserError(missing_message(f"`{name}`, {type(record).__name__},", missing, makers()))
        if spec is not None:
            record.check_before(spec)
        if writes:
            record.check_places()
        written.add(path)


def _check_dataset(kind: type[Record], config: Any, name: str) -> None:
    """The class of the dataset must have what a record asks it."""
    if not kind.asks or not isinstance(config, Mapping):
        return
    dataset = locate(in_one_form(config, "task.dataset")["class"], name="task.dataset")
    lacking = [method for method in kind.asks if not hasattr(dataset, method)]
    if lacking:
        raise UserError(
            f"`{name}`, {kind.__name__}, asks the dataset for `{'`, `'.join(lacking)}`, which {dataset.__name__} does not "
            "have: take qlib_ext.data.dataset.DailyPanelDataset, or Qlib's own records with Qlib's own dataset"
        )


def _check_index_of_qlib(kwargs: Mapping[str, Any], name: str) -> None:
    """Qlib's backtest reads SH000300 where it is told no index, and fails after the training where there is none."""
    config = kwargs.get("config") or {}
    settings = (config.get("backtest") if isinstance(config, Mapping) else None) or {}
    index = settings.get("benchmark") if isinstance(settings, Mapping) else None
    code = CSI300_BENCH if index is None else index
    store = QlibStore(C.dpm.get_data_uri("day"))
    if isinstance(code, str) and code.upper() not in store.instruments():
        raise UserError(
            f"`{name}.kwargs.config.backtest.benchmark` must be an instrument of the store {store.root}, found {brief(index)}"
            + (f", for which Qlib takes {CSI300_BENCH}" if index is None else "")
            + nearest(code.upper(), store.instruments())
        )


def looks_into_the_model(record: Mapping[str, Any]) -> bool:
    """Whether a record, as a task describes it, is one of the package that looks into the model."""
    path = str(record["class"])
    return path.startswith("qlib_ext.") and getattr(locate(path, name="record"), "of_model", False)


def _made_by_model(task: Mapping[str, Any]) -> tuple[str, ...]:
    """The artifacts that a model of the package makes itself."""
    path = _dotted(task.get("model", {}))
    return getattr(locate(path, name="task.model"), "makes", ()) if path.startswith("qlib_ext.") else ()


def _dotted(config: Mapping[str, Any]) -> str:
    """The dotted class of a mapping in Qlib's form, which may name the module apart."""
    return ".".join(filter(None, [config.get("module_path"), config.get("class")]))


def _without_nan(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {str(key): _without_nan(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_without_nan(value) for value in content]
    if hasattr(content, "item") and getattr(content, "ndim", 1) == 0:  # a NumPy scalar
        content = content.item()
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content
