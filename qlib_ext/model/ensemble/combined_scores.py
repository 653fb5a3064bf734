"""A model that has the scores of several runs, and makes one of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pandas as pd
from qlib.data.dataset import Dataset

from qlib_ext.checks import UserError, brief, counted, instance
from qlib_ext.config.build import build, dotted
from qlib_ext.data.combinatorial import COMBINATORIAL
from qlib_ext.market.store import QlibStore
from qlib_ext.model.combiners.base import Combiner
from qlib_ext.model.combiners.mean_z_score import MeanZScore
from qlib_ext.model.ensemble.member_scores import COMBINER, MEMBERS, MemberScores, keep, shared_days
from qlib_ext.model.given_scores import GivenScores
from qlib_ext.tracking.active import active_recorder
from qlib_ext.tracking.runs import connect, find_run

logger = logging.getLogger(__name__)


class CombinedScores(GivenScores):
    """Scores of several runs, combined, in a workflow as if one model had made them. Nothing is trained.

    Parameters
    ----------
    runs
        Name -> run on MLflow of each member, as `qlib_ext.tracking.runs.find_run` takes it.
    combine
        `{class, kwargs}` of a combiner (`qlib_ext.model.combiners`); by default `MeanZScore`. One that learns does so on what
        the runs said of their validation segments.
    label
        Raw label that it learns by.
    tracking_uri
        Where the runs are; by default as `qlib_ext.tracking.runs.connect` has it.

    Attributes
    ----------
    scores : MemberScores or None
        What the runs said, once they are read.

    Raises
    ------
    UserError
        If `runs` names none.

    Notes
    -----
    Days that only some of the runs score are left out, and told.
    """

    makes = (MEMBERS, COMBINER)

    def __init__(
        self,
        runs: Mapping[str, str],
        combine: Mapping[str, Any] | None = None,
        label: str = "RETURN",
        tracking_uri: str | None = None,
    ) -> None:
        if not isinstance(runs, Mapping) or not runs:
            raise UserError(
                f"`runs` must name the runs to combine, such as {{first: 3fa9c0d1}}, found {brief(runs)}"
            )
        super().__init__(run=next(iter(runs.values())), tracking_uri=tracking_uri)
        self.run = None  # of its own, that one
        self.runs = {str(name): str(run) for name, run in runs.items()}
        self.combiner = build(combine or {"class": dotted(MeanZScore)}, Combiner, name="combine")
        self.label = instance("label", label, str)
        self.scores: MemberScores | None = None

    @property
    def called(self) -> str:
        """The runs, for messages."""
        return f"{len(self.runs)} runs, combined"

    def fit(self, dataset: Dataset, reweighter: Any = None) -> None:
        """Nothing is trained; the run is told whose scores it combines, and how."""
        recorder = active_recorder()
        self._members()
        if recorder is None:
            return
        tags = {"scores": self.called, "ensemble": f"{len(self.runs)} runs, {self.combiner!r}"}
        client = connect(self.tracking_uri)
        for run in self.runs.values():  # one that knows the future is enough
            if (said := client.get_run(run).data.tags.get(COMBINATORIAL)) is not None:
                tags[COMBINATORIAL] = said
        recorder.set_tags(**tags)
        members = [{"member": name, "run_id": run, "trained": False} for name, run in self.runs.items()]
        keep(recorder, members, self.combiner)

    def _members(self) -> MemberScores:
        if self.scores is None:
            client = connect(self.tracking_uri)
            self.runs = {name: find_run(client, run).info.run_id for name, run in self.runs.items()}
            self.scores = MemberScores.read(client, self.runs, validation=self.combiner.learns)
            self.scores.fit(self.combiner, self.label)
        return self.scores

    def _read(self, store: QlibStore) -> tuple[pd.DataFrame, tuple[str, ...]]:
        """The scores of the days that all members score."""
        members = self._members()
        shared = shared_days(members.names, members.predictions, "runs must share days that they score")
        whole = members.combined(self.combiner)
        of_day = whole.index.get_level_values("datetime")
        lost = of_day.unique().difference(shared)
        notes = (
            (f"{counted(len(lost), 'day')} that only some of the runs score: left out",) if len(lost) else ()
        )
        return whole[of_day.isin(shared)], notes
