"""A run whose pickles were exchanged for ones that run a program: nobody opens them."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from safetensors import SafetensorError
from safetensors.torch import load_file
from typer.testing import CliRunner

from qlib_ext.checks import UserError
from qlib_ext.cli.main import app
from qlib_ext.market.store import QlibStore
from qlib_ext.model.checkpoint import load as load_checkpoint
from qlib_ext.recommend.recommendation import recommend
from qlib_ext.tracking.runs import find_run
from qlib_ext.workflow.experiment import ExperimentManager

PICKLES = ("task", "params.pkl", "dataset", "config", "signal/pred.pkl", "pred.pkl", "signal/label.pkl")


def load_array(path: Path) -> Any:
    """As the panel cache reads its arrays."""
    return np.load(path, allow_pickle=False)


class Bomb:
    """Unpickled, it makes a directory."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mined(client: MlflowClient, tmp_path: Path) -> Iterator[tuple[MlflowClient, Path]]:
    """The runs, with bombs in the place of Qlib's pickles and of more; and what is there once one has gone off."""
    mark, bomb = tmp_path / "went-off", pickle.dumps(Bomb(tmp_path / "went-off"))
    before: dict[Path, bytes | None] = {}
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            for name in PICKLES:
                place = Path(run.info.artifact_uri.removeprefix("file://")) / name
                before[place] = place.read_bytes() if place.exists() else None
                place.parent.mkdir(
                    parents=True, exist_ok=True
                )  # another test's run may have no artifact at all
                place.write_bytes(bomb)
    assert sum(kept is not None for kept in before.values()) >= 6  # Qlib's three of each run
    yield client, mark
    for place, kept in before.items():
        if kept is None:
            place.unlink()
        else:
            place.write_bytes(kept)


class TestBombs:
    def test_the_bomb_goes_off_where_it_is_opened(self, tmp_path: Path) -> None:
        pickle.loads(pickle.dumps(Bomb(tmp_path / "mark")))
        assert (tmp_path / "mark").is_dir()

    def test_a_recommendation_opens_none(self, mined: tuple[MlflowClient, Path], newest: QlibStore) -> None:
        there, mark = mined
        for name in ("mimstocr_csi300", "lightgbm_csi300"):
            assert len(recommend(there, name, newest.root).listed)
        assert not mark.exists()

    @pytest.mark.parametrize(
        "command", [["report", "mimstocr_csi300"], ["compare", "mimstocr_csi300", "lightgbm_csi300"]]
    )
    def test_a_page_opens_none(
        self, command: list[str], mined: tuple[MlflowClient, Path], tmp_path: Path
    ) -> None:
        there, mark = mined
        out = ["--out", str(tmp_path / "page"), "--tracking-uri", there.tracking_uri]
        done = CliRunner().invoke(app, [*command, *out])
        assert done.exit_code == 0, done.output
        assert not mark.exists()

    def test_a_run_taken_up_opens_none(
        self, mined: tuple[MlflowClient, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        there, mark = mined
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        found = find_run(there, "mimstocr_csi300")
        manager = ExperimentManager(there.tracking_uri)
        recorder = manager.get_exp(experiment_id=found.info.experiment_id).get_recorder(
            recorder_id=found.info.run_id
        )
        for name in PICKLES:
            with pytest.raises(UserError, match="is a pickle that this process did not write"):
                recorder.load_object(name)
        assert not mark.exists()
        recorder.load_object("task", unpickler=pickle.Unpickler)
        assert mark.is_dir()  # who says that he trusts it, has it opened

    @pytest.mark.parametrize("read", [load_checkpoint, load_file, pd.read_parquet, load_array])
    def test_nor_is_one_opened_under_the_name_of_something_else(
        self, read: Callable[[Path], Any], tmp_path: Path
    ) -> None:
        for name in ("00000000000000000001.safetensors", "weights.safetensors", "scores.parquet", "0.npy"):
            (tmp_path / name).write_bytes(pickle.dumps(Bomb(tmp_path / "mark")))
            with pytest.raises((UserError, SafetensorError, ValueError)):
                read(tmp_path / name)
        assert not (tmp_path / "mark").exists()

    def test_a_configuration_that_names_a_program_is_refused(
        self, client: MlflowClient, newest: QlibStore, tmp_path: Path
    ) -> None:
        run = find_run(client, "mimstocr_csi300")
        place = Path(run.info.artifact_uri.removeprefix("file://")) / "config.yaml"
        kept = place.read_text(encoding="utf-8")
        evil = kept.replace("qlib_ext.model.losses.mse.MSE", "subprocess.Popen")
        assert evil != kept
        checksums, aside = place.with_name("checksums.txt"), tmp_path / "checksums.txt"
        checksums.rename(aside)  # who can plant the one can remove the other
        try:
            place.write_text(evil, encoding="utf-8")
            with pytest.raises(
                UserError, match=r"must be of one of the packages .* found 'subprocess.Popen'"
            ):
                recommend(client, "mimstocr_csi300", newest.root)
        finally:
            place.write_text(kept, encoding="utf-8")
            aside.rename(checksums)
