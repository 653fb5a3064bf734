"""Artifacts that are only half there, or hold other bytes than were written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from qlib_ext.checks import UserError
from qlib_ext.recommend import trained
from qlib_ext.report import standard
from qlib_ext.report.comparison import runs as comparison
from qlib_ext.report.document import Document
from qlib_ext.tracking.artifacts import DamagedError, RunArtifacts
from qlib_ext.tracking.buffered_client import BufferedMlflowClient
from qlib_ext.tracking.checksums import MANIFEST
from qlib_ext.tracking.place import local_folder

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


# All that `report`, `compare` and `recommend` read of a run: Parquet, CSV, JSON, YAML, text and safetensors.
READ_BACK = sorted(
    {
        *Document(standard.sections()).reads,
        *comparison.READS,
        *trained.ALWAYS,
        *trained.OPTIONAL,
        *trained.NETWORK,
        *sum(trained.LEARNED, ()),
    }
)


@pytest.fixture(scope="module")
def recorded(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path
) -> tuple[BufferedMlflowClient, str, Path]:
    """A run with all of them, and the folder of its artifacts."""
    root = tmp_path_factory.mktemp("recorded")
    shutil.copy(empty_database, root / "mlflow.db")
    client = BufferedMlflowClient(f"sqlite:///{root}/mlflow.db")
    run = client.create_run(client.create_experiment("x", artifact_location=str(root / "artifacts"))).info
    draw = np.random.default_rng(7)
    for path in READ_BACK:
        (root / "made" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "made" / path).write_bytes(draw.bytes(500))
    client.log_artifacts(run.run_id, str(root / "made"))
    client.log_checksums(run.run_id)
    folder = local_folder(run.artifact_uri)
    assert folder is not None
    return client, run.run_id, folder


@pytest.fixture
def turned(
    recorded: tuple[BufferedMlflowClient, str, Path], request: pytest.FixtureRequest
) -> Iterator[tuple[MlflowClient, str, str]]:
    """The run with one bit of an artifact turned: a client that knows nothing of it, the run's id and the path."""
    client, run_id, folder = recorded
    file = folder / request.param
    whole = file.read_bytes()
    place = int(np.random.default_rng(len(request.param)).integers(8 * len(whole)))
    changed = bytearray(whole)
    changed[place // 8] ^= 1 << place % 8
    file.write_bytes(changed)
    yield MlflowClient(client.tracking_uri), run_id, request.param
    file.write_bytes(whole)


def test_there_are_all_kinds() -> None:
    assert {Path(path).suffix for path in READ_BACK} == {
        ".parquet",
        ".csv",
        ".json",
        ".yaml",
        ".txt",
        ".safetensors",
    }


def test_what_is_whole_is_read(recorded: tuple[BufferedMlflowClient, str, Path], tmp_path: Path) -> None:
    client, run_id, _ = recorded
    found = RunArtifacts.download(MlflowClient(client.tracking_uri), run_id, READ_BACK, tmp_path / "run")
    assert found.unchecked == []


@pytest.mark.parametrize("turned", READ_BACK, indirect=True)
def test_a_bit_that_turns_is_noticed(turned: tuple[MlflowClient, str, str], tmp_path: Path) -> None:
    client, run_id, path = turned
    with pytest.raises(DamagedError, match="its checksum is not that of what the run wrote") as told:
        RunArtifacts.download(client, run_id, [path], tmp_path / "run", {path: "MadeBy"})
    assert f"`{path}`" in str(told.value)
    assert "MadeBy makes it" in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("turned", [MANIFEST], indirect=True)
def test_so_is_one_of_the_checksums(turned: tuple[MlflowClient, str, str], tmp_path: Path) -> None:
    client, run_id, _ = turned
    with pytest.raises(DamagedError, match=f"`{MANIFEST}` of the run {run_id} is damaged"):
        RunArtifacts.download(client, run_id, READ_BACK[:1], tmp_path / "run")


@pytest.mark.parametrize("turned", READ_BACK[:1], indirect=True)
def test_the_run_that_wrote_it_notices_too(
    turned: tuple[MlflowClient, str, str], recorded: tuple[BufferedMlflowClient, str, Path], tmp_path: Path
) -> None:
    _, run_id, path = turned
    with pytest.raises(DamagedError, match=f"`{path}`"):
        recorded[0].download_artifacts(run_id, path, str(tmp_path))


def test_a_run_that_goes_on_keeps_what_was_known(
    recorded: tuple[BufferedMlflowClient, str, Path], tmp_path: Path
) -> None:
    first, other, _ = recorded
    uri, experiment = first.tracking_uri, first.get_run(other).info.experiment_id
    run_id = first.create_run(experiment).info.run_id
    first.log_text(run_id, "1", "a.txt")
    first.log_checksums(run_id)
    again = BufferedMlflowClient(uri)
    again.log_text(run_id, "2", "b.txt")
    again.log_checksums(run_id)
    MlflowClient(uri).log_text(run_id, "3", "c.txt")  # of somebody else, who writes no checksums
    found = RunArtifacts.download(MlflowClient(uri), run_id, ["a.txt", "b.txt", "c.txt"], tmp_path / "run")
    assert found.unchecked == ["c.txt"]
