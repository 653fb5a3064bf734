from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from qlib_ext.checks import UserError
from qlib_ext.verify.bundle import write_bundle
from tests.verify.conftest import Bundled, index_of, unpacked


def test_it_holds_the_workflow_versions_weights_and_tables(trees: Bundled) -> None:
    files = unpacked(trees.path)
    folder = f"runs/{trees.run.info.run_id}"
    workflow = yaml.safe_load(files["workflow.yaml"])
    assert workflow["qlib_init"]["provider_uri"] == str(trees.store.root)
    assert workflow["task"]["model"]["class"] == "qlib.contrib.model.gbdt.LGBModel"
    assert b"{{" not in files["workflow.yaml"]
    assert {f"{folder}/model/booster.txt", f"{folder}/backtest/orders.parquet"} <= files.keys()
    assert "pyqlib==0.9.7" in files["constraints.txt"].decode().splitlines()
    assert not [name for name in files if name.endswith((".png", ".html", ".pkl", "/task", "/dataset"))]


def test_the_index_says_the_data_and_the_hashes(trees: Bundled) -> None:
    index = index_of(unpacked(trees.path))
    assert index["data"]["fingerprint"] == trees.store.fingerprint()
    assert index["data"]["parts"].keys() >= {
        "calendar",
        "universe csi300",
        "field close",
        "side data industry",
    }
    assert index["environment"]["Threads"].isdecimal()
    own = index["runs"][trees.run.info.run_id]["artifacts"]
    assert index["scores"] == own["signal/predictions.parquet"]["content"]
    assert index["orders"] == own["backtest/orders.parquet"]["content"]


def test_the_same_run_is_the_same_bytes(trees: Bundled, tmp_path: Path) -> None:
    again = write_bundle(trees.client, trees.run, tmp_path / "again.zip")
    assert again.path.read_bytes() == trees.path.read_bytes()


def test_without_the_data_it_says_what_it_cannot_know(trees: Bundled, tmp_path: Path) -> None:
    shutil.copytree(trees.store.root, tmp_path / "other")
    (tmp_path / "other" / "instruments" / "sse50.txt").unlink()
    found = write_bundle(trees.client, trees.run, tmp_path / "b.zip", tmp_path / "other")
    assert found.index["data"]["parts"] == {}
    assert any("the data of the run are others now" in note for note in found.notes)


def test_a_run_that_has_not_finished_is_refused(trees: Bundled, tmp_path: Path) -> None:
    experiment = trees.client.create_experiment("under way", artifact_location=str(tmp_path / "artifacts"))
    run = trees.client.create_run(experiment)
    with pytest.raises(UserError, match="must be FINISHED, found RUNNING"):
        write_bundle(trees.client, run, tmp_path / "b.zip")
    trees.client.set_terminated(run.info.run_id)
    with pytest.raises(UserError, match=r"keeps no config.yaml, data/summary.json.*SignalRecord"):
        write_bundle(trees.client, trees.client.get_run(run.info.run_id), tmp_path / "b.zip")
    assert not (tmp_path / "b.zip").exists()
