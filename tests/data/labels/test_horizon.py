"""Returns that somebody could have earned, against a loop over days; what they reach, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.data.handlers.panel import PanelHandler
from qlib_ext.data.labels.horizon import HorizonReturn
from qlib_ext.market.store import QlibStore
from tests.data.conftest import INDEX, alpha360, handler_kwargs
from tests.data.untradable import Naive, industries, untradable

HORIZON = "qlib_ext.data.labels.horizon.HorizonReturn"
LESS = (None, "index", "universe", "industry")
DAYS, WAIT = (1, 5), 3


def labels() -> dict[str, Any]:
    return {
        f"{less}{days}": {"class": HORIZON, "kwargs": {"days": days, "less": less, "wait_days": WAIT}}
        for less in LESS
        for days in DAYS
    }


def changes(**more: Any) -> dict[str, Any]:
    return alpha360(lookback_days=3) | {"infer_processors": [], "learn_processors": []} | more


@pytest.fixture(scope="module")
def market(tiny: Any) -> Any:
    return untradable(tiny)


def written(market: Any, root: Path, seed: int = 5) -> QlibStore:
    store = market.write(root)
    (root / "side").mkdir()
    industries(market, seed).to_csv(root / "side" / "industry.csv", index=False)
    return store


@pytest.fixture(scope="module")
def traded(
    market: Any, tmp_path_factory: pytest.TempPathFactory, read: Callable[..., None], store: QlibStore
) -> Iterator[QlibStore]:
    made = written(market, tmp_path_factory.mktemp("traded") / "store")
    read(made)
    yield made
    read(store)


@pytest.fixture(scope="module")
def handler(traded: QlibStore, market: Any) -> PanelHandler:
    return PanelHandler(**(handler_kwargs(market) | changes(labels=labels(), benchmark=INDEX)))


def naive_return(naive: Naive, t: int, stock: int, days: int, index: bool) -> float:
    buy = t + 1
    if buy + days + WAIT >= naive.days or not naive.buys(buy, stock):
        return np.nan
    for sale in range(buy + days, buy + days + WAIT + 1):
        if naive.sells(sale, stock):
            gained = naive.close[sale, stock] / naive.close[buy, stock]
            return gained - (naive.close[sale, -1] / naive.close[buy, -1] if index else 1)
    return np.nan


@pytest.mark.parametrize("days", DAYS)
@pytest.mark.parametrize("less", LESS)
def test_against_a_loop(less: str | None, days: int, handler: PanelHandler, market: Any) -> None:
    naive, spells = Naive(market), industries(market)
    found = handler.fetch(col_set="label")[f"{less}{days}"]
    expected: dict[tuple[pd.Timestamp, str], float] = {}
    for day, codes in market.members().items():
        t = market.calendar.get_loc(day)
        own = {
            code: naive_return(naive, t, market.codes.index(code), days, less == "index") for code in codes
        }
        here = spells[(spells["start"] <= day) & (day <= spells["end"])].set_index("instrument")["industry"]
        for code, value in own.items():
            if less == "universe":
                value -= np.nanmean([*own.values()]) if not np.isnan(value) else 0
            elif less == "industry":
                group = [own[other] for other in own if here.get(other) == here.get(code)]
                value = value - np.nanmean(group) if not np.isnan(value) and code in here else np.nan
            expected[day, code] = value
    np.testing.assert_allclose(found.to_numpy(), [expected[row] for row in found.index], atol=2e-6)
    assert 0.05 < found.isna().mean() < 0.4


def test_a_day_of_it_follows_from_no_more_days_than_it_says(
    handler: PanelHandler, market: Any, tmp_path: Path, use: Callable[..., None]
) -> None:
    t = 120
    use(written(market.moved(slice(t + 1, None)), tmp_path / "store"))
    other = PanelHandler(**(handler_kwargs(market) | changes(labels=labels(), benchmark=INDEX)))
    for name, label in handler.data_loader.labels.items():
        ours, theirs = (x.label_planes("raw")[name] for x in (handler, other))
        known = t - label.horizon_days
        np.testing.assert_array_equal(ours[: known + 1], theirs[: known + 1])
        assert not np.array_equal(ours[known + 1 : t], theirs[known + 1 : t], equal_nan=True)


def test_segments_are_purged_by_what_it_reaches(
    traded: QlibStore, make_dataset: Callable[..., DailyPanelDataset], use: Callable[..., None]
) -> None:
    use(traded)
    own = {"RETURN": {"class": HORIZON, "kwargs": {"days": 5, "less": "index", "wait_days": 4}}}
    dataset = make_dataset(changes(labels=own))
    assert dataset.purged_days == {"train": 10, "valid": 10, "test": 0}
    found = dataset.describe()
    assert found["label_days"] == {"RETURN": {"reach": 10, "span": 5}}
    assert found["labels"] == {"RETURN": f"bought at the close of t + 1, sold at that of t + 6, less {INDEX}"}
    assert any("could not be bought" in note for note in dataset.notes)
    own["RETURN"]["kwargs"]["less"] = "universe"
    assert make_dataset(changes(labels=own)).identity()["labels"] != dataset.identity()["labels"]


def test_it_is_cached_by_all_that_decides_it(
    traded: QlibStore, market: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: Callable[..., None]
) -> None:
    use(traded)
    label = {"RETURN": {"class": HORIZON, "kwargs": {"days": 5, "less": "industry"}}}
    arguments = handler_kwargs(market) | changes(labels=label, cache=tmp_path / "cache")
    first = PanelHandler(**arguments)
    with monkeypatch.context() as patch:
        patch.setattr(HorizonReturn, "values", None)  # nothing is computed again
        again = PanelHandler(**arguments)
    np.testing.assert_array_equal(first.label_planes("raw")["RETURN"], again.label_planes("raw")["RETURN"])
    assert first.notes() == again.notes() != []
    before = first.data_loader.labels["RETURN"].identity(traded)
    table = traded.root / "side" / "industry.csv"
    content = table.read_text(encoding="utf-8")
    table.write_text(content.replace("industry 1", "industry 2"), encoding="utf-8")
    try:
        assert first.data_loader.labels["RETURN"].identity(traded) != before
    finally:
        table.write_text(content, encoding="utf-8")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"days": 0}, "`days` must be at least 1"),
        ({"wait_days": -1}, "`wait_days` must be at least 0"),
        ({"rules": "mars"}, "`rules` must be one of"),
        ({"less": "index"}, "must find the `benchmark` of the dataset, found none: name one there"),
        ({"less": "SH999999"}, "`less` of a label must be index, industry, universe, or an instrument"),
        (
            {"less": "industry"},
            "`less: industry` of a label does not fit the store .* there is no side/industry",
        ),
        ({"horizon": 5}, r"`labels.RETURN.kwargs` has no place for `horizon`"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_loaded(
    kwargs: dict[str, Any], message: str, tiny: Any, store: QlibStore, use: Callable[..., None]
) -> None:
    use(store)  # has no industries
    label = {"RETURN": {"class": HORIZON, "kwargs": kwargs}}
    with pytest.raises(UserError, match=message):
        PanelHandler(**(handler_kwargs(tiny) | changes(labels=label)))


def test_a_label_must_be_one(tiny: Any) -> None:
    other = {"RETURN": {"class": "qlib_ext.features.alpha360.Alpha360"}}
    with pytest.raises(UserError, match=r"`labels.RETURN.class` must be a Label"):
        PanelHandler(**(handler_kwargs(tiny) | changes(labels=other)))
