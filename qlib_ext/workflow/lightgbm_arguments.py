"""What a workflow gives Qlib's LightGBM model, checked before its data are read.

Qlib takes any argument, and LightGBM only warns of those that it does not know.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping
from typing import Any

import lightgbm
import numpy as np
from qlib.contrib.model.gbdt import LGBModel

from qlib_ext.checks import MOST, UserError, integer, nearest

# As LightGBM calls its number of trees, which are grown one after the other, beside names that end in `round`.
TREES = (
    "num_iterations",
    "num_iteration",
    "n_iter",
    "num_tree",
    "num_trees",
    "nrounds",
    "n_estimators",
    "max_iter",
)
UNKNOWN = re.compile(r"Unknown parameter: (.+)")


def check_lightgbm(model: LGBModel, kwargs: Mapping[str, Any], name: str) -> None:
    """Raise a UserError if LightGBM knows no such parameter, or refuses one of the values.

    Parameters
    ----------
    model
        As Qlib built it.
    kwargs
        What it was built from.
    name
        Where these stand, for messages.
    """
    for key, value in kwargs.items():
        if isinstance(value, int) and not isinstance(value, bool):
            integer(
                f"{name}.kwargs.{key}",
                value,
                maximum=MOST if key.endswith(("_round", "_rounds", *TREES)) else 2**31 - 1,
            )
    rows = np.arange(40.0).reshape(20, 2)
    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(told):  # where LightGBM's warnings go
            lightgbm.Booster({**model.params, "verbosity": 0}, lightgbm.Dataset(rows, rows[:, 0]))
    except (lightgbm.basic.LightGBMError, TypeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"`{name}.kwargs` do not fit LightGBM: {first}") from error
    unknown = UNKNOWN.search(told.getvalue())
    if unknown:
        near = nearest(unknown[1], lightgbm.LGBMModel().get_params())
        raise UserError(f"`{name}.kwargs` has no place for `{unknown[1]}`{near}; LightGBM knows no such")
