"""What a store must have for a workflow, checked before any long work."""

from __future__ import annotations

from collections.abc import Sequence

from qlib_ext.checks import nearest
from qlib_ext.market.store import QlibStore, StoreError

HELP = "Point QLIB_DATA at a store that has it, or make a sample market: `qlib-ext data sample --out DIR`"


def require(
    store: QlibStore,
    *,
    universe: str | None = None,
    fields: Sequence[str] = (),
    instruments: Sequence[str] = (),
) -> None:
    """Check that a store has a universe, fields and instruments.

    Raises
    ------
    StoreError
        One message that names everything that is missing and the commands that help.
    """
    problems = []
    if universe is not None and universe not in store.universes():
        known = ", ".join(store.universes()) or "none"
        problems.append(
            f"no universe `{universe}` (instruments/{universe}.txt){nearest(universe, store.universes())}; it has {known}"
        )
    elif universe is not None and store.membership(universe).empty:
        problems.append(f"no member of the universe `{universe}`: instruments/{universe}.txt is empty")
    known_instruments = set(store.instruments())
    for code in instruments:
        if code.upper() not in known_instruments:
            problems.append(f"no bars of the benchmark `{code}` (features/{code.lower()}/)")
    for field in fields:
        if not any(field in store.fields(code) for code in known_instruments):
            problems.append(f"no field `{field}` (features/*/{field}.day.bin)")
    if problems:
        raise StoreError(
            f"the store {store.root} lacks what the workflow needs: {'; '.join(problems)}. {HELP}"
        )
