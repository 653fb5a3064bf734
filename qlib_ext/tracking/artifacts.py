"""What a run left behind, as the report reads it: a folder of artifacts, and the run's own record of itself."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import pandas as pd
from mlflow.tracking import MlflowClient

from qlib_ext.checks import UserError
from qlib_ext.masking import masked
from qlib_ext.paths import inside

# Folder of artifacts -> what writes it. The longest prefix of a path counts.
MAKERS: Mapping[str, str] = {
    "signal/": "qlib_ext.records.signal.SignalRecord",
    "data/": "qlib_ext.records.signal.SignalRecord",
    "data/quality.json": "qlib_ext.records.quality.QualityRecord",
    "lookahead/": "qlib_ext.records.lookahead.LookaheadRecord",
    "config.yaml": "qlib_ext.records.signal.SignalRecord",
    "environment.json": "qlib_ext.records.signal.SignalRecord",
    "model/": "qlib_ext.records.signal.SignalRecord",
    "ranking/": "qlib_ext.records.ranking.RankingRecord",
    "signal_analysis/": "qlib_ext.records.signal_analysis.SignalAnalysisRecord",
    "momentum/": "qlib_ext.records.momentum.MomentumRecord",
    "direction/": "qlib_ext.records.direction.DirectionRecord",
    "backtest/": "qlib_ext.records.backtest.BacktestRecord",
    "trades/": "qlib_ext.records.trades.TradesRecord",
    "sweeps/": "qlib_ext.records.sweeps.SweepRecord",
    "portfolio/": "qlib_ext.records.portfolio.PortfolioRecord",
    "training/": "qlib_ext.model.multi_task.MultiTaskModel",
    "report/": "qlib_ext.records.report.ReportRecord",
    "figures/": "qlib_ext.records.report.ReportRecord",
}


def maker(path: str) -> str | None:
    """The dotted class of the package that writes the artifact `path`; None where it is a user's own."""
    known = [prefix for prefix in MAKERS if path.startswith(prefix)]
    return MAKERS[max(known, key=len)] if known else None


def missing_message(reader: str, missing: Iterable[str]) -> str:
    """One message that names the artifacts that `reader` lacks and what writes them."""
    lacking = "; ".join(
        f"`{path}`, written by {maker(path) or 'none of the records of this package'}" for path in missing
    )
    return (
        f"{reader} needs artifacts that this run does not have: {lacking}. "
        "A record comes before those that read it in `task.record`"
    )


def stored(client: MlflowClient, run_id: str, paths: Iterable[str]) -> list[str]:
    """Those of the artifact paths that a run on MLflow has, each once."""
    wanted = [*dict.fromkeys(paths)]
    folders = dict.fromkeys(str(PurePosixPath(path).parent) for path in wanted)
    found = {
        item.path
        for folder in folders
        for item in client.list_artifacts(run_id, None if folder == "." else folder)
        if not item.is_dir
    }
    return [path for path in wanted if path in found]


def _check_source(artifact_uri: str | None, path: str) -> None:
    """An artifact on this machine must lie among the run's: MLflow would follow a link to any file."""
    place = urlparse(artifact_uri or "")
    if place.scheme in ("", "file") and place.path:
        inside(Path(url2pathname(place.path)), path, what="an artifact")


def unreadable_message(path: str, error: object) -> str:
    """What to say of an artifact that is there and cannot be read."""
    by = maker(path)
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return (
        f"the artifact `{path}` is damaged or only half there ({reason}): make it again by a run of the workflow "
        f"({'RESUME=1 trains nothing twice' if by is None else f'{by} makes it; RESUME=1 trains nothing twice'})"
    )


def read_table(file: Path, path: str) -> pd.DataFrame:
    """Read a Parquet file, or a CSV file with its first column as index.

    Parameters
    ----------
    file
        Where it lies.
    path
        Its artifact path, for messages.

    Raises
    ------
    UserError
        If it is no such file, or was cut short: a table as CSV ends with the end of a line.
    """
    try:
        if file.suffix == ".parquet":
            return pd.read_parquet(file)
        if not file.read_bytes().endswith(b"\n"):
            raise ValueError("its last line has no end")
        return pd.read_csv(file, index_col=0)
    except (ValueError, OSError) as error:  # pyarrow's and pandas' own are kinds of these
        raise UserError(unreadable_message(path, error)) from error


def put(path: Path, content: str | bytes) -> None:
    """Write a file in its folder, whole or not at all; what was there before stays until then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@dataclasses.dataclass(frozen=True)
class RunArtifacts:
    """A read-only view of one run.

    Parameters
    ----------
    root
        Folder that holds the artifacts under their artifact paths.
    params, metrics, tags
        As MLflow has them: names to text, names to numbers, names to text.
    info
        What else is known of the run: `run_id`, `run_name`, `experiment`, `started`, `tracking_uri` and `command`, both
        without passwords.
    """

    root: Path
    params: Mapping[str, str] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def download(cls, client: MlflowClient, run_id: str, paths: Iterable[str], root: Path) -> RunArtifacts:
        """Fetch artifacts of a run on MLflow, and what MLflow knows of the run.

        Parameters
        ----------
        client
            Of the store that has the run.
        run_id
            The run's id.
        paths
            Artifact paths to fetch; the run must have them.
        root
            An empty folder to fetch into.

        Raises
        ------
        UserError
            If a path leads out of the folder, or to something outside of a run's artifacts on this machine.
        """
        run = client.get_run(run_id)
        for path in paths:
            target = inside(root, path, what="an artifact")
            _check_source(run.info.artifact_uri, path)
            with (
                tempfile.TemporaryDirectory() as folder
            ):  # stores differ in how they lay out what they hand over
                found = client.download_artifacts(run_id, path, folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(found, target)
        started = datetime.fromtimestamp(run.info.start_time / 1000)
        return cls(
            root,
            params=run.data.params,
            metrics=run.data.metrics,
            tags=run.data.tags,
            info={
                "run_id": run_id,
                "run_name": run.info.run_name,
                "experiment": client.get_experiment(run.info.experiment_id).name,
                "started": f"{started:%Y-%m-%d %H:%M}",
                "tracking_uri": masked(client.tracking_uri),
                "command": masked(run.data.params.get("cmd-sys.argv", "")),
            },
        )

    def has(self, path: str) -> bool:
        """Whether the run has the artifact."""
        return inside(self.root, path, what="an artifact").is_file()

    def table(self, path: str) -> pd.DataFrame:
        """A Parquet artifact, or a CSV artifact with its first column as index.

        Raises
        ------
        UserError
            If the run has not got it, or it cannot be read.
        """
        return read_table(self._file(path), path)

    def json(self, path: str) -> Any:
        """A JSON artifact."""
        try:
            return json.loads(self.text(path))
        except json.JSONDecodeError as error:
            raise UserError(unreadable_message(path, error)) from error

    def text(self, path: str) -> str:
        """A text artifact."""
        try:
            return self._file(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(unreadable_message(path, error)) from error

    def metric(self, name: str) -> float:
        """A metric of the run.

        Raises
        ------
        UserError
            If the run has not logged it.
        """
        if name not in self.metrics:
            known = ", ".join(sorted(self.metrics)) or "none"
            raise UserError(f"the run has no metric `{name}`; it has {known}")
        return self.metrics[name]

    def _file(self, path: str) -> Path:
        if not self.has(path):
            raise UserError(missing_message("the report", [path]))
        return self.root / path
