"""A model that has its scores already: those of a user's file, or of a run."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from qlib.config import C
from qlib.data.dataset import Dataset
from qlib.data.dataset.handler import DataHandlerLP
from qlib.model.base import Model

from qlib_ext.checks import UserError, brief, counted, instance
from qlib_ext.data.combinatorial import COMBINATORIAL
from qlib_ext.data.score_file import on_trading_days, read_scores
from qlib_ext.data.spec import DatasetSpec
from qlib_ext.market.store import QlibStore
from qlib_ext.model.trainings.below import PREDICTIONS
from qlib_ext.tracking.active import active_recorder
from qlib_ext.tracking.artifacts import RunArtifacts, stored
from qlib_ext.tracking.runs import connect, find_run

logger = logging.getLogger(__name__)

# By which runs are found and grouped, and whether the scores know the future: of what made them.
TAGS = ("backbone", "balancer", "method", "tasks", "loss", "seed", COMBINATORIAL)


class GivenScores(Model):
    """Scores of any model, in a workflow as if it had made them. Nothing is trained.

    A score dated t is taken to be known at the close of day t, and is traded on the next. Scores of stocks that the universe
    does not have that day are left out.

    Parameters
    ----------
    path
        A CSV or Parquet file, as `qlib_ext.data.score_file.read_scores` reads it.
    run
        A run on MLflow instead, as `qlib_ext.tracking.runs.find_run` takes it: its predictions of the test segment, with
        all that it predicted beside the score.
    columns, encoding
        Of a file, as `read_scores` takes them.
    tracking_uri
        Where the run is; by default as `qlib_ext.tracking.runs.connect` has it.

    Attributes
    ----------
    notes : list of str
        What a reader of the results should know of the scores, after `predict`.

    Raises
    ------
    UserError
        If not exactly one of `path` and `run` is given.
    """

    def __init__(
        self,
        path: str | None = None,
        run: str | None = None,
        columns: Mapping[str, str] | None = None,
        encoding: str = "utf-8",
        tracking_uri: str | None = None,
    ) -> None:
        if (path is None) == (run is None):
            raise UserError(
                f"GivenScores must be given `path`, a file of scores, or `run`, a run on MLflow; found {brief(path)} and "
                f"{brief(run)}"
            )
        self.path = None if path is None else instance("path", path, str)
        self.run = None if run is None else instance("run", run, str)
        self.columns = dict(instance("columns", columns or {}, Mapping))
        self.encoding = instance("encoding", encoding, str)
        self.tracking_uri = None if tracking_uri is None else instance("tracking_uri", tracking_uri, str)
        self.notes: list[str] = []

    @property
    def called(self) -> str:
        """What the scores are called in messages."""
        return Path(self.path).name if self.path is not None else f"the run {self.run}"

    def check_before(self, spec: DatasetSpec) -> None:
        """The scores, and that the test segment has some of them."""
        spec.require_segment("test", "GivenScores")
        table, _ = self._read(spec.store)
        days = table.index.get_level_values("datetime")
        first, last = spec.segments["test"]
        if not ((days >= first) & (days <= last)).any():
            raise UserError(
                f"segment `test` ({first:%Y-%m-%d} to {last:%Y-%m-%d}) must have days of the scores, found none: {self.called} "
                f"has {f'{days.min():%Y-%m-%d} to {days.max():%Y-%m-%d}' if len(days) else 'no trading day of the store'}"
            )

    def fit(self, dataset: Dataset, reweighter: Any = None) -> None:
        """Nothing is trained; the run is told whose scores it trades."""
        recorder = active_recorder()
        if recorder is None:
            return
        tags = {"scores": self.called}
        if self.run is not None:
            _, run = self.found_run()
            tags = {name: run.data.tags[name] for name in TAGS if name in run.data.tags}
            tags |= {"scores": str(run.info.run_name), "scores_of": run.info.run_id}
        recorder.set_tags(**tags)

    def predict(self, dataset: Dataset, segment: str = "test") -> pd.DataFrame:
        """The scores of the members of a segment's days, `score` first."""
        table, notes = self._read(QlibStore(C.dpm.get_data_uri("day")))
        rows = dataset.prepare(segment, col_set="label", data_key=DataHandlerLP.DK_R).index
        rows = rows.reorder_levels(["datetime", "instrument"]).sort_values()
        kept = table.loc[table.index.intersection(rows)].sort_index()
        told = [*notes, *self._told(table, kept, rows)]
        if told != self.notes:  # each is said once, however often the scores are asked for
            self.notes = told
            for note in told:
                logger.warning("%s", note)
        return kept

    def found_run(self) -> tuple[MlflowClient, Run]:
        """The run that made the scores, and the store that has it."""
        assert self.run is not None
        client = connect(self.tracking_uri)
        return client, find_run(client, self.run)

    def _read(self, store: QlibStore) -> tuple[pd.DataFrame, tuple[str, ...]]:
        """The scores of trading days, before the universe and the segment are looked at."""
        if self.path is None:
            return self._of_run(), ()
        found = read_scores(self.path, store, columns=self.columns, encoding=self.encoding)
        scores, notes = on_trading_days(found.scores, store.calendar, self.called)
        return scores.to_frame(), (*found.notes, *notes)

    def _of_run(self) -> pd.DataFrame:
        client, run = self.found_run()
        if not stored(client, run.info.run_id, [PREDICTIONS]):
            raise UserError(
                f"the run `{run.info.run_name}` ({run.info.run_id}) keeps no {PREDICTIONS}: a run of a workflow with "
                "SignalRecord is needed"
            )
        with tempfile.TemporaryDirectory() as folder:
            return RunArtifacts.download(client, run.info.run_id, [PREDICTIONS], Path(folder)).table(
                PREDICTIONS
            )

    def _told(self, table: pd.DataFrame, kept: pd.DataFrame, rows: pd.MultiIndex) -> list[str]:
        """What of the scores was left out, and what has none."""
        asked = rows.get_level_values("datetime").unique()
        notes: list[str] = []
        if kept.empty:
            return notes
        days = table.index.get_level_values("datetime")
        others = int((days.isin(asked)).sum()) - len(kept)
        if others:
            notes.append(
                f"{others:,} of {len(kept) + others:,} scores are of stocks that the universe does not have that day, or that "
                "have no close: left out"
            )
        outside = days[~days.isin(asked)].unique()
        if len(outside):
            notes.append(f"{counted(len(outside), 'day')} of the scores lie outside of the segment: left out")
        without = asked.difference(kept.index.get_level_values("datetime"))
        if len(without):
            notes.append(
                f"{len(without):,} of {counted(len(asked), 'day')} of the segment have no score, such as "
                f"{without[0]:%Y-%m-%d}: nothing is bought or sold on the day after"
            )
        return notes
