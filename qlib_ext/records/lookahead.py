"""Whether what the run calls known follows from what came later, on a few dates."""

from __future__ import annotations

import logging
from typing import Any

from qlib.config import C

from qlib_ext.checks import integer
from qlib_ext.lookahead import folds, members
from qlib_ext.lookahead.audit import audit
from qlib_ext.lookahead.findings import Result
from qlib_ext.market.store import QlibStore
from qlib_ext.model.combinatorial import CrossValidated
from qlib_ext.model.ensemble.ensemble import Ensemble
from qlib_ext.model.walk_forward import FoldedModel
from qlib_ext.records.base import Record

logger = logging.getLogger(__name__)


class LookaheadRecord(Record):
    """A small look-ahead audit of the run, with the weights that it trained.

    The dataset is built from the run's configuration once more, and the one that other records read is left alone.
    An alarm does not stop the run: it stands first in its report, in its metrics and in one line of the log. The full
    audit is a command, `qlib-ext lookahead WORKFLOW --run RUN`. Of a walk-forward, each fold has an audit of its own, with its
    own weights; here they are put together, and what each fold learned of is held against the days that it scores. Of a
    cross-validation that split is audited whose training comes before all that it scores; of the others, which learn of later
    days by design, the days and the reach of their labels are held against each other. Of an
    ensemble, each member has one, and they are put together too.

    Writes `lookahead/audit.json` (every finding, and what was looked at) and logs `lookahead/alarms` and
    `lookahead/dates`, the number of findings and of days t on which everything after t was changed.

    Parameters
    ----------
    recorder, model, dataset
        Given by Qlib, which gives model and dataset together or not at all; of the dataset nothing is read.
    dates
        Days t that are looked at.
    refits
        How many times everything is built anew on a changed market.

    Raises
    ------
    UserError
        If an argument is out of range.
    """

    makes = ("lookahead/audit.json",)
    in_order = True

    def __init__(self, recorder: Any, model: Any, dataset: Any, dates: int = 12, refits: int = 1):
        super().__init__(recorder)
        self.model = model
        self.dates = integer("dates", dates, 1)
        self.refits = integer("refits", refits, 1)

    def _generate(self) -> None:
        found = self._found()
        self.save_json("lookahead/audit.json", found.to_json())
        self.log_metrics({"lookahead/alarms": len(found.findings), "lookahead/dates": found.dates})
        if found.findings:
            first = found.findings[0]
            logger.warning(
                "Look-ahead audit: %d alarms, the first: %s: %s. `qlib-ext lookahead WORKFLOW` lists them",
                len(found.findings),
                first.kind,
                first.message,
            )

    def _found(self) -> Result:
        if isinstance(self.model, FoldedModel):
            calendar = QlibStore(C.dpm.get_data_uri("day")).calendar
            of_runs = folds.of_splits if isinstance(self.model, CrossValidated) else folds.of_runs
            return of_runs(self.model.runs, self.recorder.client, calendar)
        if isinstance(self.model, Ensemble):
            return members.of_runs(self.model.runs, self.recorder.client)
        task = self.recorder.load_object("task")
        return audit(task, dates=self.dates, refits=self.refits, model=lambda dataset: self.model)
