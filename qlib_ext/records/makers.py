"""Who makes which artifact of a run, as the records and the model say it themselves."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from qlib.workflow.record_temp import RecordTemp

from qlib_ext import records
from qlib_ext.config.build import classes_in, dotted
from qlib_ext.model.combinatorial import CrossValidated
from qlib_ext.model.ensemble.ensemble import Ensemble
from qlib_ext.model.multi_task import MultiTaskModel
from qlib_ext.model.soup import Soup
from qlib_ext.model.walk_forward import WalkForward


@functools.cache
def makers() -> Mapping[str, str]:
    """Artifact path -> dotted class of the package that makes it, out of every record's `makes` and `may_make`.

    A new record is found by its file; nothing else has to be told of it.
    """
    kinds = (Soup, MultiTaskModel, WalkForward, CrossValidated, Ensemble)
    found = {path: dotted(kind) for kind in kinds for path in kind.makes}
    for kind in classes_in(records, RecordTemp):
        found |= dict.fromkeys((*kind.makes, *kind.may_make), dotted(kind))
    return found
