from __future__ import annotations

from pathlib import Path

import pytest

from qlib_ext.market.finding import QualityReport
from qlib_ext.report.index import data
from qlib_ext.report.index.data import states
from qlib_ext.report.index.runs import read
from tests.report.comparison.conftest import Store, blank

__all__ = ["blank"]
SUMMARY = {"store": "cn", "store_start": "2008-01-02", "store_end": "2020-09-25"}


@pytest.fixture(scope="module")
def store(blank: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two states of the data, one with an audit, one without; and a run whose summary is none."""
    made = Store(tmp_path_factory.mktemp("data"), blank)
    audited = made.run("audited", summary=SUMMARY)
    audit = {"store": {"root": "cn"}, "kinds": [], "findings": []}
    made.client.log_dict(audited, audit, "data/quality.json")
    made.run("failed later", status="FAILED", without=("data",))
    made.run("drawn", tags={"data_fingerprint": "ffff"}, summary={**SUMMARY, "synthetic": True})
    broken = made.run("broken", tags={"data_fingerprint": "eeee"})
    made.client.log_text(broken, "{", "data/summary.json")
    return made


def test_each_state_is_told_by_its_newest_finished_run(store: Store) -> None:
    found, more = states(store.client, read(store.client))
    assert more == 0
    broken, drawn, audited = found
    assert (audited.fingerprint, audited.runs, audited.newest.name) == ("0123", 2, "audited")
    assert (audited.name, audited.first, audited.last) == ("cn", "2008-01-02", "2020-09-25")
    assert isinstance(audited.audit, QualityReport)
    assert drawn.synthetic
    assert drawn.audit is None
    assert (broken.name, broken.audit) == ("", None)


def test_the_newest_states_are_read_and_the_others_counted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "MOST", 1)
    found, more = states(store.client, read(store.client))
    assert [each.fingerprint for each in found] == ["eeee"]
    assert more == 2
