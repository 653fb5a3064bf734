"""Artifacts that are only half there, or hold other bytes than were written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.tracking.artifacts import RunArtifacts

FILES = ("ranking/daily.parquet", "portfolio/metrics.csv", "data/summary.json")
MADE_BY = {
    "ranking/daily.parquet": "qlib_ext.records.ranking.RankingRecord",
    "portfolio/metrics.csv": "qlib_ext.records.portfolio.PortfolioRecord",
    "data/summary.json": "qlib_ext.records.signal.SignalRecord",
}


@pytest.fixture
def run(tmp_path: Path) -> RunArtifacts:
    """Three files of a run, whole."""
    table = pd.DataFrame({"rank_ic": np.random.default_rng(0).normal(size=50)}, pd.RangeIndex(50, name="day"))
    for path in FILES:
        (tmp_path / path).parent.mkdir()
    table.to_parquet(tmp_path / FILES[0])
    table.to_csv(tmp_path / FILES[1])
    (tmp_path / FILES[2]).write_text(json.dumps({"days": list(range(100))}) + "\n")
    return RunArtifacts(tmp_path, makers=MADE_BY)


def read(run: RunArtifacts, path: str) -> object:
    return run.json(path) if path.endswith(".json") else run.table(path)


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize("share", [0.0, 0.2, 0.55, 0.98])
def test_half_a_file_is_never_read_as_a_whole_one(run: RunArtifacts, path: str, share: float) -> None:
    file = run.root / path
    whole = file.read_bytes()
    assert read(run, path) is not None
    cut = whole[: int(share * len(whole))]
    file.write_bytes(cut)
    with pytest.raises(UserError, match="is damaged or only half there") as told:
        read(run, path)
    message = str(told.value)
    assert f"`{path}`" in message
    assert MADE_BY[path] in message
    assert "RESUME=1 trains nothing twice" in message
    assert "\n" not in message


def test_a_file_of_something_else(run: RunArtifacts) -> None:
    (run.root / FILES[0]).write_text("<html>502 Bad Gateway</html>\n")
    with pytest.raises(UserError, match="is damaged or only half there"):
        run.table(FILES[0])


def test_a_users_own_table_is_told_of_without_a_maker(run: RunArtifacts) -> None:
    (run.root / "mine.csv").write_text("a,b\n1,")
    with pytest.raises(UserError, match=r"`mine.csv` is damaged .*\(RESUME=1 trains nothing twice\)"):
        run.table("mine.csv")
