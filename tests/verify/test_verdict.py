"""Bundles executed again: the same to the last bit, first different where, or not to be executed at all."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.records.signal import versions
from qlib_ext.verify import verdict
from qlib_ext.verify.content import Difference
from qlib_ext.verify.opened import Bundle, open_bundle
from qlib_ext.verify.verdict import Verdict, verify
from qlib_ext.workflow import scored
from tests.verify.conftest import RECORDS, Bundled, packed, unpacked
from tests.verify.test_opened import SCORES, forged


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Qlib's manager puts into the process stays of this test."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


class TestSame:
    def test_trees_from_their_weights(self, trees: Bundled) -> None:
        before = os.environ.get("MLFLOW_TRACKING_URI"), Path.cwd()
        found = verify(trees.path)
        assert found.exact, found.first
        assert found.sentence().startswith("same: ")
        assert found.environment == ()
        assert found.compared[SCORES][0] == found.compared[SCORES][1] == trees.written.index["scores"]
        assert found.not_compared == ("model/booster.txt", "model/windows.safetensors")
        assert (os.environ.get("MLFLOW_TRACKING_URI"), Path.cwd()) == before
        assert not trees.store.root.with_name("store.trials.jsonl").exists()

    def test_a_network_from_its_weights_on_a_copy_of_the_data(self, network: Bundled, tmp_path: Path) -> None:
        shutil.copytree(network.store.root, tmp_path / "mine")
        found = verify(network.path, tmp_path / "mine")
        assert found.exact, found.first
        assert "training/weights.safetensors" in found.not_compared

    def test_a_network_trained_from_its_seed(self, network: Bundled, tmp_path: Path) -> None:
        found = verify(network.path, train=True)
        assert found.exact, found.first
        assert found.compared.keys() >= {"training/weights.safetensors", "training/history.csv", SCORES}
        assert found.not_compared == ()

    def test_scores_that_were_given_need_no_file_of_them(
        self, trees: Bundled, bundled: Callable[..., Bundled], tmp_path: Path
    ) -> None:
        scores = pd.read_parquet(io.BytesIO(unpacked(trees.path)[f"runs/{trees.run.info.run_id}/{SCORES}"]))
        scores.reset_index().to_csv(tmp_path / "scores.csv", index=False)
        task = scored.of_file(tmp_path / "scores.csv", trees.store, universe="csi300", topk=4, n_drop=1)
        task["record"] = [each for each in task["record"] if each["class"].endswith(RECORDS)]
        given = bundled("given", task)
        (tmp_path / "scores.csv").unlink()
        found = verify(given.path, train=True)
        assert found.exact, found.first


class TestDifferent:
    def test_scores_that_the_weights_do_not_make_are_found(self, trees: Bundled, tmp_path: Path) -> None:
        def better(content: bytes) -> bytes:
            table = pd.read_parquet(io.BytesIO(content))
            table.iloc[7, 0] += 0.5
            return table.to_parquet()

        files = unpacked(trees.path)
        root = f"runs/{trees.run.info.run_id}/"
        table = pd.read_parquet(io.BytesIO(files[root + SCORES]))
        day, stock = table.index[7]
        found = verify(packed(tmp_path / "b.zip", forged(files, root, better, manifest=False)))
        assert not found.same
        assert found.first is not None
        assert (found.first.path, found.first.column) == (SCORES, "score")
        assert found.first.where == f"{day:%Y-%m-%d} {stock}"
        assert float(found.first.expected) == pytest.approx(float(found.first.found) + 0.5, rel=1e-4)
        assert found.document()["verdict"] == "different"


class TestNotToBeExecuted:
    def test_other_data_say_what_differs(self, trees: Bundled, tmp_path: Path) -> None:
        shutil.copytree(trees.store.root, tmp_path / "mine")
        (tmp_path / "mine" / "instruments" / "sse50.txt").unlink()
        with pytest.raises(
            UserError, match=r"cannot be executed on the store .*missing universe: 1 \(sse50\)"
        ):
            verify(trees.path, tmp_path / "mine")

    def test_other_side_data_too(self, trees: Bundled, tmp_path: Path) -> None:
        shutil.copytree(trees.store.root, tmp_path / "mine")
        (tmp_path / "mine" / "side" / "industry.parquet").unlink()
        with pytest.raises(
            UserError, match=r"its bars are those of the run, and missing side data: 1 \(industry\)"
        ):
            verify(trees.path, tmp_path / "mine")

    def test_no_data_at_all(self, trees: Bundled, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"cannot be executed: .*none"):
            verify(trees.path, tmp_path / "none")

    def test_a_package_that_is_missing(self, trees: Bundled, monkeypatch: pytest.MonkeyPatch) -> None:
        def make(*_: object, **__: object) -> None:
            raise ModuleNotFoundError("No module named 'skfolio'", name="skfolio")

        monkeypatch.setattr(verdict, "make_again", make)
        with pytest.raises(
            UserError, match="cannot be executed, since skfolio is not installed: `pip install -c"
        ):
            verify(trees.path)

    def test_a_class_that_no_workflow_may_name(self, trees: Bundled, tmp_path: Path) -> None:
        files = unpacked(trees.path)
        name = f"runs/{trees.run.info.run_id}/config.yaml"
        files[name] = files[name].replace(b"qlib.contrib.model.gbdt.LGBModel", b"subprocess.Popen")
        index = json.loads(files["bundle.json"])
        artifacts = index["runs"][index["run"]]["artifacts"]
        artifacts["config.yaml"] |= {
            "bytes": len(files[name]),
            "sha256": hashlib.sha256(files[name]).hexdigest(),
        }
        del artifacts["checksums.txt"], files[name.replace("config.yaml", "checksums.txt")]
        files["bundle.json"] = json.dumps(index).encode()
        with pytest.raises(UserError, match=r"must be of one of the packages .* found .subprocess\.Popen"):
            verify(packed(tmp_path / "b.zip", files))


def judged(differences: tuple[Difference, ...], environment: tuple[str, ...] = ()) -> Verdict:
    return Verdict(
        "id", "name", "", False, {SCORES: ("a", "b")}, (), differences, environment, 1e-4, False, ()
    )


class TestWords:
    NEAR = Difference(SCORES, "2016-09-05 SH600000", "score", "0.1", "0.10000001", 1, 1e-7)
    FAR = dataclasses.replace(NEAR, largest=math.inf)
    OTHER = ("numpy is 2.4.0, and was 2.3.0",)

    def test_rounding_on_the_same_versions_is_a_difference(self) -> None:
        assert not judged((self.NEAR,)).same
        assert "by rounding only" in judged((self.NEAR,)).sentence()

    def test_rounding_on_other_versions_is_near_and_called_so(self) -> None:
        found = judged((self.NEAR,), self.OTHER)
        assert found.same
        assert not found.exact
        assert found.document()["verdict"] == "near"
        assert found.sentence().startswith("same to within 0.0001, not bit for bit")

    def test_more_than_that_is_different_wherever(self) -> None:
        assert not judged((self.FAR,), self.OTHER).same
        assert "which may be why" in judged((self.FAR,), self.OTHER).sentence()
        assert judged((self.FAR,)).document()["largest"] is None

    def test_no_difference_on_other_versions_says_so(self) -> None:
        assert (
            judged((), self.OTHER)
            .sentence()
            .endswith("all the same bit for bit although versions or machine differ")
        )


def test_a_kernel_and_a_database_decide_no_digit_and_a_library_does(
    trees: Bundled, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = versions()
    other = {
        "System": here["System"].replace("Linux-", "Linux-9.9."),
        "mlflow": "0",
        "numpy": "1.0",
        "Threads": "7",
    }
    monkeypatch.setattr(verdict, "versions", lambda: {**here, **other})
    bundle = open_bundle(trees.path, Path(trees.path.parent / "other"))
    said, threads = verdict.other_environment(bundle)
    assert said == [f"numpy is 1.0, and was {here['numpy']}"]
    assert threads == int(here["Threads"])


def test_the_store_of_the_run_is_the_default(trees: Bundled, tmp_path: Path) -> None:
    (tmp_path / "workflow.yaml").write_text("qlib_init: {provider_uri: /no/such/place}\n")
    with pytest.raises(UserError, match="name yours by `--store DIR`"):
        verdict._same_data(Bundle(trees.path, tmp_path, trees.written.index), None)
