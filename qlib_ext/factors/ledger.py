"""A look at the test days, entered into the ledger of trials as that of a run is."""

from __future__ import annotations

import hashlib
from datetime import datetime

import pandas as pd

from qlib_ext.checks import counted
from qlib_ext.factors.scorecard import Scorecard
from qlib_ext.factors.subject import JUDGING, Subject
from qlib_ext.lock import BusyError
from qlib_ext.records.ledger import user
from qlib_ext.tracking.ledger import LedgerError, Trial, enter, ledger_path, on_the_same_days


def entered(found: Scorecard, subject: Subject) -> str:
    """Enter a scorecard of test days; where it stands, or why it does not, as a sentence.

    Notes
    -----
    The RankIC of the line is that of the surest factor. A scorecard has no backtest, so its line has no ratio and moves no
    deflated Sharpe ratio; it counts among the looks at those days.
    """
    path = ledger_path(subject.store.root)
    first, last = (f"{day:%Y-%m-%d}" for day in subject.ranges[JUDGING])
    rank_ic = found.table[["rank_ic"]]
    trial = Trial(
        time=datetime.now().astimezone().isoformat(timespec="seconds"),
        what=hashlib.sha256(pd.util.hash_pandas_object(rank_ic).to_numpy().tobytes()).hexdigest()[:32],
        fingerprint=subject.store.fingerprint(),
        universe=subject.universe,
        first=first,
        last=last,
        run_id="",
        name=f"factors of {found.name}",
        user=user(),
        rank_ic=float(found.best["rank_ic"].iloc[0]) if len(found.best) else None,
        ratio=None,
    )
    try:
        entry, known = enter(path, trial)
    except (OSError, BusyError, LedgerError) as error:
        return f"this look at the test days is not in the ledger of trials: {error}"
    looks = len(on_the_same_days(known, trial))
    return f"line {entry.number} of the ledger of trials {path.name}, of {counted(looks, 'look')} at these test days"
