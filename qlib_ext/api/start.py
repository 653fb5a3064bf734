"""How a session of Python begins: libraries quiet, passwords hidden, MLflow's place known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qlib_ext.checks import UserError
from qlib_ext.masking import mask_logs
from qlib_ext.terminal import quiet_imports, quiet_libraries

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.tracking import MlflowClient

    from qlib_ext.market.store import QlibStore


def start(tracking_uri: str | None = None) -> None:
    """Hold libraries back as the commands do, and let a tracking URI be that of the session from here on."""
    with quiet_imports():  # Qlib's strategies bring gym, which has something to say
        import qlib_ext.workflow.scored  # noqa: F401
    from qlib_ext.tracking.runs import use

    quiet_libraries()
    mask_logs("qlib", "qlib_ext", "mlflow")
    use(tracking_uri)


def client_of(tracking_uri: str | None = None) -> MlflowClient:
    """MLflow's store of the session."""
    from qlib_ext.tracking.runs import connect, use

    use(tracking_uri)
    return connect()


def read(store: QlibStore) -> None:
    """Let Qlib read a store."""
    start()
    from qlib_ext.workflow.run import let_qlib_read
    from qlib_ext.workflow.scored import region_of

    let_qlib_read(store.root, region_of(store))


def store_at(store: str | Path | QlibStore) -> QlibStore:
    """A store, or the one in a folder."""
    from qlib_ext.market.store import QlibStore

    return store if isinstance(store, QlibStore) else QlibStore(store)


def trading_day(store: QlibStore, day: Any = None) -> pd.Timestamp:
    """A trading day of a store, by default the newest; a UserError names those near one that is none."""
    if day is None:
        return store.calendar[-1]
    start()
    from qlib_ext.data.days import as_day

    when = as_day("day", day)
    if when not in store.calendar:
        place = store.calendar.searchsorted(when)
        near = store.calendar[max(0, place - 1) : place + 1]
        raise UserError(
            f"`day` must be a trading day of the store {store.root}, found {when:%Y-%m-%d}; the nearest are "
            f"{' and '.join(f'{one:%Y-%m-%d}' for one in near)}"
        )
    return when
