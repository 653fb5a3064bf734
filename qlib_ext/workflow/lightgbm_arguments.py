"""What a workflow gives Qlib's LightGBM model, checked before its data are read.

Qlib takes any argument, and LightGBM only warns of those that it does not know.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import lightgbm
import numpy as np
from lightgbm.basic import LightGBMError, _ConfigAliases
from qlib.contrib.model.gbdt import LGBModel

from qlib_ext.checks import UserError, nearest


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
    aliases = _ConfigAliases._get_all_param_aliases()  # LightGBM has no public list of its parameters
    known = {
        *(alias for names in aliases.values() for alias in names),
        *inspect.signature(LGBModel).parameters,
    }
    for key in kwargs:
        if key not in known:
            raise UserError(
                f"`{name}.kwargs` has no place for `{key}`{nearest(key, known)}; LightGBM knows no such"
            )
    rows = np.arange(40.0).reshape(20, 2)
    try:
        lightgbm.Booster({**model.params, "verbosity": -1}, lightgbm.Dataset(rows, rows[:, 0]))
    except (LightGBMError, TypeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"`{name}.kwargs` do not fit LightGBM: {first}") from error
