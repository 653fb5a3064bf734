"""What is wrong with the bars that the run was made from."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from qlib.config import C

from qlib_ext.market.quality.check import check_store
from qlib_ext.records.base import Record

logger = logging.getLogger(__name__)


class QualityRecord(Record):
    """Audit the store of the run, narrowed to its universe and its index.

    What is wrong with stocks that were never a member is left out: the run does not see them. It is what
    `qlib-ext data check STORE --universe NAME --benchmark CODE` says. Errors do not stop the run: they stand in its report, in its metrics and in one line of the log.

    Writes `data/quality.json` (every finding, and every kind of fault that was looked for) and logs `quality/errors`,
    `quality/warnings` and `quality/notes`, the numbers of findings.

    Parameters
    ----------
    recorder
        Given by Qlib.

    Raises
    ------
    UserError
        If the run has no description of its data.
    """

    needs = ("data/summary.json",)
    makes = ("data/quality.json",)

    def __init__(self, recorder: Any):
        super().__init__(recorder)

    def _generate(self) -> None:
        summary = self.load_json("data/summary.json")
        universe, benchmark = summary["universe"], summary.get("benchmark")
        root = Path(C.dpm.get_data_uri("day"))
        found = check_store(root, universe=universe, benchmark=benchmark)
        found = dataclasses.replace(
            found,
            # A run travels: where the store lay on this machine is nobody else's business.
            store={**found.store, "root": root.name, "universe": universe, "benchmark": benchmark},
        )
        self.save_json("data/quality.json", found.to_json())
        self.log_metrics({f"quality/{severity}s": count for severity, count in found.counts.items()})
        if found.has_errors:
            logger.warning(
                "Data quality: %d errors in the data of this run, the first: %s. `qlib-ext data check %s --universe %s%s` "
                "lists them",
                found.counts["error"],
                found.findings[0].message,
                root,
                universe,
                f" --benchmark {benchmark}" if benchmark else "",
            )
